"""`Separator`: networks, Wiener filter and inverse transform on whole arrays."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .._support.keywords import check_keywords, pick, shows
from .._support.progress import Progress, reporting
from .._support.threads import parallel_map
from ..backends.contracts import Backend, Network
from ..config import (
    Computing,
    SeparationOptions,
    SeparatorConfig,
    check_network,
    check_rate,
)
from ..devices import get_backend, separation_engine
from ..engines.job import Job, SeparationEngine
from ..engines.sources import ArraySource, CheckedSource, check_channels, is_finite_as
from ..errors import ConfigError, ShapeError, shortened
from ..framing.geometry import StftGeometry
from ..network.openunmix import OpenUnmix
from ..weights.bundle import ModelBundle
from .checks import check_model, check_samples
from .options import SeparationKeywords
from .records import weights_digest
from .settings import SeparatorSettings
from .tracks import separate_blocks, stem_blocks

if TYPE_CHECKING:
    from typing import Unpack

    from numpy.typing import ArrayLike

    from ..engines.sources import Source
    from .live import Stream

logger = logging.getLogger(__name__)


class Separator(SeparatorSettings):
    """Separates waveforms with one network per target.

    Parameters
    ----------
    target_models : mapping of str to OpenUnmix
        The networks, in the order of the stems.
    niter : int
        EM iterations of the Wiener filter. With one target, the residual takes part in them and is
        dropped afterwards unless asked for.
    softmask : bool
        First estimates from ratio masks instead of magnitudes with the phase of the mixture.
    residual : bool or str
        Also return the mixture minus all targets; a string is the name of that stem.
    sample_rate : float
        Rate in Hz that the networks were trained at.
    n_fft, n_hop : int
        STFT size and hop in samples.
    nb_channels : int
        Channels of the networks. 1 makes them see the mean magnitude over the channels.
    wiener_win_len : int or None
        Frames that are filtered together; None or 0 filters the whole track at once.
    filterbank : {'torch', 'asteroid'}
        FFT, or the same transform as a matrix product.
    device : {'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'} or Backend
        Where to compute. ``'auto'`` takes the first CUDA device, or else the processor.
        ``'reference'`` is slow NumPy in the dtype of the audio.
    threads : int or None
        Threads to compute on; None means all cores.
    precision : {'full', 'fast', 'int8'}
        ``'fast'`` computes the networks in lower precision, ``'int8'`` in eight bits; see
        docs/guide.md for what they cost.
    name : str or None
        Name of the model, for folders and pictures.
    input_level : float or None
        Level in dB of full scale that the networks were trained at. A gain that follows the
        loudness brings mixtures to it, and the stems back; see docs/guide.md. None, as for the
        models of Open-Unmix, takes mixtures as they are.

    Raises
    ------
    ConfigError
        If an option is out of range, or the networks do not fit it.
    DeviceError
        If the device is not available.

    Notes
    -----
    The arguments and defaults are those of ``openunmix.model.Separator``. A separator keeps no
    state between calls and may be called from several threads. It can be copied and pickled, for
    instance for the processes of a pool, with its weights; where it arrives there must be the same
    device, and on a processor the same instruction-set level.
    """

    def __init__(
        self,
        target_models: Mapping[str, OpenUnmix],
        niter: int = 0,
        softmask: bool = False,
        residual: bool | str = False,
        sample_rate: float = 44100.0,
        n_fft: int = 4096,
        n_hop: int = 1024,
        nb_channels: int = 2,
        wiener_win_len: int | None = 300,
        filterbank: str = "torch",
        *,
        device: str | Backend = "auto",
        threads: int | None = None,
        precision: str = "full",
        name: str | None = None,
        input_level: float | None = None,
    ) -> None:
        if not isinstance(target_models, Mapping):
            raise ConfigError(
                f"target_models={shortened(target_models)} must map names of targets to networks"
            )
        if not target_models:
            raise ConfigError("target_models={} is empty; pass at least one network")
        self.config = SeparatorConfig(
            sample_rate=check_rate("sample_rate", sample_rate),
            n_fft=n_fft,
            n_hop=n_hop,
            nb_channels=nb_channels,
            niter=niter,
            softmask=bool(softmask),
            residual=bool(residual),
            wiener_win_len=wiener_win_len,
            filterbank=filterbank,
            input_level=input_level,
        )
        StftGeometry(n_fft, n_hop, center=True).check_invertible()
        self.ops = get_backend(device, threads, precision)
        self._lock = threading.Lock()
        self._engine: SeparationEngine | None = None
        self._weights_digest: str | None = None
        self.name = name
        self.networks: dict[str, Network] = {}
        for target, model in target_models.items():
            check_model(target, model)
            check_network(target, model.config, n_fft, nb_channels)
            self.networks[target] = model.network(self.ops)
        self.target_models = dict(target_models)
        self._job = Job(self.ops, self.networks, self.config, ())
        self.residual = residual

    @classmethod
    @shows(SeparationOptions, Computing)
    def from_bundle(cls, bundle: ModelBundle, **options: Unpack[SeparationKeywords]) -> Separator:
        """Make a separator of loaded weights.

        Parameters
        ----------
        bundle : ModelBundle
            From `umx_np.load_model` or `umx_np.weights.load_folder`.
        niter, softmask, residual, wiener_win_len, filterbank, device, threads, precision
            As for `Separator`; `niter` is 1, as in Open-Unmix's model functions.
        """
        check_keywords("from_bundle", options, SeparationOptions, Computing)
        computing = pick(Computing, options)
        ops = get_backend(computing.device, computing.threads, computing.precision)
        models = {
            name: OpenUnmix.from_weights(weights, device=ops)
            for name, weights in bundle.targets.items()
        }
        separator = cls(
            models,
            **vars(pick(SeparationOptions, options)),
            sample_rate=bundle.sample_rate,
            n_fft=bundle.n_fft,
            n_hop=bundle.n_hop,
            nb_channels=bundle.nb_channels,
            device=ops,
            name=bundle.name,
            input_level=bundle.input_level,
        )
        if ops.precision != "full":
            # Such networks keep rounded weights only.
            separator._weights_digest = weights_digest(
                {name: (w.config, w.state) for name, w in bundle.targets.items()}
            )
        return separator

    def __getstate__(self) -> dict[str, Any]:
        # What is made again where it is needed; an engine may hold the memory of a device.
        made = ("_lock", "_engine", "_job")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._engine = threading.Lock(), None
        self._job = Job(self.ops, self.networks, self.config, tuple(self.stem_names))

    def __repr__(self) -> str:
        return f"Separator({', '.join(self.stem_names)}; {self.config}; {self.ops})"

    @property
    def weights_digest(self) -> str | None:
        """SHA-256 of all weights; None if they are not kept as they were (other precisions)."""
        if self._weights_digest is None:
            try:
                self._weights_digest = weights_digest(
                    {name: (net.config, net.state_dict()) for name, net in self.networks.items()}
                )
            except ConfigError:
                return None
        return self._weights_digest

    @property
    def geometry(self) -> StftGeometry:
        """Where the frames of the STFT lie."""
        return self.job.geometry

    @property
    def job(self) -> Job:
        """Networks and options as they are now, for an engine."""
        known = self._job
        if known.config is not self.config or known.stem_names != tuple(self.stem_names):
            known = replace(known, config=self.config, stem_names=tuple(self.stem_names))
            self._job = known
        return known

    def engine(self) -> SeparationEngine:
        """Return what separates with the options as they are now; made once for them."""
        with self._lock:
            job = self.job
            if self._engine is None or self._engine.job is not job:
                self._engine = separation_engine(job)
            return self._engine

    def freeze(self) -> None:
        """Do nothing: inference never changes the weights. Here for callers of Open-Unmix."""

    def __call__(self, audio: ArrayLike, *, progress: bool | Progress | None = None) -> np.ndarray:
        """Separate waveforms.

        Parameters
        ----------
        audio : array_like [shape=(nb_samples, nb_channels, nb_timesteps)]
            Mixtures at `sample_rate`, never modified.
        progress : bool, callable or None
            True shows a bar; a callable gets the fraction that is done, from 0 to 1. An exception
            raised by it ends the work.

        Returns
        -------
        ndarray [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]
            The stems in the order of `stem_names`. float32, or on the reference device the dtype of
            the audio.

        Raises
        ------
        ShapeError
            If the shape does not fit the model, or the audio is not finite.
        """
        x = check_samples("audio", audio)
        if x.ndim != 3 or 0 in x.shape:
            raise ShapeError(
                f"audio has shape={x.shape}; it must be (nb_samples, nb_channels, nb_timesteps)"
            )
        if x.dtype.kind not in "fiu":
            raise ShapeError(f"audio has dtype={x.dtype}; pass floating-point samples")
        if self.nb_channels > 1 and x.shape[1] != self.nb_channels:
            hint = " (umx_np.separate takes any number)" if self.nb_channels == 2 else ""
            raise ShapeError(
                f"audio has nb_channels={x.shape[1]}; this model needs {self.nb_channels}{hint}"
            )
        most = self.ops.max_channels
        if most is not None and x.shape[1] > most:
            raise ShapeError(
                f"audio has nb_channels={x.shape[1]}; a model of one channel separates one or two, "
                "or more with device='reference' (umx_np.separate takes the first two)"
            )
        dtype = self.ops.dtype_for(x.dtype)
        if not is_finite_as(x, dtype, self.geometry.n_fft):
            raise ShapeError(
                f"audio holds NaN, infinity or numbers too large for {dtype}; remove them before "
                "separating"
            )
        out = np.empty((len(x), len(self.stem_names), *x.shape[1:]), dtype)
        with reporting(progress) as report:
            for sample, track in enumerate(x):
                self._separate_into(
                    out[sample],
                    np.ascontiguousarray(track, dtype=dtype),
                    _part_of(report, sample / len(x), 1 / len(x)),
                )
        return out

    def _separate_into(self, out: np.ndarray, track: np.ndarray, report: Progress | None) -> None:
        """Write the stems of one track [shape=(nb_channels, nb_timesteps)] to an array."""
        for start, stems in separate_blocks(self.engine(), ArraySource(track), report):
            block = out[:, :, start : start + stems.shape[-1]]
            # Touching the fresh memory of the result takes longer than copying.
            parallel_map(
                self.ops.copy_threads,
                lambda pair: np.copyto(*pair),
                list(zip(block, stems, strict=True)),
            )
        if report is not None:
            report(1.0)

    def blocks(
        self,
        source: Source | ArrayLike,
        *,
        progress: bool | Progress | None = None,
        max_memory: int | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Separate a signal of any length and yield its stems from start to end.

        The stems are those of the whole signal, not of excerpts. What grows with its length are the
        activations between two layers, about 0.1 MB a second and target for `umxhq`.

        Parameters
        ----------
        source : array_like [shape=(nb_channels, nb_timesteps)] or Source
            Samples at `sample_rate`, or an object with the attributes ``nb_channels`` and
            ``nb_timesteps`` and a method ``blocks(size)``, which yields arrays
            [shape=(nb_channels, <= size)] from the beginning each time it is called: the signal is
            read twice, and ``niter + 2`` times if the filter takes the whole track.
            `umx_np.audio.AudioReader` is one.
        progress : bool, callable or None
            As for `__call__`.
        max_memory : int or None
            Bytes for the activations; more goes to a temporary file. None sets no limit.

        Yields
        ------
        start : int
            Position of the block in the signal, in samples.
        stems : ndarray [shape=(nb_stems, nb_channels, n)]
            In the order of `stem_names`, and with one channel if the signal has one.

        Raises
        ------
        ShapeError
            If the shape does not fit the model, a block is not finite, or the blocks have another
            length than announced.
        ConfigError
            If the source has an attribute ``rate`` that is not that of the model.

        Examples
        --------
        >>> from umx_np.testing import random_bundle
        >>> separator = Separator.from_bundle(random_bundle("umxse", seed=0))
        >>> noise = np.random.default_rng(0).standard_normal((1, 100_000))
        >>> sum(stems.shape[-1] for start, stems in separator.blocks(noise))
        100000
        """
        if not hasattr(source, "blocks"):
            array = check_samples("source", source)
            if array.ndim != 2:
                raise ShapeError(
                    f"source has shape={array.shape}; it must be (nb_channels, nb_timesteps)"
                )
            source = ArraySource(array)
        checked = CheckedSource(cast("Source", source), self.geometry.n_fft)
        check_channels(checked, self.nb_channels)
        rate = getattr(source, "rate", self.sample_rate)
        if rate != self.sample_rate:
            raise ConfigError(
                f"source has rate={rate:g} Hz, this model {self.sample_rate:g}; open it with "
                f"rate={self.sample_rate:g}, as AudioReader takes it, or resample it"
            )

        def copies() -> Iterator[tuple[int, np.ndarray]]:
            with reporting(progress) as report:
                for start, stems in stem_blocks(self.engine(), checked, report, max_memory):
                    # The memory behind `stems` is used again for the next block.
                    yield start, stems.copy()

        return copies()

    def stream(self, nb_channels: int = 2) -> Stream:
        """Begin to separate a signal that arrives in blocks.

        Parameters
        ----------
        nb_channels : int
            Channels of the signal.

        Returns
        -------
        Stream
            ``process(block)`` takes samples and returns stems, ``flush()`` returns the rest.

        Raises
        ------
        ConfigError
            If a network is bidirectional, and so needs the whole track.
        ShapeError
            If the model does not separate that many channels.

        Examples
        --------
        >>> model = OpenUnmix(nb_bins=513, hidden_size=16, unidirectional=True, seed=0)
        >>> separator = Separator({"vocals": model}, residual=True, n_fft=1024, n_hop=256)
        >>> live = separator.stream()
        >>> blocks = np.random.default_rng(0).standard_normal((10, 2, 500))
        >>> stems = [live.process(block) for block in blocks] + [live.flush()]
        >>> np.concatenate(stems, axis=2).shape
        (2, 2, 5000)
        """
        from .live import Stream

        return Stream(self.job, nb_channels)


def _part_of(progress: Progress | None, start: float, share: float) -> Progress | None:
    """Progress of one of several tasks, reported as progress of them all."""
    if progress is None:
        return None
    return lambda fraction: progress(start + share * fraction)
