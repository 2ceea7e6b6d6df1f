"""Where the network is trained: the contract.

Training and separation want different kernels: training computes over batches and keeps what the
backward pass needs. The specification is `umx_np.backends.reference_engine`. Its twins run kernels
that Numba compiles for the processor, and kernels of a CUDA device; `umx_np.devices` makes them.

With a CUDA device, what is called an array here is one of CuPy on that device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..config import ModelConfig, SeparatorConfig
from ..errors import ShapeError
from ..layers.batchnorm import BatchStatistics
from .tensors import Reading, TensorMemory

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


class ForwardPass(NamedTuple):
    """How a forward pass is computed.

    Attributes
    ----------
    masks : sequence of ndarray [shape=(hidden_size, nb_frames, nb_samples)] or CounterMasks
        Dropout masks after every LSTM layer but the last, or none.
    training : bool
        Whether to normalise with the statistics of the batch.
    keep : bool
        Whether a backward pass follows.
    """

    masks: Sequence[np.ndarray] | CounterMasks = ()
    training: bool = True
    keep: bool = True


class TrainingEngine(Protocol):
    """Both passes of one network. It holds no parameters.

    Attributes
    ----------
    draws_masks : bool
        Whether it takes `CounterMasks` and draws the masks where it needs them.
    """

    draws_masks: bool

    def forward(
        self, x: Any, parameters: Arrays, buffers: Arrays, how: ForwardPass
    ) -> tuple[Any, dict[str, Any], dict[str, BatchStatistics]]:
        """Compute the result and what the backward pass needs.

        Parameters
        ----------
        x : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            Magnitudes, contiguous.
        parameters, buffers : mapping of str to ndarray
            Under PyTorch's names.
        how : ForwardPass
            Masks, and what for.

        Returns
        -------
        y : ndarray [shape as `x`]
        cache : dict
            Empty unless it is to be kept.
        statistics : dict of str to BatchStatistics
            By name of the batch norm, in training mode, for the caller to move the running
            statistics; empty if the engine has done so itself.
        """

    def backward(
        self, d_y: Any, cache: dict[str, Any], parameters: Arrays, *, input_gradient: bool
    ) -> Mapping[str, Any]:
        """Compute the gradients by name; may overwrite what is in `cache` but not `d_y`."""


class Loss(NamedTuple):
    """The loss of a batch.

    Attributes
    ----------
    reading : Reading
        Its value.
    go : device array [shape=(1,)], float32
        1 if it is a number, otherwise NaN: the factor of the gradients that come from it.
    """

    reading: Reading
    go: Any


class Slot(Protocol):
    """Memory of one batch on a device and on its way there."""

    def fill(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
        """Copy a batch, once the device has done with the one before it."""

    def used(self) -> None:
        """Take note that what reads the batch has been started."""


class PlannedBatch(NamedTuple):
    """What a batch is made of.

    Attributes
    ----------
    clips, firsts : ndarray [shape=(nb_samples, nb_sources)], int
        Where the excerpts lie: number of the clip, and first sample.
    channels : ndarray [shape=(nb_samples, nb_sources, nb_channels, channels of a clip)]
        What the channels of an excerpt are multiplied with.
    in_target : ndarray [shape=(nb_sources,)], bool
        Which sources make up the target.
    levels : ndarray [shape=(nb_samples,)] or None
        Root mean squares to bring the mixtures to, and the targets with them.
    """

    clips: np.ndarray
    firsts: np.ndarray
    channels: np.ndarray
    in_target: np.ndarray
    levels: np.ndarray | None


class Clips(Protocol):
    """Clips in the memory of a device, from which it mixes batches."""

    @property
    def nb_bytes(self) -> int:
        """Memory that the clips take."""

    def put(self, clip: int, samples: np.ndarray) -> None:
        """Copy the samples of a clip [shape=(nb_channels, nb_timesteps)], in the dtype of all."""

    def mix(self, batch: PlannedBatch, nb_timesteps: int, faint: float) -> tuple[Any, Any]:
        """Make a batch.

        Parameters
        ----------
        batch : PlannedBatch
            What it is made of.
        nb_timesteps : int
            Length of the excerpts.
        faint : float
            Mean square below which a mixture stays as it is.

        Returns
        -------
        x, y : device array [shape=(nb_samples, nb_channels, nb_timesteps)], float32
            Mixtures and targets.
        """


class Chain(Protocol):
    """From mixtures to magnitudes, and from the targets' magnitudes to stems and back.

    Arrays are those of the place where it computes. Mixtures are
    [shape=(nb_samples, nb_channels, nb_timesteps)], stems have an axis for themselves behind the
    first one, magnitudes are [shape=(nb_frames, nb_samples, nb_channels or 1, nb_bins)].
    """

    def computing(self, what: str) -> AbstractContextManager[None]:
        """Context in which to compute; `what` is for the error if memory lacks."""

    def asarray(self, array: Any) -> Any:
        """Return an array of this place, which may be `array` itself."""

    def checked(self, audio: Any) -> Any:
        """As `asarray`; raises `ShapeError` if an array of NumPy holds NaN or infinity."""

    def mixture(self, audio: Any) -> tuple[Any, Any, Any]:
        """Take a batch; returns what is kept of it, its spectra, and its magnitudes."""

    def stems(self, spectra: Any, targets: list[Any], nb_timesteps: int) -> tuple[Any, Any]:
        """Filter; returns the stems, and what the backward pass needs besides the batch."""

    def backward(self, d_stems: Any, audio: Any, targets: list[Any], kept: Any) -> list[Any]:
        """Gradients of the targets' magnitudes, given that of the stems."""

    def audio_gradient(self, d_stems: Any, audio: Any, targets: list[Any]) -> Any:
        """Gradient of the mixtures through the filter alone; `ConfigError` where there is none."""


