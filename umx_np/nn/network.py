"""`TrainableNetwork`: parameters, running statistics, and an engine that computes both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.training import get_training_backend
from ..config import ModelConfig
from ..errors import ConfigError, ShapeError
from ..weights import check_state, expected_state
from .batchnorm import check_count, update_running_statistics
from .dropout import dropout_mask
from .reference_engine import ReferenceEngine

if TYPE_CHECKING:
    from ..backends.training import TrainingEngine
    from ..weights.bundle import StateDict

DROPOUT = 0.4
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class ForwardCache:
    """What one forward pass leaves for its backward pass, which uses it up.

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
        Initial weights under PyTorch's names, for instance from `umx_np.model.initial_state`. They
        are copied.
    backend : {'numba', 'reference'}
        Compiled kernels, or plain NumPy that is slow and easy to read.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    dtype : dtype
        float32 or float64.
    dropout : float
        Probability of leaving out a feature between two LSTM layers in training mode. Without a
        second layer there is none, as in PyTorch.
    amp : bool
        Mixed precision: the operands of matrix products are rounded to bfloat16, which has 8 bits;
        everything else stays in float32. For the backend ``numba``, on processors that have it.

    Attributes
    ----------
    parameters : dict of str to ndarray
        Trainable tensors under PyTorch's names and in its order, for an optimiser to change in
        place.
    buffers : dict of str to ndarray
        Running statistics of the batch norms.

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
    ) -> None:
        self.config = config
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ConfigError(f"dtype={dtype!r} must be float32 or float64")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout={dropout} must be at least 0 and less than 1")
        self.dropout = float(dropout)
        checked = check_state(state, config, dtype=self.dtype)
        tensors = {name: np.array(value, order="C") for name, value in checked.items()}
        self.parameters = {n: v for n, v in tensors.items() if not n.endswith(_BUFFERS)}
        self.buffers = {n: v for n, v in tensors.items() if n.endswith(_BUFFERS)}
        self.backend = backend
        self._engine: TrainingEngine
        if backend == "reference":
            if amp:
                raise ConfigError("amp=True: backend='reference' has no mixed precision")
            self._engine = ReferenceEngine(config)
        else:
            engines = get_training_backend(backend, threads)
            self._engine = engines.engine(config, self.dtype, amp=amp)

    def forward(
        self,
        x: np.ndarray,
        *,
        training: bool = True,
        rng: np.random.Generator | None = None,
        keep: bool = True,
    ) -> tuple[np.ndarray, ForwardCache]:
        """Estimate the magnitudes of the target.

        Parameters
        ----------
        x : ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]
            Magnitudes of the mixture. They must not change before the backward pass.
        training : bool
            Normalise with the statistics of this batch, move the running statistics towards them,
            and apply dropout; otherwise use the running statistics.
        rng : Generator or None
            Source of the dropout masks; needed if there are any.
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
        x = np.ascontiguousarray(x, dtype=self.dtype)
        wanted = (self.config.nb_channels, self.config.nb_bins)
        if x.ndim != 4 or x.shape[2:] != wanted or 0 in x.shape[:2]:
            raise ShapeError(
                f"x has shape={x.shape}; this network needs (nb_frames, nb_samples, "
                f"nb_channels={wanted[0]}, nb_bins={wanted[1]}) and at least one frame"
            )
        masks = self._draw_masks(x.shape[0], x.shape[1], rng) if training else []
        if training:
            check_count(x.shape[0] * x.shape[1])
        y, content, statistics = self._engine.forward(
            x, self.parameters, self.buffers, masks, training=training, keep=keep
        )
        for name, batch in statistics.items():
            update_running_statistics(
                self.buffers[f"{name}.running_mean"], self.buffers[f"{name}.running_var"], batch
            )
            self.buffers[f"{name}.num_batches_tracked"] += 1
        cache = ForwardCache(content, x.shape)
        if not keep:
            cache.take()
        return y, cache

    def _draw_masks(
        self, nb_frames: int, nb_samples: int, rng: np.random.Generator | None
    ) -> list[np.ndarray]:
        """Dropout masks [shape=(hidden_size, nb_frames, nb_samples)] between the LSTM layers."""
        if self.dropout == 0.0 or self.config.nb_layers < 2:
            return []
        if rng is None:
            raise ConfigError(
                f"rng=None: dropout={self.dropout} in training mode needs a random generator"
            )
        shape = (self.config.hidden_size, nb_frames, nb_samples)
        return [
            dropout_mask(rng, self.dropout, shape, self.dtype)
            for _ in range(self.config.nb_layers - 1)
        ]

    def backward(
        self, d_y: np.ndarray, cache: ForwardCache, *, input_gradient: bool = False
    ) -> dict[str, np.ndarray]:
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
        dict of str to ndarray
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
        d_y = np.ascontiguousarray(d_y, dtype=self.dtype)
        found = self._engine.backward(
            d_y, cache.take(), self.parameters, input_gradient=input_gradient
        )
        names = [*self.parameters, *(["input"] if input_gradient else [])]
        return {name: found[name] for name in names}

    def state_dict(self) -> StateDict:
        """Copies of all tensors under PyTorch's names, in PyTorch's order."""
        tensors = {**self.parameters, **self.buffers}
        return {name: tensors[name].copy() for name in expected_state(self.config)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace all tensors in place, so that an optimiser keeps its hold on the parameters.

        Raises
        ------
        WeightsError
            If a tensor is missing, of the wrong shape, or not finite. The old weights stay.
        """
        checked = check_state(state, self.config, dtype=self.dtype)
        for tensors in (self.parameters, self.buffers):
            for name, array in tensors.items():
                array[...] = checked[name]
