"""Options of a separation and of the files it makes, as records and as keywords."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from ..backends.contracts import Backend


class ComputingKeywords(TypedDict, total=False):
    """The fields of `umx_np.config.Computing`, for type checkers."""

    device: str | Backend
    threads: int | None
    precision: str


class SeparationKeywords(ComputingKeywords, total=False):
    """And those of `umx_np.config.SeparationOptions`."""

    niter: int
    softmask: bool
    residual: bool | str
    wiener_win_len: int | None
    filterbank: str


@dataclass(frozen=True)
class Excerpt:
    """What of a song is read.

    Attributes
    ----------
    start : float
        Where it begins, in seconds.
    duration : float or None
        How long it is, in seconds; None or a negative number is up to the end.
    track : int or None
        Which of several streams of sound, from 1; None is the first.
    downmix : {'standard', 'first'}
        What is made of more channels than two for a model of two; as for
        `umx_np.audio.AudioReader`.
    """

    start: float = 0.0
    duration: float | None = None
    track: int | None = None
    downmix: str = "standard"


@dataclass(frozen=True)
class OutputPlan:
    """Where the stems of a song go, and in which form; as for `umx_np.separate_file`.

    Attributes
    ----------
    outdir : str or path-like or None
        Folder for the results.
    aggregate : mapping of str to sequence of str, or None
        Names of files and the stems that are summed in them.
    two_stems : str or None
        Stem that is written beside the song without it, instead of all stems.
    only : sequence of str or None
        Of all these results, those that are written; None is all of them.
    ext, filename : str
        Format of the results, and the template of their places.
    bits, clip_mode, quality, bitrate
        As for `umx_np.audio.StemWriter`.
    tags : bool
        Whether stems get the tags and the cover of the song.
    rate : {'input', 'model'}
        Rate of the results.
    plot : str or path-like or None
        Place of a picture.
    """

    outdir: str | os.PathLike[str] | None = None
    aggregate: Mapping[str, Sequence[str]] | None = None
    two_stems: str | None = None
    only: Sequence[str] | None = None
    ext: str = ".wav"
    bits: str = "16"
    clip_mode: str = "clamp"
    quality: float | None = None
    bitrate: int | None = None
    tags: bool = True
    rate: str = "input"
    filename: str | None = None
    plot: str | os.PathLike[str] | None = None


class FileKeywords(SeparationKeywords, total=False):
    """And those of `Excerpt` and `OutputPlan`."""

    start: float
    duration: float | None
    track: int | None
    downmix: str
    aggregate: Mapping[str, Sequence[str]] | None
    two_stems: str | None
    only: Sequence[str] | None
    ext: str
    bits: str
    clip_mode: str
    quality: float | None
    bitrate: int | None
    tags: bool
    rate: str
    filename: str | None
    plot: str | os.PathLike[str] | None