def check_finite(audio: np.ndarray) -> None:
    """Raise `ShapeError` if mixtures hold NaN or infinity."""
    if not np.isfinite(audio).all():
        raise ShapeError("audio holds NaN or infinity")


class Offload(Protocol):
    """Operations of a device with memory of its own besides the network, ahead of the host.

    Attributes
    ----------
    out_of_memory : type of Exception
        What is raised where it has too little memory.
    """

    @property
    def out_of_memory(self) -> type[Exception]: ...

    def computing(self, what: str, remedy: str) -> AbstractContextManager[None]:
        """Context in which to compute; `DeviceError` if the memory is too little for `what`."""

    def free_memory(self) -> int:
        """Bytes that can still be allocated."""

    def asarray(self, array: Any, dtype: np.dtype) -> Any:
        """See `umx_np.backends.tensors.TensorMemory`."""

    def magnitudes(self, audio: Any, window: Any, *, n_hop: int, mono: bool = False) -> Any:
        """As `TrainingBackend.magnitudes`, in a new array; `mono` takes the mean of channels."""

    def squared_error(self, y: Any, target: Any, out: Any = None) -> Loss:
        """Mean of the squared differences; with `out`, which may be `y`, also its gradient."""

    def log_squared_error(
        self, y: Any, target: Any, mixture: Any, *, small: float, out: Any
    ) -> Loss:
        """Mean over the samples of their relative error in dB, and its gradient.

        Parameters
        ----------
        y, target, mixture : device array [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            As for `umx_np.nn.log_mse_loss`.
        small : float
            Relative error at which the logarithm levels off.
        out : device array
            Where to put the gradient; may be `y`.
        """

    def errors_of_parts(
        self, y: Any, target: Any, mixture: Any, nb_frames: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean squares of the error and of the mixture in parts of one sample.

        Parameters
        ----------
        y, target, mixture : device array [shape=(any, 1, nb_channels, nb_bins)]
            The sample.
        nb_frames : int
            Length of a part; the last one may be shorter.

        Returns
        -------
        errors, energies : ndarray [shape=(nb_parts,)], float64
        """

    def slot(self) -> Slot:
        """Make memory for a batch that the host has made."""

    def clips(self, shapes: Sequence[tuple[int, int]], dtype: Any, full_scale: float) -> Clips:
        """Make memory for clips.

        Parameters
        ----------
        shapes : sequence of tuple of int
            ``(nb_channels, nb_timesteps)`` of each clip.
        dtype : dtype
            int16 or float32.
        full_scale : float
            What the samples are divided by.
        """

    def chain(self, config: SeparatorConfig, nb_targets: int) -> Chain:
        """Return what is around the networks of a `WaveformSeparator`.

        Raises
        ------
        ConfigError
            If there is no gradient of such a filter.
        """


class TrainingBackend(Protocol):
    """Makes engines, and updates the parameters for `umx_np.optim`.

    Attributes
    ----------
    name : str
        As `umx_np.devices.get_training_backend` takes it.
    threads : int
        Threads of ours to compute on.
    separates_on : str
        Name of the device on which networks in training are validated, for
        `umx_np.devices.get_backend`.
    side_by_side : bool
        Whether engines of one thread each may compute at the same time.
    """

    name: str
    threads: int
    separates_on: str
    side_by_side: bool

    @property
    def memory(self) -> TensorMemory:
        """Where the tensors are that it computes with."""

    @property
    def offload(self) -> Offload | None:
        """Other operations there; None where arrays are those of NumPy."""

    def engine(
        self, config: ModelConfig, dtype: np.dtype, *, amp: bool = False, tf32: bool = False
    ) -> TrainingEngine:
        """Prepare an engine for an architecture and float32 or float64.

        In float32 only, the operands of matrix products may be rounded: with `amp` to bfloat16, of
        8 bits, with `tf32` to 11 bits.
        """

    def check_products(self, *, amp: bool, tf32: bool) -> None:
        """Raise an error if this machine cannot round the operands of products like this."""

    def has_transform(self, n_fft: int, dtype: np.dtype) -> bool:
        """Whether `magnitudes` has a kernel for this size; others it leaves to NumPy."""

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

    @property
    def adam_update(self) -> Callable[..., None]:
        """One step of Adam on one tensor; see `umx_np.optim.adam_update`."""

    @property
    def sgd_update(self) -> Callable[..., None]:
        """One step of stochastic gradient descent; see `umx_np.optim.sgd_update`."""
