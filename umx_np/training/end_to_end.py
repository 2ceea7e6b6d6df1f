"""`WaveformSeparator`: a whole separator, trained on waveforms; see docs/end-to-end.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..backends import get_backend
from ..backends._pool import parallel_map, resolve_threads
from ..backends.base import Backend
from ..config import SeparatorConfig
from ..dsp.gradients import (
    istft_backward,
    stft_backward,
    wiener_backward,
    wiener_magnitudes_backward,
)
from ..dsp.stft import StftGeometry, istft, stft
from ..dsp.wiener import wiener
from ..errors import ConfigError, ShapeError
from ..model import OpenUnmix
from ..nn import ForwardCache, TrainableNetwork
from ..separator import Separator
from ..weights.bundle import ModelBundle, TargetWeights


class SeparatorCache(NamedTuple):
    """What one forward pass of a `WaveformSeparator` leaves for its backward pass."""

    audio: np.ndarray
    """Copy of the mixtures [shape=(nb_samples, nb_channels, nb_timesteps)]."""
    targets: list[np.ndarray]
    """Magnitudes of each target [shape=(nb_frames, nb_samples, nb_channels or 1, nb_bins)]."""
    networks: list[ForwardCache]
    """Of each target's network; the backward pass uses them up."""


class WaveformSeparator:
    """Networks, Wiener filter and inverse STFT in one, with gradients.

    Parameters
    ----------
    networks : mapping of str to TrainableNetwork
        The networks, in the order of the stems. All compute in the same dtype, which is that of
        the whole separator.
    config : SeparatorConfig
        STFT and filter. The transforms are computed with the FFT for both filterbanks, which differ
        by rounding errors only.
    threads : int or None
        Threads for transforms and filter; None means all cores.

    Attributes
    ----------
    networks : dict of str to TrainableNetwork
        For the optimisers, which change their `parameters` in place.
    config : SeparatorConfig

    Raises
    ------
    ConfigError
        If there is no network, or the networks do not fit `config` or each other.

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
        self.config = config
        self.geometry = StftGeometry(config.n_fft, config.n_hop, center=True)
        self.geometry.check_invertible()
        self.networks = dict(networks)
        self.dtype = next(iter(self.networks.values())).dtype
        wanted = (self.geometry.nb_bins, config.nb_channels)
        for name, network in self.networks.items():
            if (network.config.nb_bins, network.config.nb_channels) != wanted:
                raise ConfigError(
                    f"target {name!r} has nb_bins={network.config.nb_bins}, "
                    f"nb_channels={network.config.nb_channels}; n_fft={config.n_fft}, "
                    f"nb_channels={config.nb_channels} need {wanted[0]} and {wanted[1]}"
                )
            if network.dtype != self.dtype:
                raise ConfigError(
                    f"target {name!r} has dtype={network.dtype}, another one dtype={self.dtype}"
                )
        self._threads = resolve_threads(threads)
        self._ops = get_backend("cpu", self._threads)

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
            Threads for everything; None means all cores.
        **options
            For every `TrainableNetwork`: backend, dtype, dropout.
        """
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
        networks = {
            name: TrainableNetwork(weights.config, weights.state, threads=threads, **options)
            for name, weights in bundle.targets.items()
        }
        return cls(networks, config, threads=threads)

    @property
    def nb_stems(self) -> int:
        """Number of the stems: the targets, then the residual if it is returned."""
        return len(self.networks) + self.config.residual

    @property
    def filters_residual(self) -> bool:
        """Whether the residual takes part in the filter, be it returned or not."""
        return self.config.residual_takes_part(len(self.networks))

    def forward(
        self,
        audio: np.ndarray,
        *,
        training: bool = True,
        rng: np.random.Generator | None = None,
        keep: bool = True,
    ) -> tuple[np.ndarray, SeparatorCache]:
        """Separate waveforms.

        Parameters
        ----------
        audio : ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]
            Mixtures, never modified.
        training : bool
            Whether the networks normalise with the statistics of this batch and apply dropout.
            False computes the same as `umx_np.Separator`.
        rng : Generator or None
            Source of the dropout masks; needed if there are any.
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
            If the shape does not fit the networks, or the audio is not finite.
        ConfigError
            If `rng` is missing.
        """
        x = np.array(audio, dtype=self.dtype)
        if x.ndim != 3 or 0 in x.shape or self.config.nb_channels not in (1, x.shape[1]):
            raise ShapeError(
                f"audio has shape={x.shape}; it must be (nb_samples, nb_channels, nb_timesteps) "
                f"for networks with nb_channels={self.config.nb_channels}"
            )
        if not np.isfinite(x).all():
            raise ShapeError("audio holds NaN or infinity")
        mix = self._stft(x, self._ops)
        mags = np.abs(mix)
        if self.config.nb_channels == 1:
            mags = mags.mean(axis=1, keepdims=True, dtype=mags.dtype)
        mags = np.ascontiguousarray(mags.transpose(3, 0, 1, 2))
        results = [
            network.forward(mags, training=training, rng=rng, keep=keep)
            for network in self.networks.values()
        ]
        cache = SeparatorCache(x, [y for y, _ in results], [kept for _, kept in results])
        stems = np.empty((len(x), self.nb_stems, *x.shape[1:]), self.dtype)

        def separate(sample: int, ops: Backend) -> None:
            stems[sample] = self._filter(mix[sample], cache.targets, sample, x.shape[-1], ops)

        self._each_sample(len(x), separate)
        return stems, cache

    def backward(
        self, d_stems: np.ndarray, cache: SeparatorCache
    ) -> dict[str, dict[str, np.ndarray]]:
        """Gradients of the parameters of all networks.

        Parameters
        ----------
        d_stems : ndarray [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]
            Gradient of the loss with respect to the stems.
        cache : SeparatorCache
            From `forward`, with the parameters unchanged since; it is used up.

        Returns
        -------
        dict of str to dict of str to ndarray
            For each target the gradients under the names of its network's parameters.

        Raises
        ------
        ShapeError
            If `d_stems` does not have the shape of the stems.
        ConfigError
            If `cache` was used before.
        """
        d_stems = self._checked_gradient(d_stems, cache)
        d_targets = [np.empty_like(y) for y in cache.targets]

        def filter_backward(sample: int, ops: Backend) -> None:
            for window, arguments in self._windows_backward(d_stems, cache, sample, ops):
                d_mags = wiener_magnitudes_backward(
                    *arguments, **self._filter_options(), device=ops
                )
                for j, d_target in enumerate(d_targets):
                    d_target[window, sample] = d_mags[..., j].transpose(0, 2, 1)

        self._each_sample(len(cache.audio), filter_backward)
        return {
            name: dict(network.backward(d_targets[j], cache.networks[j]))
            for j, (name, network) in enumerate(self.networks.items())
        }

    def audio_gradient(self, d_stems: np.ndarray, cache: SeparatorCache) -> np.ndarray:
        """Gradient of the mixtures, through the filter alone.

        Parameters
        ----------
        d_stems, cache
            As for `backward`, before which it has to be called if both are wanted.

        Returns
        -------
        ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]

        Notes
        -----
        The networks see the magnitudes of the mixture as constants, as in Open-Unmix; so this is
        what PyTorch's autograd returns for it, but not what a small change of the audio does.
        """
        d_stems = self._checked_gradient(d_stems, cache)
        geometry, audio = self.geometry, cache.audio
        shape = (*audio.shape[:2], geometry.nb_bins, len(cache.targets[0]))
        d_mix = np.empty(shape, np.result_type(self.dtype, np.complex64))

        def filter_backward(sample: int, ops: Backend) -> None:
            for window, arguments in self._windows_backward(d_stems, cache, sample, ops):
                _, d_part = wiener_backward(*arguments, **self._filter_options(), device=ops)
                d_mix[sample, ..., window] = d_part.transpose(2, 1, 0)

        self._each_sample(len(audio), filter_backward)
        return stft_backward(
            d_mix, audio.shape[-1], geometry.n_fft, geometry.n_hop, device=self._ops
        )

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

    def _each_sample(self, count: int, function: Callable[[int, Backend], None]) -> None:
        """Call ``function(sample, ops)`` for all samples of a batch.

        With enough samples each thread takes some of them: much of the work is NumPy's, on one
        thread, and so is done side by side.
        """
        if count < self._threads:
            for sample in range(count):
                function(sample, self._ops)
            return
        ops = get_backend("cpu", 1)
        parallel_map(self._threads, lambda sample: function(sample, ops), range(count))

    def _stft(self, audio: np.ndarray, ops: Backend) -> np.ndarray:
        """Spectra [shape=(..., nb_channels, nb_bins, nb_frames)]."""
        return stft(audio, self.geometry.n_fft, self.geometry.n_hop, device=ops)

    def _windows(self, nb_frames: int) -> list[slice]:
        """Frames that are filtered together."""
        length = self.config.wiener_win_len or nb_frames
        return [slice(start, start + length) for start in range(0, nb_frames, length)]

    def _filter_options(self) -> dict[str, Any]:
        return {
            "iterations": self.config.niter,
            "softmask": self.config.softmask,
            "residual": self.filters_residual,
        }

    def _filter(
        self, mix: np.ndarray, targets: list[np.ndarray], sample: int, length: int, ops: Backend
    ) -> np.ndarray:
        """Stems [shape=(nb_stems, nb_channels, length)] of one sample.

        The mixture has shape (nb_channels, nb_bins, nb_frames).
        """
        mix = mix.transpose(2, 1, 0)
        # The compiled filter takes one or two channels in single precision.
        compiled = self.dtype == np.float32 and mix.shape[2] <= 2
        estimates = [
            wiener(
                _magnitudes(targets, window, sample),
                mix[window],
                **self._filter_options(),
                device=ops if compiled else "reference",
            )
            for window in self._windows(len(mix))
        ]
        # (nb_sources, nb_channels, nb_bins, nb_frames)
        spectra = np.concatenate(estimates).transpose(3, 2, 1, 0)[: self.nb_stems]
        return istft(
            spectra,
            self.geometry.n_hop,
            length=length,
            n_fft=self.geometry.n_fft,
            device=ops,
        )

    def _checked_gradient(self, d_stems: np.ndarray, cache: SeparatorCache) -> np.ndarray:
        """Gradient of the stems in the right dtype, if it has the right shape."""
        d_stems = np.asarray(d_stems, dtype=self.dtype)
        wanted = (len(cache.audio), self.nb_stems, *cache.audio.shape[1:])
        if d_stems.shape != wanted:
            raise ShapeError(f"d_stems has shape={d_stems.shape}; the stems have shape={wanted}")
        return d_stems

    def _windows_backward(
        self, d_stems: np.ndarray, cache: SeparatorCache, sample: int, ops: Backend
    ) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """For each window of a sample the gradient of the filter's result, and its arguments."""
        geometry, targets = self.geometry, cache.targets
        n_fft, n_hop, nb_frames = geometry.n_fft, geometry.n_hop, len(targets[0])
        mix = self._stft(cache.audio[sample], ops).transpose(2, 1, 0)
        d_spectra = istft_backward(d_stems[sample], nb_frames, n_fft, n_hop, device=ops)
        d_spectra = d_spectra.transpose(3, 2, 1, 0)
        if len(targets) + self.filters_residual > self.nb_stems:
            # The residual is dropped after the filter.
            d_spectra = np.concatenate([d_spectra, np.zeros_like(d_spectra[..., :1])], axis=-1)
        for window in self._windows(nb_frames):
            mags = _magnitudes(targets, window, sample)
            yield window, (d_spectra[window], mags, mix[window])


def _magnitudes(targets: list[np.ndarray], window: slice, sample: int) -> np.ndarray:
    """Magnitudes [shape=(nb_frames, nb_bins, nb_channels or 1, nb_targets)] for the filter."""
    return np.stack([y[window, sample] for y in targets], axis=-1).transpose(0, 2, 1, 3)
