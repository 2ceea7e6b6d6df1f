"""Streams of ``.stem.mp4`` files, decoded by ffmpeg to the samples that the musdb package reads.

Every excerpt is decoded from the beginning of its stream. Starting later would be quicker and not
the same: AAC frames overlap, some are filled with noise from a generator that all frames before
them have advanced, and times in the file are rounded. Four minutes take half a second of a core.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np

from .._support.programs import run_program
from ..errors import AudioError

logger = logging.getLogger(__name__)

# Nothing but MP4 and its kin, and nothing but this file: a playlist could name others.
_INPUT = ("-protocol_whitelist", "file", "-format_whitelist", "mov")
# Seconds until a decoder that hangs is given up, and bytes that it surely reads in one more.
_PATIENCE = 60.0
_SLOWEST = 1e5
# Samples counted at a time.
_BLOCK = 1 << 20
# Header and sound may differ by a few frames of the encoder.
_SLACK = 8192


def probe(path: Path, stream: int) -> tuple[int, int]:
    """Find rate and channels of a stream.

    Parameters
    ----------
    path : Path
        The file.
    stream : int
        Number of the stream in it.

    Returns
    -------
    rate, nb_channels : int

    Raises
    ------
    AudioError
        If the file cannot be read, or has no such stream of sound.
    """
    rate, nb_channels, _ = _probed(path, stream)
    return rate, nb_channels


def count(path: Path, stream: int) -> int:
    """Count the samples of a stream by decoding it: what the header says is rounded, or wrong.

    Parameters
    ----------
    path, stream
        As for `probe`.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    AudioError
        If the stream cannot be decoded.
    """
    rate, nb_channels, seconds = _probed(path, stream)
    nb_timesteps = _counted(path, stream, nb_channels, *_version(path))
    if nb_timesteps + _SLACK < seconds * rate:
        text = (
            "%s, stream %d: only %.1f of the %.1f seconds that its header promises can be decoded"
        )
        logger.warning(text, path, stream, nb_timesteps / rate, seconds)
    return nb_timesteps


def decode(path: Path, stream: int, first: int = 0, nb_timesteps: int | None = None) -> np.ndarray:
    """Decode a stream, or an excerpt of it.

    Parameters
    ----------
    path, stream
        As for `probe`.
    first : int
        First sample.
    nb_timesteps : int or None
        Number of samples; None decodes to the end.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)], int16
        16 bits are what the musdb package reads. The array cannot be written to.

    Raises
    ------
    AudioError
        If the stream cannot be decoded, or has not so many samples.
    """
    _, nb_channels, _ = _probed(path, stream)
    excerpt = f"atrim=start_sample={first}"
    if nb_timesteps is not None:
        excerpt += f":end_sample={first + nb_timesteps}"
    output = _decoded(path, stream, nb_channels, [excerpt], "s16le", warn=nb_timesteps is None)
    samples = np.frombuffer(output, "<i2").reshape(-1, nb_channels).T
    if not samples.size or nb_timesteps not in (None, samples.shape[1]):
        raise AudioError(
            f"path={str(path)!r} cannot be decoded: ffmpeg gave {samples.shape[1]} samples of "
            f"stream={stream} in place of {nb_timesteps or 'some'} from sample {first}; was the "
            "file replaced?"
        )
    return samples


@lru_cache(maxsize=4096)
def _counted(path: Path, stream: int, nb_channels: int, size: int, mtime_ns: int) -> int:
    blocks = [f"asetnsamples=n={_BLOCK}:p=0"]
    output = _decoded(path, stream, nb_channels, blocks, "framecrc", warn=True)
    # A line for each block: stream, two times, duration, bytes, checksum.
    lines = [line for line in output.decode().splitlines() if line[:1] != "#"]
    nb_timesteps = sum(int(line.split(",")[4]) for line in lines) // (2 * nb_channels)
    if not nb_timesteps:
        raise AudioError(
            f"path={str(path)!r} cannot be decoded: ffmpeg gave 0 samples of stream={stream}"
        )
    return nb_timesteps


def _decoded(
    path: Path, stream: int, nb_channels: int, filters: list[str], form: str, *, warn: bool
) -> bytes:
    """Samples that ffmpeg makes of a stream, in 16 bits."""
    command = [_program("ffmpeg"), "-nostdin", "-v", "error", *_INPUT]
    # A name with a colon is no protocol after `file:`.
    command += ["-i", f"file:{path.absolute()}", "-map", f"0:{stream}"]
    # The first filter drops what lies before the beginning, as `-ss 0` of the musdb package does.
    command += ["-af", ",".join(["atrim=start=0", *filters])]
    command += ["-ac", str(nb_channels), "-c:a", "pcm_s16le", "-f", form, "pipe:1"]
    run = _run(command, path)
    complaint = _last_lines(run.stderr)
    if run.returncode:
        raise AudioError(
            f"path={str(path)!r} cannot be decoded: ffmpeg says {complaint!r} of stream={stream}"
        )
    if complaint and warn:
        logger.warning("%s, stream %d: ffmpeg complains: %s", path, stream, complaint)
    return run.stdout


def _probed(path: Path, stream: int) -> tuple[int, int, float]:
    """Rate, channels, and seconds that the header promises."""
    complaint, streams = _probe_streams(path, *_version(path))
    if stream not in streams:
        raise AudioError(
            f"path={str(path)!r} has no sound in stream={stream}: ffprobe says {complaint!r}"
        )
    return streams[stream]


@lru_cache(maxsize=1024)
def _probe_streams(
    path: Path, size: int, mtime_ns: int
) -> tuple[str, dict[int, tuple[int, int, float]]]:
    """All streams of a file, as they all are asked for one after the other."""
    command = [_program("ffprobe"), "-v", "error", *_INPUT]
    command += ["-select_streams", "a", "-show_streams", "-of", "json", f"file:{path.absolute()}"]
    run = _run(command, path)
    streams = {}
    for stream in json.loads(run.stdout or "{}").get("streams", ()):
        rate, nb_channels = int(stream.get("sample_rate", 0)), int(stream.get("channels", 0))
        if rate > 0 and nb_channels > 0:
            seconds = float(stream.get("duration", 0.0))
            streams[int(stream["index"])] = rate, nb_channels, seconds
    return _last_lines(run.stderr), streams


def _version(path: Path) -> tuple[int, int]:
    """Size and time of change of a file, which must be one: reading a pipe could take for ever."""
    try:
        status = path.stat()
    except OSError as error:
        raise AudioError(f"path={str(path)!r} cannot be opened: {error.strerror}") from error
    if not path.is_file():
        raise AudioError(f"path={str(path)!r} is no file")
    return status.st_size, status.st_mtime_ns


def _run(command: list[str], path: Path) -> subprocess.CompletedProcess[bytes]:
    limit = _PATIENCE + path.stat().st_size / _SLOWEST
    try:
        return run_program(command, limit)
    except subprocess.TimeoutExpired as error:
        raise AudioError(
            f"path={str(path)!r} cannot be decoded: {Path(command[0]).stem} was not done after "
            f"{limit:.0f} s"
        ) from error
    except OSError as error:
        raise AudioError(f"{command[0]} cannot be started: {error.strerror or error}") from error


def _last_lines(text: bytes) -> str:
    return " / ".join(text.decode(errors="replace").splitlines()[-3:])


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise AudioError(f"{name} is needed to read .stem.mp4 files; install ffmpeg")
    return found
