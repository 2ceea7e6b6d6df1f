"""Stem files (``.stem.mp4``): a song and its four stems in one file, for DJ programs.

Native Instruments' format: an MP4 file with five stereo streams of AAC or ALAC, first the mixture,
which an ordinary player plays, then the stems. The box ``stem`` in ``moov/udta`` holds JSON with
their names and colours, and the settings of a compressor and a limiter for the sum of the stems.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .._support.atomic import TemporaryFile
from ..config import check_array
from ..errors import AudioError, ConfigError, ShapeError
from .encoded import check_encoding
from .mp4 import add_user_data, encode
from .sink import FILE_BLOCK
from .writer import StemWriter

STEM_FILE_SUFFIX = ".stem.mp4"
# In the order in which DJ programs and the musdb package expect them, with colours that people with
# any colour vision tell apart (Okabe and Ito).
_COLOURS = {"drums": "#009E73", "bass": "#D55E00", "other": "#CC79A7", "vocals": "#56B4E9"}
STEM_FILE_STEMS = tuple(_COLOURS)
# What Native Instruments' own tool writes where nothing is set; both are off, so that the stems add
# up to the song as it is.
_DSP = {
    "compressor": {
        "enabled": False,
        "input_gain": 0.5,
        "output_gain": 0.5,
        "dry_wet": 50,
        "attack": 0.003,
        "release": 0.3,
        "threshold": 0,
        "ratio": 3,
        "hp_cutoff": 300,
    },
    "limiter": {"enabled": False, "threshold": 0, "ceiling": -0.35, "release": 0.05},
}


def is_stem_file(name: str | os.PathLike[str]) -> bool:
    """Whether a file of this name or extension, with its dot or without, is a stem file."""
    return f".{os.fspath(name)}".lower().endswith(STEM_FILE_SUFFIX)


def check_stems(names: Iterable[str]) -> None:
    """Raise `ConfigError` unless these are the stems that a stem file holds."""
    found = list(names)
    if sorted(found) != sorted(STEM_FILE_STEMS):
        raise ConfigError(
            f"stems={found!r}: a {STEM_FILE_SUFFIX} file holds the mixture and the stems "
            f"{', '.join(STEM_FILE_STEMS)}, all four and no others; sum others with aggregate, or "
            "write files of their own"
        )


class Part:
    """Takes the blocks of one stream of a stem file; one channel becomes two that are equal."""

    def __init__(self, writer: StemWriter, nb_channels: int) -> None:
        self._writer = writer
        self.nb_channels, self.rate = nb_channels, writer.rate

    def write(self, block: np.ndarray) -> None:
        """Append samples [shape=(nb_channels, nb_timesteps)]."""
        if len(block) != self.nb_channels:
            raise ShapeError(f"shape={block.shape} must be ({self.nb_channels}, nb_timesteps)")
        self._writer.write(np.repeat(block, 2, axis=0) if self.nb_channels == 1 else block)


class StemFileWriter:
    """A stem file that is written block by block and appears when it is complete.

    Until then the five streams are temporary files in the same folder, of floats or of what ALAC
    shall hold.

    Parameters
    ----------
    path : Path
        The file.
    nb_channels : int
        Channels of the blocks; the streams have two.
    rates : mapping of str to float
        Of ``"mixture"`` and each stem, the rate of their blocks in Hz.
    file_rate : float
        44100 or 48000 Hz.
    **options
        `nb_timesteps`, `bits`, `clip_mode`, `quality` and `bitrate` of `umx_np.audio.StemWriter`;
        and `tags`, those of the file in the names of ffmpeg.

    Attributes
    ----------
    sinks : dict of str to sink
        For each stem, and for ``"mixture"``, what takes its blocks.

    Raises
    ------
    AudioError
        If ffmpeg is missing, or the place or the rate cannot be written.
    ConfigError
        If an argument is not usable.
    """

    def __init__(
        self,
        path: Path,
        *,
        nb_channels: int,
        rates: Mapping[str, float],
        file_rate: float,
        **options: Any,
    ) -> None:
        self.path = path
        bits, clip_mode = options.get("bits", "16"), options.get("clip_mode", "clamp")
        size = options.pop("quality", None), options.pop("bitrate", None)
        self._tags: Mapping[str, str] = options.pop("tags", {})
        self._encoding = check_encoding(
            path, int(file_rate), max(nb_channels, 2), bits, clip_mode, *size
        )
        if path.is_dir():
            raise AudioError(f"path={str(path)!r} is a folder; give the name of a file")
        if self._encoding.codec == "aac":
            options["bits"] = "float"
        self._file: TemporaryFile | None = None
        self._committed = False
        self._writers: dict[str, StemWriter] = {}
        with ExitStack() as opened:
            for name in ("mixture", *STEM_FILE_STEMS):
                # Never of that name: it says what a message is about.
                part = path.with_name(f"{path.name}.{name}.w64")
                writer = StemWriter(
                    part, nb_channels=2, rate=rates[name], file_rate=file_rate, **options
                )
                opened.callback(writer.discard)
                self._writers[name] = writer
            opened.pop_all()
        self.sinks = {name: Part(writer, nb_channels) for name, writer in self._writers.items()}

    @property
    def temporary_path(self) -> Path:
        """Where the finished file is until it is committed."""
        assert self._file is not None
        return self._file.path

    @property
    def _is_finished(self) -> bool:
        """Whether the file is whole, under whatever name."""
        return self._file is not None

    def _end(self) -> float:
        """Store what is held back; returns the gain that all streams together need."""
        return min(writer._end() for writer in self._writers.values())

    def finish(self, gain: float | None = None) -> None:
        """Encode all streams, still under a temporary name.

        Parameters
        ----------
        gain : float or None
            As for `StemWriter.finish`; None is the same as their own.

        Raises
        ------
        AudioError
            If ffmpeg fails, or the disk is full.
        """
        if self._file is not None:
            return
        gain = self._end() if gain is None else gain
        for writer in self._writers.values():
            writer.finish(gain)
        content = {
            "mastering_dsp": _DSP,
            "version": 1,
            "stems": [{"name": name, "color": _COLOURS[name]} for name in STEM_FILE_STEMS],
        }
        with ExitStack() as discarded:
            try:
                plain = TemporaryFile(self.path.parent)
                discarded.callback(plain.discard)
                paths = [writer.temporary_path for writer in self._writers.values()]
                encode(
                    paths, list(self._writers), plain.path, self._encoding, self.path, self._tags
                )
                whole = TemporaryFile(self.path.parent)
                on_error = discarded.enter_context(ExitStack())
                on_error.callback(whole.discard)
                with (
                    plain.path.open("rb") as source,
                    os.fdopen(whole.descriptor, "w+b", closefd=False) as target,
                ):
                    add_user_data(source, target, b"stem", json.dumps(content).encode())
                on_error.pop_all()
            except OSError as error:
                if isinstance(error, AudioError):
                    raise
                raise AudioError(f"path={str(self.path)!r} cannot be written: {error}") from error
        self._file = whole
        for writer in self._writers.values():
            writer.discard()

    def commit(self) -> None:
        """Give the finished file its name, replacing a file that has it.

        Raises
        ------
        AudioError
            If the file cannot be renamed.
        """
        if self._committed:
            return
        self.finish()
        assert self._file is not None
        try:
            self._file.rename(self.path)
        except OSError as error:
            self.discard()
            raise AudioError(f"path={str(self.path)!r} cannot be replaced: {error}") from error
        self._committed = True

    def discard(self) -> None:
        """Remove all temporary files; nothing appears at `path`. Undoes no `commit`."""
        for writer in self._writers.values():
            writer.discard()
        if self._file is not None and not self._committed:
            self._file.discard()


def write_stem_file(
    path: str | os.PathLike[str],
    mixture: np.ndarray,
    stems: Mapping[str, np.ndarray],
    rate: float,
    *,
    file_rate: float | None = None,
    bits: str = "16",
    clip_mode: str = "clamp",
    quality: float | None = None,
    bitrate: int | None = None,
) -> Path:
    """Write a song and its stems to a ``.stem.mp4`` file, for DJ programs.

    Parameters
    ----------
    path : str or path-like
        The file; its name ends in ``.stem.mp4``. It appears when it is complete.
    mixture : ndarray [shape=(nb_timesteps,) or (nb_channels, nb_timesteps)], float
        The song, of one or two channels; not modified.
    stems : mapping of str to ndarray
        ``drums``, ``bass``, ``other`` and ``vocals``, each of the shape of the mixture.
    rate : float
        Rate of the arrays in Hz.
    file_rate : float or None
        44100 or 48000 Hz; None is `rate`.
    bits, clip_mode
        As for `StemWriter`; AAC takes no notice of `bits`.
    quality : float or None
        From 0 to 1: AAC of 64 to 320 kbit/s a stream (None: 256), and 1 is ALAC, which loses
        nothing.
    bitrate : int or None
        Of AAC and a stream, in kbit/s, instead of `quality`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    AudioError
        If ffmpeg is missing, or the file cannot be written.
    ConfigError
        If the stems are others, or an argument is not usable.
    ShapeError
        If the arrays have different shapes, or more than two channels.
    """
    check_stems(stems)
    arrays = {"mixture": np.atleast_2d(check_array("mixture", mixture))}
    for name in STEM_FILE_STEMS:
        arrays[name] = np.atleast_2d(check_array(name, stems[name]))
        if arrays[name].shape != arrays["mixture"].shape:
            raise ShapeError(
                f"stems[{name!r}] has shape={arrays[name].shape}, the mixture "
                f"{arrays['mixture'].shape}; they must agree"
            )
    file = Path(os.path.expanduser(path))
    if not is_stem_file(file):
        raise AudioError(f"path={str(file)!r} must end in {STEM_FILE_SUFFIX}")
    nb_channels, nb_timesteps = arrays["mixture"].shape
    writer = StemFileWriter(
        file,
        nb_channels=nb_channels,
        rates=dict.fromkeys(arrays, rate),
        file_rate=rate if file_rate is None else file_rate,
        bits=bits,
        clip_mode=clip_mode,
        quality=quality,
        bitrate=bitrate,
    )
    try:
        for name, array in arrays.items():
            for begin in range(0, nb_timesteps, FILE_BLOCK):
                writer.sinks[name].write(array[:, begin : begin + FILE_BLOCK])
        writer.commit()
    finally:
        writer.discard()
    return file
