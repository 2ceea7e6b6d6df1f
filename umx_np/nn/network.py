"""`TrainableNetwork`: parameters, running statistics, and an engine that computes both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.tensors import HostTensors
from ..backends.training import CounterMasks, ForwardPass
from ..config import ModelConfig
from ..devices import get_training_backend
from ..errors import ConfigError, ShapeError
from ..layers.batchnorm import check_count, update_running_statistics
from ..layers.dropout import dropout_mask
from ..weights import check_state, expected_state

if TYPE_CHECKING:
    from ..backends.tensors import Tensors
    from ..backends.training import TrainingBackend, TrainingEngine
    from ..weights.bundle import StateDict

DROPOUT = 0.4
_STATISTICS = ("running_mean", "running_var")
_COUNT = "num_batches_tracked"


class ForwardCache:
    """Values that a forward pass leaves for its backward pass, which uses them up.

    The backward pass writes gradients over activations, so there can be only one.
    """

    def __init__(self, content: dict[str, Any], shape: tuple[int, ...]) -> None:
        self._content: dict[str, Any] | None = content
        self.shape = shape

    def take(self) -> dict[str, Any]:
        """Hand the content over; the second call raises `ConfigError`."""
        if self._content is None:
            raise ConfigError(
                "cache was used by another backward pass already, or keep=False was given; "
                "call forward again"
            )
        content, self._content = self._content, None
        return content


class TrainableNetwork:
    """One target's network, with gradients.

    Parameters
    ----------
    config : ModelConfig
        Architecture.
    state : mapping of str to ndarray
        Initial weights under PyTorch's names, for instance from
        `umx_np.network.openunmix.initial_state`. They are copied.
    backend : {'numba', 'reference', 'cuda', 'cuda:1', ...}
        Compiled kernels, plain NumPy that is slow and easy to read, or a CUDA device. On a device,
        arrays are CuPy's: what is handed in may be NumPy's, what is returned is not.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    dtype : dtype
        float32, or float64 on the processor.
    dropout : float
        Probability of leaving out a feature between two LSTM layers in training mode. Without a
        second layer there is none, as in PyTorch.
    amp : bool
        Mixed precision: the operands of matrix products are rounded to bfloat16, which has 8 bits;
        everything else stays in float32. For the backend ``numba``, on processors that have it, and
        on devices of compute capability 8.0.
    tf32 : bool
        Operands of matrix products are rounded to TF32, which has 11 bits. On such devices only.

    Attributes
    ----------
    parameters : mapping of str to ndarray
        Trainable tensors under PyTorch's names and in its order, for an optimiser to change in
        place.
    buffers : dict of str to ndarray
        Running statistics of the batch norms.
    engines : TrainingBackend
        What computes.
    threads : int
        Threads of ours to compute on; 1 for ``reference``, whose products BLAS may divide.

    Examples
    --------
    >>> from umx_np.testing import random_state
    >>> config = ModelConfig(nb_bins=9, hidden_size=4, nb_layers=1)
    >>> network = TrainableNetwork(config, random_state(config), backend="reference")
    >>> x = np.random.default_rng(0).random((5, 2, 2, 9), np.float32)
    >>> y, cache = network.forward(x)
    >>> gradients = network.backward(np.ones_like(y), cache)
    >>> gradients["fc1.weight"].shape
    (4, 18)
    """

    def __init__(
        self,
        config: ModelConfig,
        state: Mapping[str, np.ndarray],
        *,
        backend: str = "numba",
        threads: int | None = None,
        dtype: Any = np.float32,
        dropout: float = DROPOUT,
        amp: bool = False,
        tf32: bool = False,
    ) -> None:
        self.config = config
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ConfigError(f"dtype={dtype!r} must be float32 or float64")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout={dropout} must be at least 0 and less than 1")
        self.dropout = float(dropout)
        checked = check_state(state, config, dtype=self.dtype)
        self.backend = backend
        self.engines: TrainingBackend = get_training_backend(backend, threads)
        self.threads = self.engines.threads
        self._engine: TrainingEngine = self.engines.engine(config, self.dtype, amp=amp, tf32=tf32)
        counts = {n: np.array(v) for n, v in checked.items() if n.endswith(_COUNT)}
        statistics = {n: v for n, v in checked.items() if n.endswith(_STATISTICS)}
        trainable = {n: v for n, v in checked.items() if n not in counts and n not in statistics}
        memory = self.engines.memory
        self.parameters = memory.place(trainable)
        self._statistics, self._counts = memory.place(statistics), HostTensors(counts)
        kept = {**self._statistics, **self._counts}
        self.buffers = {name: kept[name] for name in checked if name in kept}

    def forward(
        self,
        x: Any,
        *,
        training: bool = True,
        rng: np.random.Generator | None = None,
        keep: bool = True,
    ) -> tuple[Any, ForwardCache]:
        """Estimate the magnitudes of the target.

        Parameters
        ----------
        x : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            Magnitudes of the mixture. They must not change before the backward pass.
        training : bool
            Normalise with the statistics of this batch, move the running statistics towards them,
            and apply dropout; otherwise use the running statistics.
        rng : Generator or None
            Source of the dropout masks; needed if there are any. A CUDA device draws other masks
            than the processor, but the same ones from the same generator.
        keep : bool
            False gives memory back early where no backward pass follows.

        Returns
        -------
        y : ndarray [shape as `x`]
        cache : ForwardCache
            For one call of `backward`.

        Raises
        ------
        ShapeError
            If the shape does not fit, or if there is only one value to normalise with.
        ConfigError
            If `rng` is missing.
        """
        x = self.engines.memory.asarray(x, self.dtype)
        wanted = (self.config.nb_channels, self.config.nb_bins)
        if x.ndim != 4 or x.shape[2:] != wanted or 0 in x.shape[:2]:
            raise ShapeError(
                f"x has shape={x.shape}; this network needs (nb_frames, nb_samples, "
                f"nb_channels={wanted[0]}, nb_bins={wanted[1]}) and at least one frame"
            )
        masks: Sequence[Any] | CounterMasks = []
        if training:
            masks = self._draw_masks(x.shape[0], x.shape[1], rng)
            check_count(x.shape[0] * x.shape[1])
        y, content, statistics = self._engine.forward(
            x, self.parameters, self.buffers, ForwardPass(masks, training, keep)
        )
        for name, batch in statistics.items():
            update_running_statistics(
                self.buffers[f"{name}.running_mean"], self.buffers[f"{name}.running_var"], batch
            )
        for count in self._counts.values():
            if training:
                count += 1
        cache = ForwardCache(content, x.shape)
        if not keep:
            cache.take()
        return y, cache

    def _draw_masks(
        self, nb_frames: int, nb_samples: int, rng: np.random.Generator | None
    ) -> Sequence[np.ndarray] | CounterMasks:
        """Dropout masks [shape=(hidden_size, nb_frames, nb_samples)] between the LSTM layers."""
        if self.dropout == 0.0 or self.config.nb_layers < 2:
            return []
        if rng is None:
            raise ConfigError(
                f"rng=None: dropout={self.dropout} in training mode needs a random generator"
            )
        if self._engine.draws_masks:
            return CounterMasks(int(rng.integers(0, 1 << 64, dtype=np.uint64)), self.dropout)
        shape = (self.config.hidden_size, nb_frames, nb_samples)
        return [
            dropout_mask(rng, self.dropout, shape, self.dtype)
            for _ in range(self.config.nb_layers - 1)
        ]

    def backward(self, d_y: Any, cache: ForwardCache, *, input_gradient: bool = False) -> Tensors:
        """Gradients of everything that can be trained.

        Parameters
        ----------
        d_y : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            Gradient of the loss with respect to the result of `forward`.
        cache : ForwardCache
            From that call, with the parameters unchanged since; it is used up.
        input_gradient : bool
            Add the gradient of `x`, under ``"input"``.

        Returns
        -------
        mapping of str to ndarray
            Under the names of `parameters` and in their order.

        Raises
        ------
        ShapeError
            If `d_y` does not have the shape of the result.
        ConfigError
            If `cache` was used before.

        Notes
        -----
        The mixture that the mask is multiplied with is a constant, as upstream's detached copy is:
        the gradient of `x` is that of the mask only.
        """
        if d_y.shape != cache.shape:
            raise ShapeError(f"d_y has shape={d_y.shape}; the result has shape={cache.shape}")
        d_y = self.engines.memory.asarray(d_y, self.dtype)
        found = self._engine.backward(
            d_y, cache.take(), self.parameters, input_gradient=input_gradient
        )
        return self.parameters.arranged(found)

    def state_dict(self) -> StateDict:
        """Copies of all tensors under PyTorch's names, in PyTorch's order."""
        copies: StateDict = {}
        for tensors in (self.parameters, self._statistics, self._counts):
            copies.update(tensors.to_host())
        return {name: copies[name] for name in expected_state(self.config)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace all tensors in place, so that an optimiser keeps its hold on the parameters.

        Raises
        ------
        WeightsError
            If a tensor is missing, of the wrong shape, or not finite. The old weights stay.
        """
        checked = check_state(state, self.config, dtype=self.dtype)
        for tensors in (self.parameters, self._statistics, self._counts):
            tensors.assign(checked)
