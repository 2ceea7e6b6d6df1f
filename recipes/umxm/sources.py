"""Where every recorded sound comes from, and how it is read."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from .plan import SAMPLE_RATE


class Library:
    """Recorded sounds by path, decoded once.

    Parameters
    ----------
    audio : path-like
        Folder with the downloaded sources (README.md of this folder lists them).
    cache : path-like
        Folder for decoded copies, 16 bit; processes share them through the system's page cache.

    Attributes
    ----------
    audio : Path
        Folder with the downloaded sources.
    debian : Path
        Where Debian's packages put their files.
    """

    def __init__(self, audio: str | os.PathLike[str], cache: str | os.PathLike[str]) -> None:
        self.audio = Path(audio)
        self.debian = Path("/usr/share")
        self._cache = Path(cache)
        self._cache.mkdir(parents=True, exist_ok=True)
        if not self.audio.is_dir():
            raise FileNotFoundError(
                f"audio={str(audio)!r} is no folder; see recipes/umxm/README.md"
            )

    def files(self, pattern: str) -> list[Path]:
        """Sorted files under the folder of sources that match a pattern as ``muldjordkit/*/*.ogg``.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        found = sorted(self.audio.glob(pattern))
        if not found:
            raise FileNotFoundError(f"no file matches {pattern!r} in {self.audio}")
        return found

    def load(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Waveform at 44.1 kHz, shape ``(nb_channels, nb_timesteps)``, float32, peak as recorded.

        The result is a copy: it may be modified.
        """
        return self.stored(path).astype(np.float32) / np.float32(32767.0)

    def stored(self, path: str | os.PathLike[str]) -> np.ndarray:
        """The same in 16 bit, mapped from the cache: an excerpt of it costs only its own length."""
        return _mapped(str(Path(path)), str(self._cache))


@lru_cache(maxsize=20000)
def _mapped(path: str, cache: str) -> np.ndarray:
    kept = Path(cache) / (hashlib.sha1(path.encode()).hexdigest() + ".npy")
    if not kept.exists():
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE:
            audio = soxr.resample(audio, rate, SAMPLE_RATE)
        scaled = np.clip(np.rint(audio.T * 32767.0), -32768, 32767).astype(np.int16)
        part = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(part, np.ascontiguousarray(scaled))
        os.replace(part, kept)
    array: np.ndarray = np.load(kept, mmap_mode="r")
    return array
