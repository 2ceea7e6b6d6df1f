"""What is shown and taken away: peaks, spectrograms, mixes, archives."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from .._support.atomic import atomic_write
from ..audio import AudioReader, StemWriter, nb_resampled
from ..audio.sink import nearest_rate
from ..audio.stem_files import StemFileWriter, check_stems
from ..errors import AudioError
from ..plots import spectrogram_of_file
from .store import MIXTURE, Sound

PEAKS = "peaks.json"
_NB_COLUMNS = 2000
_BYTES_A_SAMPLE = 2
_BLOCK = 1 << 16
_HEADER_BYTES = 1 << 12
# Below the loudest spot of the mixture; what is softer is drawn as silence.
_RANGE_DB = 75.0


def add_mixture(song: Path, stems: Mapping[str, Path], folder: Path) -> Sound:
    """Write the mixture as its stems are written, and the peaks of all.

    Parameters
    ----------
    song : Path
        What was separated.
    stems : mapping of str to Path
        WAV files of 16 bits, of the rate and the length of the song.
    folder : Path
        Where ``mixture.wav`` and the peaks go.

    Returns
    -------
    Sound
    """
    files = {MIXTURE: folder / f"{MIXTURE}.wav", **stems}
    with AudioReader(next(iter(stems.values()))) as stem:
        rate, length, nb_channels = stem.source_rate, stem.nb_timesteps, stem.nb_channels
    with (
        AudioReader(song, downmix="standard") as reader,
        StemWriter(files[MIXTURE], nb_channels=nb_channels, rate=rate) as writer,
    ):
        for block in reader.blocks(_BLOCK):
            writer.write(block[:nb_channels])
    first_byte = {_first_byte(path, length * nb_channels) for path in files.values()}
    if len(first_byte) != 1:
        raise AudioError(f"the stems in {str(folder)!r} are not of one form: separate them again")
    size = -(-length // _NB_COLUMNS)
    peaks = {name: _peaks(path, size) for name, path in files.items()}
    with atomic_write(folder / PEAKS) as file:
        document = {"samples_a_column": size, "lanes": peaks}
        file.write(json.dumps(document, separators=(",", ":")).encode())
    return Sound(tuple(files), rate, nb_channels, length, first_byte.pop())


def _first_byte(path: Path, nb_samples: int) -> int:
    """Where the samples of a WAV file begin: they are its end."""
    first = path.stat().st_size - _BYTES_A_SAMPLE * nb_samples
    with path.open("rb") as file:
        header = file.read(min(max(first, 0), _HEADER_BYTES))
    if len(header) != first or header[-8:-4] != b"data":
        raise AudioError(f"path={str(path)!r} is not of the form that is played: separate it again")
    return first


def _peaks(path: Path, size: int) -> dict[str, list[int]]:
    """Least and greatest sample of each column, from -128 to 127."""
    columns = max(1, _BLOCK // size)
    low: list[int] = []
    high: list[int] = []
    with AudioReader(path) as reader, closing(reader.blocks(columns * size)) as blocks:
        for block in blocks:
            starts = np.arange(0, block.shape[1], size)
            least = np.minimum.reduceat(block.min(axis=0), starts)
            greatest = np.maximum.reduceat(block.max(axis=0), starts)
            low += np.floor(least * 127).astype(int).tolist()
            high += np.ceil(greatest * 127).astype(int).tolist()
    return {"low": low, "high": high}


def levels(path: Path, loudest: float) -> dict[str, Any]:
    """Compute the spectrogram of a lane, for drawing.

    Parameters
    ----------
    path : Path
        WAV file of the lane.
    loudest : float
        Level in dB of the brightest colour.

    Returns
    -------
    dict
        ``levels`` are bytes as base64, the lowest band first and each with all its columns: 255 is
        the loudest, 0 is 75 dB below and less.
    """
    found = spectrogram_of_file(path)
    scaled = (found.levels - (loudest - _RANGE_DB)) * (255 / _RANGE_DB)
    return {
        "nb_bands": found.levels.shape[0],
        "nb_columns": found.levels.shape[1],
        "lowest": found.lowest,
        "highest": found.highest,
        "seconds": found.seconds,
        "levels": base64.b64encode(np.clip(scaled, 0, 255).astype(np.uint8).tobytes()).decode(),
    }


def loudest_spot(path: Path) -> float:
    """Level of the loudest spot of a file, in dB."""
    return float(spectrogram_of_file(path).levels.max())


def render(lanes: Mapping[Path, float], target: Path) -> None:
    """Write the sum of lanes, each times a gain, in the format of the file's name.

    Parameters
    ----------
    lanes : mapping of Path to float
        WAV files of one rate and length, and their gains. None at all is an error.
    target : Path
        File to write.

    Raises
    ------
    AudioError
        If a lane is gone, or the format cannot be written.

    Notes
    -----
    A sum beyond full scale is scaled by one gain.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(AudioReader(path)) for path in lanes]
        gains = [np.float32(gain) for gain in lanes.values()]
        first = readers[0]
        file_rate = nearest_rate(target.suffix, first.rate)
        blocks = [stack.enter_context(closing(reader.blocks(_BLOCK))) for reader in readers]
        writer = stack.enter_context(
            StemWriter(
                target,
                nb_channels=first.nb_channels,
                rate=first.rate,
                file_rate=file_rate,
                nb_timesteps=nb_resampled(first.nb_timesteps, first.rate, file_rate),
                clip_mode="rescale" if gains != [1] else "clamp",
            )
        )
        for parts in zip(*blocks, strict=True):
            total = gains[0] * parts[0]
            for gain, part in zip(gains[1:], parts[1:], strict=True):
                total += gain * part
            writer.write(total)


