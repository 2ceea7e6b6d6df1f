"""Launches of kernels: sizes of their grids, and scratch memory of their sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .compiling import Defines
    from .device import Device

Array = Any

# As in sources/column_sums.cuh and training_steps.cu.
_COLUMNS, _LANES = 32, 8
THREADS = _COLUMNS * _LANES
_PIECE = 64
_FLAT_PIECE = 4096
_EXCERPT_ROWS = 4
# Shared memory of a block: a number for each thread, and a flag.
_SHARED = 8 * THREADS + 16
MOST_ROWS = 65535  # of a grid along y


class Grid(NamedTuple):
    """Blocks and threads of a launch, and the scratch memory of a kernel that adds up.

    Attributes
    ----------
    blocks, threads : tuple of int
        Of the grid, and of a block.
    shared : int
        Bytes of dynamic shared memory of a block.
    nb_pieces : int
        Parts in which a sum is made.
    nb_counters : int
        Groups of blocks that add up together.
    """

    blocks: tuple[int, ...]
    threads: tuple[int, ...] = (THREADS,)
    shared: int = 0
    nb_pieces: int = 0
    nb_counters: int = 0


def tiled(nb_columns: int, nb_rows: int, depth: int = 1) -> Grid:
    """Tiles of columns and pieces of rows."""
    tiles, pieces = -(-nb_columns // _COLUMNS), -(-nb_rows // _PIECE)
    return Grid((tiles, pieces, depth), (_COLUMNS, _LANES), _SHARED, pieces, tiles * depth)


def spread(nb_columns: int, nb_rows: int = 1) -> Grid:
    """A thread for each column, and rows in strides."""
    return Grid((-(-nb_columns // THREADS), min(nb_rows, MOST_ROWS)))


def flat(count: int, nb_items: int = 1) -> Grid:
    """Pieces of items of `count` elements each."""
    pieces = -(-count // _FLAT_PIECE)
    return Grid((pieces, nb_items), (THREADS,), _SHARED, pieces, nb_items)


def excerpts(nb_rows: int, nb_excerpts: int) -> Grid:
    """Pieces of excerpts of `nb_rows` rows each."""
    pieces = -(-nb_rows // _EXCERPT_ROWS)
    return Grid((pieces, nb_excerpts), (THREADS,), _SHARED, pieces, nb_excerpts)


class Kernels:
    """Kernels of one source.

    Parameters
    ----------
    device : Device
        The card.
    source : str
        File below ``sources``.
    **defines
        Macros to compile it with.
    """

    def __init__(self, device: Device, source: str, **defines: Any) -> None:
        self.device = device
        self._source = source
        self._defines: Defines = defines
        self._counters: Array = None

    def launch(self, name: str, grid: Grid, *arguments: Any) -> None:
        """Launch a kernel; integers of Python are passed as ``int``."""
        kernel = self.device.kernel(self._source, name, defines=self._defines)
        values = [np.int32(a) if isinstance(a, int) else a for a in arguments]
        kernel(grid.blocks, grid.threads, values, shared=grid.shared)

    def reduce(
        self, name: str, grid: Grid, *arguments: Any, nb_sums: int, sizes: tuple[Any, ...]
    ) -> None:
        """Launch a kernel that adds up.

        Parameters
        ----------
        name, grid, *arguments
            As for `launch`; the scratch memory comes behind them.
        nb_sums : int
            Sums that the kernel makes.
        sizes : tuple
            Arguments behind the scratch memory.
        """
        partials = self.device.xp.empty(grid.nb_pieces * nb_sums, np.float64)
        counters = self._zeros(grid.nb_counters)
        self.launch(name, grid, *arguments, partials, counters, *sizes)

    def _zeros(self, count: int) -> Array:
        """Counters, which every kernel leaves as it finds them."""
        if self._counters is None or len(self._counters) < count:
            self._counters = self.device.xp.zeros(max(count, 1024), np.uint32)
        return self._counters
