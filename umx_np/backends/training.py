"""Where the network is trained: the contract, and the way to an engine that fulfils it.

Training and separation want different kernels: training computes over batches and keeps what the
backward pass needs. The specification is `umx_np.nn.reference_engine`; its twin here runs kernels
compiled by Numba, which is imported only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..config import ModelConfig
from ..errors import ConfigError, DeviceError

Arrays = Mapping[str, np.ndarray]


class BatchStatistics(NamedTuple):
    """Mean and biased variance [shape=(nb_features,)] of a batch of `rows` rows."""

    mean: np.ndarray
    variance: np.ndarray
    rows: int


class TrainingEngine(Protocol):
    """Both passes of one network. It holds no parameters."""

    def forward(
        self,
        x: np.ndarray,
        parameters: Arrays,
        buffers: Arrays,
        masks: Sequence[np.ndarray],
        *,
        training: bool,
        keep: bool,
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, BatchStatistics]]:
        """Compute the result and what the backward pass needs.

        Parameters
        ----------
        x : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            Magnitudes, contiguous.
        parameters, buffers : mapping of str to ndarray
            Under PyTorch's names.
        masks : sequence of ndarray [shape=(hidden_size, nb_frames, nb_samples)]
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
            By name of the batch norm, in training mode.
        """
        ...

    def backward(
        self,
        d_y: np.ndarray,
        cache: dict[str, Any],
        parameters: Arrays,
        *,
        input_gradient: bool,
    ) -> dict[str, np.ndarray]:
        """Compute the gradients by name; may overwrite what is in `cache` but not `d_y`."""
        ...


class TrainingBackend(Protocol):
    """Makes engines, and updates the parameters for `umx_np.optim`."""

    name: str
    threads: int

    def engine(self, config: ModelConfig, dtype: np.dtype, *, amp: bool = False) -> TrainingEngine:
        """Prepare an engine for an architecture and float32 or float64.

        With `amp`, in float32 only, the operands of matrix products are rounded to bfloat16.
        """
        ...

    def check_amp(self) -> None:
        """Raise `DeviceError` if this machine has no mixed precision."""
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


def get_training_backend(name: str = "numba", threads: int | None = None) -> TrainingBackend:
    """Return the compiled backend.

    Parameters
    ----------
    name : {'numba'}
        The only one so far.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.

    Raises
    ------
    DeviceError
        If Numba is not installed; the message says how to get it.
    ConfigError
        If there is no backend of that name.
    """
    if name != "numba":
        raise ConfigError(f"backend={name!r} must be 'numba' or 'reference'")
    try:
        from ._numba.backend import NumbaBackend
    except ImportError as error:
        raise DeviceError(
            f"backend='numba' is not available ({error}); install it with: "
            "python -m pip install 'umx-np[train]', or use backend='reference'"
        ) from error
    return NumbaBackend(threads)
