"""Kernels of eight bits of levels that this processor does not run, as programs of their own.

New instructions of x86-64 are written out in C in `driver.c`; ARM's run under qemu.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent
KERNELS = FOLDER.parents[2] / "src_ext" / "kernels"


@dataclass(frozen=True)
class Level:
    """A level: what compiles and runs it, and how its weights are packed.

    Attributes
    ----------
    number : int
        In `driver.c`.
    lanes, offset : int
        Of its vectors, and what it adds to activations.
    compiler, runner : tuple of str
        Command lines.
    """

    number: int
    lanes: int
    offset: int
    compiler: tuple[str, ...] = ("gcc", "-mavx2", "-mfma")
    runner: tuple[str, ...] = ()


_ARM = ("aarch64-linux-gnu-gcc", "-static")
_QEMU = ("qemu-aarch64", "-cpu", "max")
LEVELS = {
    "AVX_VNNI": Level(3, 8, 128),
    "AVX512BW": Level(4, 16, 0),
    "AVX512_VNNI": Level(5, 16, 128),
    "dotprod": Level(8, 4, 0, (*_ARM, "-march=armv8.2-a+dotprod"), _QEMU),
    "NEON": Level(7, 4, 0, _ARM, _QEMU),
    "plain C": Level(1, 1, 0, ("gcc",)),
}


class Program:
    """The program of a level, in a folder; skips the test where it cannot be compiled or run."""

    def __init__(self, name: str, folder: Path) -> None:
        self.level = LEVELS[name]
        self._path = folder / f"level-{self.level.number}"
        for tool in (self.level.compiler[0], *self.level.runner[:1]):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")
        warnings = ("-Wno-psabi", "-Wno-unused-function")
        flags = ("-O2", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", *warnings)
        level = (f"-DLEVEL_NUMBER={self.level.number}", f"-I{KERNELS}")
        command = [*self.level.compiler, *flags, *level, str(FOLDER / "driver.c"), "-lm"]
        subprocess.run([*command, "-o", str(self._path)], check=True, timeout=600)

    def _run(
        self, kind: int, a: np.ndarray, w: np.ndarray, scale: np.ndarray, block: int, n: int
    ) -> np.ndarray:
        """Pack the rows of the weights [shape=(panels * width, k)] and compute."""
        width = 8 * self.level.lanes if kind else 2 * self.level.lanes
        k = w.shape[1]
        quads = np.zeros((len(w), -(-k // 4) * 4), np.int8)
        quads[:, :k] = w
        packed = quads.reshape(-1, width, quads.shape[1] // 4, 4).swapaxes(1, 2)
        sums = [
            -self.level.offset * w[:, i : i + block].sum(axis=1, dtype=np.int32)
            for i in range(0, k, block)
        ]
        head = np.array([kind, len(a), k, n, packed.size, len(sums) * len(w)], np.int64)
        parts = (head, a, packed, scale, np.array(sums, np.int32))
        done = subprocess.run(
            [*self.level.runner, str(self._path)],
            input=b"".join(np.ascontiguousarray(part).tobytes() for part in parts),
            stdout=subprocess.PIPE,
            check=True,
            timeout=600,
        )
        return np.frombuffer(done.stdout, np.float32).reshape(len(a), n)

    def linear(self, a: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """As `umx_np.layers.int8.linear_int8`."""
        missing = -len(weight) % (2 * self.level.lanes)
        rows = np.pad(weight, ((0, missing), (0, 0)))
        return self._run(0, a, rows, np.pad(scale, (0, missing)), 512, len(weight))

    def scan(self, gates: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """As `umx_np.layers.int8.lstm_scan_int8`, forward from a state of zeros."""
        hidden, lanes = weight.shape[1], self.level.lanes
        units = np.arange(-(-hidden // (2 * lanes)) * 2 * lanes).reshape(-1, 1, lanes)
        rows = (units + hidden * np.arange(4).reshape(1, 4, 1)).reshape(-1)
        padding = np.broadcast_to(units >= hidden, (len(units), 4, lanes)).reshape(-1)
        rows[padding] = 0
        packed = [np.where(padding, 0, x[..., rows]) for x in (gates, scale / np.float32(127))]
        w = np.where(padding[:, None], 0, weight[rows]).astype(np.int8)
        return self._run(1, packed[0], w, packed[1], hidden, hidden)
