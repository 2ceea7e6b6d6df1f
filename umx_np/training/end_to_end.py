"""`WaveformSeparator`: a whole separator, trained on waveforms; see docs/end-to-end.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

from .._support.threads import parallel_map, resolve_threads
from ..backends.contracts import Backend
from ..backends.tensors import Tensors
from ..backends.training import Chain
from ..config import SeparatorConfig, check_network
from ..devices import get_backend
from ..errors import ConfigError, ShapeError
from ..framing.geometry import StftGeometry
from ..network.openunmix import OpenUnmix
from ..nn import ForwardCache, TrainableNetwork
from ..separation.separator import Separator
from ..weights.bundle import ModelBundle, TargetWeights
from .chain import HostChain

logger = logging.getLogger(__name__)


class SeparatorCache(NamedTuple):
    """Values that a forward pass of a `WaveformSeparator` leaves for its backward pass."""

    shape: tuple[int, ...]
    """Of the mixtures: (nb_samples, nb_channels, nb_timesteps)."""
    audio: Any
    """Copy of the mixtures; None on a CUDA device."""
    targets: list[Any]
    """Magnitudes of each target [shape=(nb_frames, nb_samples, nb_channels or 1, nb_bins)]."""
    networks: list[ForwardCache]
    """Of each target's network; the backward pass uses them up."""
    filter: Any
    """Of the filter; None on the processor, which filters again."""


