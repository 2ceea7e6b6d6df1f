"""Whole arrays from sound files and to them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any, overload

import numpy as np

from ..config import check_array
from ..errors import AudioError, ConfigError, UmxError, shortened
from .decoding import FILE_BLOCK
from .given import SoundInput
from .reader import AudioReader
from .writer import StemWriter


def read(
    path: SoundInput,
    start: float = 0.0,
    duration: float | None = None,
    rate: float | None = None,
    *,
    track: int | None = None,
    downmix: str | None = None,
) -> tuple[np.ndarray, float]:
    """Read a sound file into an array.

    Parameters
    ----------
    path, start, duration, rate, track, downmix
        As for `AudioReader`.

    Returns
    -------
    audio : ndarray [shape=(nb_channels, nb_timesteps)], float32
        Full scale of integer files is [-1, 1).
    rate : float
        Rate of `audio` in Hz.

    Raises
    ------
    AudioError
        As for `AudioReader`.

    Examples
    --------
    >>> import io
    >>> from umx_np.audio import write
    >>> file = io.BytesIO()
    >>> write(file, np.zeros((6, 100)), 44100, format="flac")
    >>> file.seek(0)
    0
    >>> audio, rate = read(file, downmix="standard")
    >>> audio.shape, rate
    ((2, 100), 44100)
    """
    with AudioReader(
        path, start=start, duration=duration, rate=rate, track=track, downmix=downmix
    ) as reader:
        audio = np.empty((reader.nb_channels, reader.nb_timesteps), np.float32)
        done = 0
        for block in reader.blocks(FILE_BLOCK):
            audio[:, done : done + block.shape[1]] = block
            done += block.shape[1]
        return audio, reader.rate


@overload
def write(
    path: str | os.PathLike[str],
    audio: np.ndarray,
    rate: float,
    *,
    format: None = ...,
    file_rate: float | None = ...,
    bits: str = ...,
    clip_mode: str = ...,
    quality: float | None = ...,
    bitrate: int | None = ...,
) -> Path: ...


@overload
def write(
    path: IO[bytes],
    audio: np.ndarray,
    rate: float,
    *,
    format: str,
    file_rate: float | None = ...,
    bits: str = ...,
    clip_mode: str = ...,
    quality: float | None = ...,
    bitrate: int | None = ...,
) -> None: ...


def write(
    path: str | os.PathLike[str] | IO[bytes],
    audio: np.ndarray,
    rate: float,
    *,
    format: str | None = None,
    file_rate: float | None = None,
    bits: str = "16",
    clip_mode: str = "clamp",
    quality: float | None = None,
    bitrate: int | None = None,
) -> Path | None:
    """Write an array to a sound file.

    Parameters
    ----------
    path : str, path-like or binary file object
        The file. To an object, the file is written at its position when it is complete; it is not
        closed, and needs not seek.
    audio : ndarray [shape=(nb_timesteps,) or (nb_channels, nb_timesteps)], float
        Full scale is [-1, 1]; not modified.
    rate : float
        Rate of `audio` in Hz.
    format : str or None
        The extension that a file of the format has, such as ``"flac"``; for objects only.
    file_rate, bits, clip_mode, quality, bitrate
        As for `StemWriter`.

    Returns
    -------
    Path or None
        The file; None for an object.

    Raises
    ------
    AudioError, ConfigError, ShapeError
        As for `StemWriter`.
    """
    audio = np.atleast_2d(check_array("audio", audio))
    options: dict[str, Any] = {
        "file_rate": file_rate,
        "bits": bits,
        "clip_mode": clip_mode,
        "quality": quality,
        "bitrate": bitrate,
    }
    if isinstance(path, (str, os.PathLike)):
        if format is not None:
            raise ConfigError(
                f"format={format!r} is for file objects; path={str(path)!r} has an extension"
            )
        with StemWriter(path, nb_channels=len(audio), rate=rate, **options) as writer:
            _write_all(writer, audio)
        return writer.path
    _write_to_object(path, audio, rate, format, options)
    return None


def _write_all(writer: StemWriter, audio: np.ndarray) -> None:
    for begin in range(0, audio.shape[-1], FILE_BLOCK):
        writer.write(audio[:, begin : begin + FILE_BLOCK])


def _write_to_object(
    file: IO[bytes], audio: np.ndarray, rate: float, form: str | None, options: dict[str, Any]
) -> None:
    """Write to a temporary file, and from there to an object."""
    if not callable(getattr(file, "write", None)):
        raise ConfigError(
            f"path={shortened(file)} must be the name of a file, or a file object that was opened "
            "for writing in binary mode"
        )
    if not isinstance(form, str) or not form:
        raise ConfigError(f"format={form!r} must be given for a file object, for instance 'wav'")
    name = f"file=<{type(file).__name__}>"
    place = Path(tempfile.gettempdir(), f"sound.{form.removeprefix('.')}")
    try:
        writer = StemWriter(place, nb_channels=len(audio), rate=rate, **options)
        try:
            _write_all(writer, audio)
            writer.finish()
            with writer.temporary_path.open("rb") as written:
                shutil.copyfileobj(written, file)
        finally:
            writer.discard()
    except UmxError as error:
        raise type(error)(str(error).replace(f"path={str(place)!r}", name)) from error
    except (OSError, ValueError, TypeError) as error:  # closed, or opened for text
        raise AudioError(f"{name} cannot be written to: {error}") from error