def render_stem_file(lanes: Mapping[str, Path], target: Path) -> None:
    """Write a song and its four stems to one file for DJ programs.

    Parameters
    ----------
    lanes : mapping of str to Path
        WAV files of one rate and length: the mixture and the stems.
    target : Path
        File to write; its name ends in ``.stem.mp4``.

    Raises
    ------
    AudioError
        If a lane is gone, or ffmpeg is missing.
    ConfigError
        If the stems are not those that the format holds.
    """
    check_stems(name for name in lanes if name != MIXTURE)
    with ExitStack() as stack:
        readers = {name: stack.enter_context(AudioReader(path)) for name, path in lanes.items()}
        first = readers[MIXTURE]
        file_rate = nearest_rate(target.suffix, first.rate)
        writer = StemFileWriter(
            target,
            nb_channels=first.nb_channels,
            rates={name: reader.rate for name, reader in readers.items()},
            file_rate=file_rate,
            nb_timesteps=nb_resampled(first.nb_timesteps, first.rate, file_rate),
            clip_mode="rescale",
        )
        stack.callback(writer.discard)
        for name, reader in readers.items():
            with closing(reader.blocks(_BLOCK)) as blocks:
                for block in blocks:
                    writer.sinks[name].write(block)
        writer.commit()


class _Pipe:
    """A file that is only written to, and taken from as it grows."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def archive(files: Mapping[str, Path], suffix: str, folder: Path) -> Iterator[bytes]:
    """Yield the bytes of a zip archive, of which only one piece is in memory.

    Parameters
    ----------
    files : mapping of str to Path
        Names in the archive without extension, and WAV files.
    suffix : str
        Format of the files in the archive.
    folder : Path
        For what is converted; nothing is left there.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as target:  # type: ignore[call-overload]
        for number, (name, source) in enumerate(files.items()):
            made = source
            if suffix != ".wav":
                made = folder / f"{id(pipe):x}-{number}{suffix}"
            try:
                if made != source:
                    render({source: 1.0}, made)
                with (
                    made.open("rb") as file,
                    target.open(f"{name}{suffix}", "w", force_zip64=True) as entry,
                ):
                    while data := file.read(_BLOCK):
                        entry.write(data)
                        yield pipe.take()
            finally:
                if made != source:
                    made.unlink(missing_ok=True)
    yield pipe.take()
