"""Where every recorded sound comes from, and how it is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
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
    cache : Path
        Folder for what is worked out once: decoded copies, parsed scores.
    debian : Path
        Where Debian's packages put their files.
    """

    def __init__(self, audio: str | os.PathLike[str], cache: str | os.PathLike[str]) -> None:
        self.audio = Path(audio)
        self.debian = Path("/usr/share")
        self.cache = Path(cache)
        self.cache.mkdir(parents=True, exist_ok=True)
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

    def installed(self, name: str) -> Path:
        """A file of a Debian package, under `debian`.

        Raises
        ------
        FileNotFoundError
            If it is not there: what is played must not depend on what happens to be installed.
        """
        path = self.debian / name
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing; recipes/umxm/README.md lists the Debian packages to install"
            )
        return path

    def load(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Waveform at 44.1 kHz, shape ``(nb_channels, nb_timesteps)``, float32, peak as recorded.

        The result is a copy: it may be modified.
        """
        return self.stored(path).astype(np.float32) / np.float32(32767.0)

    def stored(self, path: str | os.PathLike[str]) -> np.ndarray:
        """The same in 16 bit, mapped from the cache: an excerpt of it costs only its own length."""
        return _mapped(str(Path(path)), str(self.cache))

    def made(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What `make` returns, kept in the cache under a name in 16 bit: made once, then mapped.

        Scaled as `stored`: full scale is 32767.
        """
        kept = self.cache / (hashlib.sha1(name.encode()).hexdigest() + ".npy")
        if not kept.exists():
            _keep(make(), kept)
        return _opened(str(kept))


# An array that is mapped keeps a file descriptor, of which a process may have 1,024 by default.
@lru_cache(maxsize=400)
def _mapped(path: str, cache: str) -> np.ndarray:
    kept = Path(cache) / (hashlib.sha1(path.encode()).hexdigest() + ".npy")
    if not kept.exists():
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE:
            audio = soxr.resample(audio, rate, SAMPLE_RATE)
        _keep(audio.T, kept)
    array: np.ndarray = np.load(kept, mmap_mode="r")
    return array


@lru_cache(maxsize=200)
def _opened(kept: str) -> np.ndarray:
    array: np.ndarray = np.load(kept, mmap_mode="r")
    return array


def _keep(audio: np.ndarray, kept: Path) -> None:
    scaled = np.clip(np.rint(audio * 32767.0), -32768, 32767).astype(np.int16)
    part = kept.with_suffix(f".{os.getpid()}.npy")
    np.save(part, np.ascontiguousarray(scaled))
    os.replace(part, kept)
