"""Where the network is trained: the contract, and the way to an engine that fulfils it.

Training and separation want different kernels: training computes over batches and keeps what the
backward pass needs. The specification is `umx_np.nn.reference_engine`. Its twins run kernels that
Numba compiles for the processor, and kernels of a graphics card; both are imported only when they
are asked for.

With a graphics card, what is called an array here is one of CuPy on that card.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..config import ModelConfig
from ..errors import ConfigError, DeviceError, shortened
from .tensors import TensorMemory

logger = logging.getLogger(__name__)

Arrays = Mapping[str, Any]


class BatchStatistics(NamedTuple):
    """Mean and biased variance [shape=(nb_features,)] of a batch of `rows` rows."""

    mean: np.ndarray
    variance: np.ndarray
    rows: int


class CounterMasks(NamedTuple):
    """Dropout masks that are not drawn yet.

    Attributes
    ----------
    key : int
        64 bits on which all masks depend.
    rate : float
        Probability of leaving a feature out.
    """

    key: int
    rate: float


class TrainingEngine(Protocol):
    """Both passes of one network. It holds no parameters.

    Attributes
    ----------
    draws_masks : bool
        Whether it takes `CounterMasks` and draws the masks where it needs them.
    """

    draws_masks: bool

    def forward(
        self,
        x: Any,
        parameters: Arrays,
        buffers: Arrays,
        masks: Sequence[Any] | CounterMasks,
        *,
        training: bool,
        keep: bool,
    ) -> tuple[Any, dict[str, Any], dict[str, BatchStatistics]]:
        """Compute the result and what the backward pass needs.

        Parameters
        ----------
        x : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            Magnitudes, contiguous.
        parameters, buffers : mapping of str to ndarray
            Under PyTorch's names.
        masks : sequence of ndarray [shape=(hidden_size, nb_frames, nb_samples)] or CounterMasks
            Dropout masks after every LSTM layer but the last, or none.
        training : bool
            Whether to normalise with the statistics of the batch.
        keep : bool
            Whether a backward pass follows.

        Returns
        -------
        y : ndarray [shape as `x`]
        cache : dict
            Empty unless `keep`.
        statistics : dict of str to BatchStatistics
            By name of the batch norm, in training mode, for the caller to move the running
            statistics; empty if the engine has done so itself.
        """
        ...

    def backward(
        self,
        d_y: Any,
        cache: dict[str, Any],
        parameters: Arrays,
        *,
        input_gradient: bool,
    ) -> Mapping[str, Any]:
        """Compute the gradients by name; may overwrite what is in `cache` but not `d_y`."""
        ...


class TrainingBackend(Protocol):
    """Makes engines, and updates the parameters for `umx_np.optim`."""

    name: str
    threads: int

    @property
    def memory(self) -> TensorMemory:
        """Where the tensors are that it computes with."""
        ...

    def engine(
        self, config: ModelConfig, dtype: np.dtype, *, amp: bool = False, tf32: bool = False
    ) -> TrainingEngine:
        """Prepare an engine for an architecture and float32 or float64.

        In float32 only, the operands of matrix products may be rounded: with `amp` to bfloat16, of
        8 bits, with `tf32` to 11 bits.
        """
        ...

    def check_products(self, *, amp: bool, tf32: bool) -> None:
        """Raise an error if this machine cannot round the operands of products like this."""
        ...

    def has_transform(self, n_fft: int, dtype: np.dtype) -> bool:
        """Whether `magnitudes` has a kernel for this size; others it leaves to NumPy."""
        ...

    def magnitudes(
        self, audio: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray
    ) -> None:
        """Compute the STFT magnitudes of a batch, not centred.

        Parameters
        ----------
        audio : ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]
            Waveforms, at least as long as the frames of `out`.
        window : ndarray [shape=(n_fft,)]
            In the dtype of `audio`.
        n_hop : int
            Distance of the frames.
        out : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            Where to put the magnitudes; contiguous, in the dtype of `audio`.
        """
        ...

    @property
    def adam_update(self) -> Callable[..., None]:
        """One step of Adam on one tensor; see `umx_np.optim.adam_update`."""
        ...

    @property
    def sgd_update(self) -> Callable[..., None]:
        """One step of stochastic gradient descent; see `umx_np.optim.sgd_update`."""
        ...


def cuda_index(name: str) -> int | None:
    """Return the number of the graphics card that a name like ``'cuda:1'`` means.

    Parameters
    ----------
    name : str
        Of a device or backend; ``'cuda'`` is the first card.

    Returns
    -------
    int or None
        None if no card is meant.

    Raises
    ------
    ConfigError
        If what follows ``'cuda'`` is no number.
    """
    if not isinstance(name, str):
        raise ConfigError(f"device={shortened(name)} must be text such as 'auto', 'cpu' or 'cuda'")
    kind, _, number = name.partition(":")
    if kind != "cuda":
        return None
    if name != "cuda" and not number.isdecimal():
        raise ConfigError(f"device={name!r} must be 'cuda' or 'cuda:' and the number of a card")
    return int(number or 0)


@cache
def preferred_backend() -> str:
    """Name of the backend for ``device='auto'``: the first graphics card if it can train."""
    try:
        card = get_training_backend("cuda")
    except DeviceError as error:
        logger.info("device='auto': training on the processor (%s)", error)
        return "numba"
    logger.info("device='auto': training on %s", card)
    return "cuda"


def get_training_backend(name: str = "numba", threads: int | None = None) -> TrainingBackend:
    """Return a compiled backend.

    Parameters
    ----------
    name : {'numba', 'cuda', 'cuda:1', ...}
        Kernels for the processor, or for a graphics card.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.

    Raises
    ------
    DeviceError
        If a package is not installed, or there is no such card; the message says what to do.
    ConfigError
        If there is no backend of that name.
    """
    index = cuda_index(name)
    if index is not None:
        from ._cuda import training

        return training.get_cuda_backend(index)
    if name != "numba":
        raise ConfigError(f"backend={name!r} must be 'numba', 'reference', 'cuda' or 'cuda:1'")
    try:
        from ._numba.backend import NumbaBackend
    except ImportError as error:
        raise DeviceError(
            f"backend='numba' is not available ({error}); install it with: "
            "python -m pip install 'umx-np[train]', or use backend='reference'"
        ) from error
    return NumbaBackend(threads)