class WaveformSeparator:
    """Networks, Wiener filter and inverse STFT in one, with gradients.

    Parameters
    ----------
    networks : mapping of str to TrainableNetwork
        The networks, in the order of the stems. All compute in the same dtype and in the same
        place, which are those of the whole separator: on a CUDA device arrays are CuPy's, as for
        `TrainableNetwork`, and the filter makes one iteration without softmask and residual.
    config : SeparatorConfig
        STFT and filter. The transforms are computed with the FFT for both filterbanks, which differ
        by rounding errors only.
    threads : int or None
        Threads for transforms and filter; None means all cores. Networks that compute on one thread
        each are run side by side on as many.

    Attributes
    ----------
    networks : dict of str to TrainableNetwork
        For the optimisers, which change their `parameters` in place.
    config : SeparatorConfig

    Raises
    ------
    ConfigError
        If there is no network, the networks do not fit `config` or each other, or their graphics
        device does not have the gradient of the filter.

    Notes
    -----
    Computes what `umx_np.Separator` computes, including its rule for a single target: with
    iterations the residual takes part in them and is dropped afterwards.

    Examples
    --------
    >>> from umx_np.config import ModelConfig
    >>> from umx_np.testing import random_bundle_of
    >>> bundle = random_bundle_of(ModelConfig(nb_bins=33, hidden_size=4, nb_layers=1), ["vocals"])
    >>> separator = WaveformSeparator.from_bundle(bundle, niter=1, backend="reference")
    >>> audio = np.random.default_rng(0).standard_normal((2, 2, 500))
    >>> stems, cache = separator.forward(audio)
    >>> stems.shape
    (2, 1, 2, 500)
    >>> gradients = separator.backward(2 * stems, cache)  # of the sum of the squares
    >>> gradients["vocals"]["fc1.weight"].shape
    (4, 66)
    """

    def __init__(
        self,
        networks: Mapping[str, TrainableNetwork],
        config: SeparatorConfig,
        *,
        threads: int | None = None,
    ) -> None:
        if not networks:
            raise ConfigError("networks={} is empty; pass at least one")
        if config.input_level is not None:
            raise ConfigError(
                f"input_level={config.input_level:g}: excerpts are trained on at their own level; "
                "leave it out, and bring them to the level of the model"
            )
        self.config = config
        geometry = StftGeometry(config.n_fft, config.n_hop, center=True)
        geometry.check_invertible()
        self.networks = dict(networks)
        first = next(iter(self.networks.values()))
        self.dtype, place = first.dtype, first.engines.memory.name
        for name, network in self.networks.items():
            check_network(name, network.config, config.n_fft, config.nb_channels)
            if network.dtype != self.dtype:
                raise ConfigError(
                    f"target {name!r} has dtype={network.dtype}, another one dtype={self.dtype}"
                )
            if network.engines.memory.name != place:
                raise ConfigError(
                    f"target {name!r} has backend={network.backend!r}, another one "
                    f"{first.backend!r}; all must compute in the same place"
                )
        offload, count = first.engines.offload, len(self.networks)
        self._chain: Chain
        if offload is None:
            self._chain = HostChain(config, self.dtype, count, threads)
        else:
            self._chain = offload.chain(config, count)
        alone = all(n.engines.side_by_side and n.threads == 1 for n in self.networks.values())
        different = len({id(n) for n in self.networks.values()}) == len(self.networks)
        self._side_by_side = resolve_threads(threads) if alone and different else 1
        self._pools = threadpoolctl.ThreadpoolController().select(user_api="blas")

    @classmethod
    def from_bundle(
        cls,
        bundle: ModelBundle,
        *,
        niter: int = 1,
        softmask: bool = False,
        residual: bool = False,
        wiener_win_len: int | None = 300,
        threads: int | None = None,
        **options: Any,
    ) -> WaveformSeparator:
        """Make a separator of loaded weights, to fine-tune them.

        Parameters
        ----------
        bundle : ModelBundle
            From `umx_np.load_model`.
        niter, softmask, residual, wiener_win_len
            As for `umx_np.Separator`.
        threads : int or None
            Threads for everything; None means all cores. If the number of networks is a multiple of
            theirs, each network has one: threads then need not wait for each other after every
            product.
        **options
            For every `TrainableNetwork`: backend, dtype, dropout, amp, tf32.
        """
        if bundle.input_level is not None:
            logger.info(
                "input_level=%g dB of %s is for separating: excerpts are trained on at their own "
                "level, which should be about that",
                bundle.input_level,
                bundle.name,
            )
        config = SeparatorConfig(
            sample_rate=bundle.sample_rate,
            n_fft=bundle.n_fft,
            n_hop=bundle.n_hop,
            nb_channels=bundle.nb_channels,
            niter=niter,
            softmask=softmask,
            residual=residual,
            wiener_win_len=wiener_win_len,
        )
        one_each = len(bundle.targets) % resolve_threads(threads) == 0
        networks = {
            name: TrainableNetwork(
                weights.config, weights.state, threads=1 if one_each else threads, **options
            )
            for name, weights in bundle.targets.items()
        }
        return cls(networks, config, threads=threads)

    @property
    def nb_stems(self) -> int:
        """Number of the stems: the targets, then the residual if it is returned."""
        return len(self.networks) + self.config.residual

    def forward(
        self,
        audio: Any,
        *,
        training: bool = True,
        rng: np.random.Generator | None = None,
        keep: bool = True,
    ) -> tuple[Any, SeparatorCache]:
        """Separate waveforms.

        Parameters
        ----------
        audio : ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]
            Mixtures, never modified. On a CUDA device they may be NumPy's.
        training : bool
            Whether the networks normalise with the statistics of this batch and apply dropout.
            False computes the same as `umx_np.Separator`.
        rng : Generator or None
            Source of the dropout masks in training mode; needed if there are any. It seeds a
            generator for each network, whether they are run side by side or not.
        keep : bool
            False gives memory back early where no backward pass follows.

        Returns
        -------
        stems : ndarray [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]
            In the dtype of the networks: one stem for each network, then the residual if `config`
            asks for it.
        cache : SeparatorCache
            For one call of `backward`.

        Raises
        ------
        ShapeError
            If the shape does not fit the networks, or the audio is NumPy's and not finite. (To look
            at an array on a device would be to wait for it.)
        ConfigError
            If `rng` is missing.
        DeviceError
            If the device has too little memory.
        """
        with self._chain.computing("the mixtures"):
            x = self._chain.checked(audio)
        if x.ndim != 3 or 0 in x.shape or self.config.nb_channels not in (1, x.shape[1]):
            raise ShapeError(
                f"audio has shape={x.shape}; it must be (nb_samples, nb_channels, nb_timesteps) "
                f"for networks with nb_channels={self.config.nb_channels}"
            )
        with self._chain.computing(f"a batch of {len(x)}"):
            kept_audio, spectra, mags = self._chain.mixture(x)
            networks = list(self.networks.values())
            rngs: list[np.random.Generator | None] = [None] * len(networks)
            if training and rng is not None:
                rngs = [*_spawn(rng, len(networks))]
            results = self._each_network(
                lambda j: networks[j].forward(mags, training=training, rng=rngs[j], keep=keep)
            )
            targets = [y for y, _ in results]
            stems, kept = self._chain.stems(spectra, targets, x.shape[-1])
        return stems, SeparatorCache(x.shape, kept_audio, targets, [c for _, c in results], kept)

    def backward(self, d_stems: Any, cache: SeparatorCache) -> dict[str, Tensors]:
        """Gradients of the parameters of all networks.

        Parameters
        ----------
        d_stems : ndarray [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]
            Gradient of the loss with respect to the stems.
        cache : SeparatorCache
            From `forward`, with the parameters unchanged since; it is used up.

        Returns
        -------
        dict of str to mapping of str to ndarray
            For each target what its `TrainableNetwork.backward` returns: the gradients under the
            names of its parameters.

        Raises
        ------
        ShapeError
            If `d_stems` does not have the shape of the stems.
        ConfigError
            If `cache` was used before.
        """
        with self._chain.computing(f"the gradients of a batch of {cache.shape[0]}"):
            d_stems = self._checked_gradient(d_stems, cache)
            d_targets = self._chain.backward(d_stems, cache.audio, cache.targets, cache.filter)
            networks = list(self.networks.values())
            gradients = self._each_network(
                lambda j: networks[j].backward(d_targets[j], cache.networks[j])
            )
        return dict(zip(self.networks, gradients, strict=True))

    def audio_gradient(self, d_stems: np.ndarray, cache: SeparatorCache) -> np.ndarray:
        """Gradient of the mixtures, through the filter alone.

        Parameters
        ----------
        d_stems, cache
            As for `backward`, before which it has to be called if both are wanted.

        Returns
        -------
        ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]

        Raises
        ------
        ShapeError
            If `d_stems` does not have the shape of the stems.
        ConfigError
            If the networks are on a CUDA device.

        Notes
        -----
        The networks see the magnitudes of the mixture as constants, as in Open-Unmix; so this is
        what PyTorch's autograd returns for it, but not what a small change of the audio does.
        """
        d_stems = self._checked_gradient(d_stems, cache)
        return self._chain.audio_gradient(d_stems, cache.audio, cache.targets)

    def separator(self, *, device: str | Backend = "auto", threads: int | None = None) -> Separator:
        """Make an `umx_np.Separator` of the present weights.

        Parameters
        ----------
        device, threads
            As for `umx_np.Separator`.
        """
        ops = get_backend(device, threads)
        models = {
            name: OpenUnmix.from_weights(
                TargetWeights(network.config, network.state_dict()), device=ops
            )
            for name, network in self.networks.items()
        }
        c = self.config
        return Separator(
            models,
            niter=c.niter,
            softmask=c.softmask,
            residual=c.residual,
            sample_rate=c.sample_rate,
            n_fft=c.n_fft,
            n_hop=c.n_hop,
            nb_channels=c.nb_channels,
            wiener_win_len=c.wiener_win_len,
            filterbank=c.filterbank,
            device=ops,
        )

    def computing(self) -> AbstractContextManager[None]:
        """Context in which to compute with arrays of `asarray`: makes a device the current one."""
        return self._chain.computing("a loss")

    def asarray(self, array: Any) -> Any:
        """Put an array where the networks compute, in their dtype; may return `array` itself."""
        return self._chain.asarray(array)

    def _each_network(self, function: Callable[[int], Any]) -> list[Any]:
        """Results of a function for the index of each network."""
        indices = range(len(self.networks))
        if self._side_by_side == 1:
            return [function(j) for j in indices]
        # A network restores what BLAS was allowed before, and another one may still be computing.
        with self._pools.limit(limits=1):
            return parallel_map(self._side_by_side, function, indices)

    def _checked_gradient(self, d_stems: Any, cache: SeparatorCache) -> Any:
        """Gradient of the stems in the right place and dtype, if it has the right shape."""
        d_stems = self._chain.asarray(d_stems)
        wanted = (cache.shape[0], self.nb_stems, *cache.shape[1:])
        if d_stems.shape != wanted:
            raise ShapeError(f"d_stems has shape={d_stems.shape}; the stems have shape={wanted}")
        return d_stems


def _spawn(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """Generators that depend on the present state of another one only."""
    seeds = rng.integers(0, 1 << 64, size=count, dtype=np.uint64)
    return [np.random.default_rng(int(seed)) for seed in seeds]
