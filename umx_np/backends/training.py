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
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..config import ModelConfig
from ..layers.batchnorm import BatchStatistics
from .tensors import TensorMemory

logger = logging.getLogger(__name__)

Arrays = Mapping[str, Any]


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
