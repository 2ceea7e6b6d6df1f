"""Frozen descriptions of what is configurable: the geometry of a model and of a separator.

These dataclasses hold numbers only. They are validated once, when they are made, so that the code
that uses them needs no further checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, ShapeError, shortened

if TYPE_CHECKING:
    import numpy as np

# It comes with the package, so that everything works at once and offline. Better ones have to be
# asked for by name; Open-Unmix's default, umxl, may not be used commercially.
DEFAULT_MODEL = "umxm"

# The targets of music, in the order of tables and folders.
MUSIC_TARGETS = ("vocals", "drums", "bass", "other")


# Rates in Hz that sound can have. Nothing below is music (telephones have 8 kHz, and a song at 1 Hz
# would last days), nothing above is made by converters: 768 kHz is sixteen times 48 kHz. Between
# rates that are further apart than these, libsoxr also needs minutes and gigabytes for its filters.
MIN_RATE = 1_000
MAX_RATE = 768_000
# What a model may be described with. The files of a model can say anything, and each of these
# numbers decides how much time and memory a song takes; no model comes near the bounds.
LARGEST = {
    "n_fft": 1 << 18,
    "nb_bins": (1 << 17) + 1,
    "nb_channels": 64,
    "hidden_size": 1 << 16,
    "nb_layers": 64,
}
MAX_OVERLAP = 256


def check_int(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as a plain int, or raise `ConfigError` naming it."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name}={shortened(value)} must be an integer")
    number = int(value)
    if number < minimum:
        raise ConfigError(f"{name}={shortened(value)} must be at least {minimum}")
    if maximum is not None and number > maximum:
        raise ConfigError(f"{name}={shortened(value)} must be at most {maximum}")
    return number


def is_number(value: object) -> bool:
    """Whether a value is a real number of Python or NumPy, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_rate(name: str, value: object) -> float:
    """Return a sample rate as a plain int or float, or raise `ConfigError` naming it."""
    # Integers are compared exactly; a float may be NaN.
    if not is_number(value) or not MIN_RATE <= value <= MAX_RATE:  # type: ignore[operator]
        raise ConfigError(
            f"{name}={shortened(value)} must be a sample rate from {MIN_RATE} to {MAX_RATE} Hz"
        )
    return value if isinstance(value, int) else float(value)  # type: ignore[arg-type]


def check_array(name: str, value: object) -> np.ndarray:
    """Return `value` as an array in native byte order, or raise `ShapeError` if it has no numbers.

    Of a masked array, what is masked has no value: it is refused.
    """
    import numpy as np

    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ShapeError(f"{name} is no array: {shortened(str(error))[1:-1]}") from error
    if array.dtype.kind not in "biufc":
        raise ShapeError(f"{name} has dtype={array.dtype}; pass an array of numbers")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ShapeError(f"{name} has masked values; fill them, for instance with zeros")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_hop(hop_name: str, n_hop: int, fft_name: str, n_fft: int) -> None:
    """Raise `ConfigError` unless frames overlap or touch, and no more than `MAX_OVERLAP` fold."""
    if not n_fft <= MAX_OVERLAP * n_hop <= MAX_OVERLAP * n_fft:
        raise ConfigError(
            f"{hop_name}={n_hop} must be from {-(-n_fft // MAX_OVERLAP)} to {n_fft}, since "
            f"{fft_name}={n_fft}"
        )


def check_network(name: str, config: ModelConfig, n_fft: int, nb_channels: int) -> None:
    """Raise `ConfigError` unless the network of a target fits an STFT and its channels."""
    nb_bins = n_fft // 2 + 1
    if (config.nb_bins, config.nb_channels) != (nb_bins, nb_channels):
        raise ConfigError(
            f"target {name!r} has nb_bins={config.nb_bins}, nb_channels={config.nb_channels}; "
            f"n_fft={n_fft}, nb_channels={nb_channels} need {nb_bins} and {nb_channels}"
        )


def is_file_name(name: object) -> bool:
    """Whether a text can be the name of a file on every system, and leads out of no folder."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return not set(name) & set('/\\:\0"<>|?*')


def in_usual_order(names: Iterable[str]) -> list[str]:
    """Sort names of targets: vocals, drums, bass, other, then the rest by name.

    Examples
    --------
    >>> in_usual_order({"bass", "choir", "vocals"})
    ['vocals', 'bass', 'choir']
    """
    given = set(names)
    known = [name for name in MUSIC_TARGETS if name in given]
    return known + sorted(given.difference(known))


def check_aggregate(aggregate: Mapping[str, Sequence[str]], stem_names: Sequence[str]) -> None:
    """Raise `ConfigError` unless every value is a list of one or more known stems."""
    if not isinstance(aggregate, Mapping) or not aggregate:
        raise ConfigError(
            f"aggregate={shortened(aggregate)} must map names of results to lists of stems, like "
            '{"accompaniment": ["drums", "bass", "other"]}'
        )
    for name, parts in aggregate.items():
        if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
            raise ConfigError(f"aggregate[{name!r}]={shortened(parts)} must be a list of stems")
        for part in parts:
            if part not in stem_names:
                raise ConfigError(
                    f"aggregate[{name!r}] names the stem {shortened(part)}; there are "
                    f"{', '.join(stem_names)}"
                )


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one target network; the arguments of Open-Unmix's `OpenUnmix`.

    Attributes
    ----------
    nb_bins : int
        Frequency bins of the full-band spectrogram, ``n_fft // 2 + 1``.
    nb_channels : int
        Channels of the spectrogram that the network sees.
    hidden_size : int
        Width of the bottleneck.
    nb_layers : int
        Number of stacked LSTM layers.
    unidirectional : bool
        One causal LSTM of `hidden_size` units instead of two of half the size.
    max_bin : int or None
        The network reads only the first `max_bin` bins; None reads all of them.
    """

    nb_bins: int = 4096
    nb_channels: int = 2
    hidden_size: int = 512
    nb_layers: int = 3
    unidirectional: bool = False
    max_bin: int | None = None

    def __post_init__(self) -> None:
        for name in ("nb_bins", "nb_channels", "hidden_size", "nb_layers"):
            value = check_int(name, getattr(self, name), 1, LARGEST[name])
            object.__setattr__(self, name, value)
        if not self.unidirectional and self.hidden_size % 2:
            # The two directions are concatenated to `hidden_size` features.
            raise ConfigError(
                f"hidden_size={self.hidden_size} must be even for a bidirectional model"
            )
        # Open-Unmix treats max_bin=0 like None.
        max_bin = check_int("max_bin", self.max_bin, 0) if self.max_bin is not None else 0
        object.__setattr__(self, "max_bin", max_bin or None)
        if max_bin > self.nb_bins:
            raise ConfigError(f"max_bin={max_bin} must not exceed nb_bins={self.nb_bins}")

    @property
    def nb_input_bins(self) -> int:
        """Bins the network reads."""
        return self.max_bin or self.nb_bins

    @property
    def lstm_hidden_size(self) -> int:
        """Units of one LSTM direction."""
        return self.hidden_size if self.unidirectional else self.hidden_size // 2

    @property
    def nb_directions(self) -> int:
        """1 for a unidirectional model, 2 for a bidirectional one."""
        return 1 if self.unidirectional else 2


@dataclass(frozen=True)
class SeparationOptions:
    """How the networks of a model are made use of; checked when a separator is made of them.

    Attributes
    ----------
    niter : int
        EM iterations of the Wiener filter.
    softmask : bool
        First estimates from ratio masks instead of magnitudes with the phase of the mixture.
    residual : bool or str
        Also return the mixture minus all targets; a string is the name of that stem.
    wiener_win_len : int or None
        Frames filtered together; None or 0 filters the whole track at once.
    filterbank : {'torch', 'asteroid'}
        FFT, or the same transform as a matrix product.
    """

    niter: int = 1
    softmask: bool = False
    residual: bool | str = False
    wiener_win_len: int | None = 300
    filterbank: str = "torch"


# Of the networks, from the most exact one on.
PRECISIONS = ("full", "fast", "int8")


def check_precision(value: object) -> str:
    """Return the name of a precision, or raise `ConfigError` for anything else."""
    if not isinstance(value, str) or value not in PRECISIONS:
        raise ConfigError(f"precision={shortened(value)} must be 'full', 'fast' or 'int8'")
    return value


@dataclass(frozen=True)
class Computing:
    """Where and how numbers are computed; checked by `umx_np.devices.get_backend`.

    Attributes
    ----------
    device : {'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'} or Backend
        Where to compute.
    threads : int or None
        Threads to compute on; None means all cores.
    precision : {'full', 'fast', 'int8'}
        ``'fast'`` computes the networks with lower precision, ``'int8'`` in eight bits; see
        docs/guide.md.
    """

    device: Any = "auto"
    threads: int | None = None
    precision: str = "full"

    @property
    def weights_dtype(self) -> str:
        """Name of the dtype to load weights in: int8 stays as small as it is stored."""
        return "int8" if self.precision == "int8" else "float32"


@dataclass(frozen=True)
class SeparatorConfig:
    """Settings of a separator besides its networks.

    Attributes
    ----------
    sample_rate : float
        Rate in Hz that the networks were trained at.
    n_fft, n_hop : int
        STFT size and hop in samples.
    nb_channels : int
        1 makes the networks see the mean magnitude over the channels.
    niter : int
        EM iterations of the Wiener filter.
    softmask : bool
        First estimates from ratio masks instead of magnitudes with the phase of the mixture.
    residual : bool
        Add the mixture minus all targets as one more source.
    wiener_win_len : int or None
        Frames filtered together; None filters the whole track at once.
    filterbank : {'torch', 'asteroid'}
        FFT, or the same transform as a matrix product.
    input_level : float or None
        Level in dB that mixtures are brought to for the networks and the filter, and the stems back
        from; see `umx_np.framing.levels`. None takes them as they are.
    """

    sample_rate: float = 44100.0
    n_fft: int = 4096
    n_hop: int = 1024
    nb_channels: int = 2
    niter: int = 0
    softmask: bool = False
    residual: bool = False
    wiener_win_len: int | None = 300
    filterbank: str = "torch"
    input_level: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample_rate", float(check_rate("sample_rate", self.sample_rate)))
        for name, minimum in (("n_fft", 2), ("n_hop", 1), ("nb_channels", 1), ("niter", 0)):
            value = check_int(name, getattr(self, name), minimum, LARGEST.get(name))
            object.__setattr__(self, name, value)
        check_hop("n_hop", self.n_hop, "n_fft", self.n_fft)
        if self.wiener_win_len is not None:
            # Open-Unmix reads 0 as "the whole track".
            length = check_int("wiener_win_len", self.wiener_win_len, 0)
            object.__setattr__(self, "wiener_win_len", length or None)
        if self.filterbank not in ("torch", "asteroid"):
            raise ConfigError(f"filterbank={self.filterbank!r} must be 'torch' or 'asteroid'")
        if self.input_level is not None:
            object.__setattr__(self, "input_level", check_input_level(self.input_level))

    def residual_takes_part(self, nb_targets: int) -> bool:
        """Whether the residual takes part in the filter, returned or not.

        Parameters
        ----------
        nb_targets : int
            A single target has nothing but the residual to share the mixture with.

        Returns
        -------
        bool
        """
        return self.residual or (nb_targets == 1 and self.niter > 0)

    def with_(self, **changes: object) -> SeparatorConfig:
        """Return a copy with some fields replaced (and checked again)."""
        return replace(self, **changes)  # type: ignore[arg-type]


def check_input_level(value: object) -> float:
    """Return the level of a model in dB.

    Raises
    ------
    ConfigError
        If it is not a number from -60 to 0.
    """
    if is_number(value) and -60 <= value <= 0:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ConfigError(
        f"input_level={shortened(value)} must be a level in dB of full scale, from -60 to 0"
    )


def bandwidth_to_max_bin(rate: float, n_fft: int, bandwidth: float) -> int:
    """Number of STFT bins up to and including `bandwidth`.

    Parameters
    ----------
    rate : float
        Sample rate in Hz.
    n_fft : int
        FFT length in samples.
    bandwidth : float
        Highest frequency to keep, in Hz.

    Returns
    -------
    int
        One more than the index of the last bin whose frequency is at most `bandwidth`.

    Raises
    ------
    ConfigError
        If `bandwidth` is negative.

    Notes
    -----
    Same rule as ``openunmix.utils.bandwidth_to_max_bin``: 1487 of 2049 bins for 16 kHz at
    44.1 kHz, 513 of 513 bins for 16 kHz at 16 kHz.

    Examples
    --------
    >>> bandwidth_to_max_bin(rate=44100.0, n_fft=4096, bandwidth=16000.0)
    1487
    """
    if bandwidth < 0:
        raise ConfigError(f"bandwidth={bandwidth} must not be negative")
    return int((_frequencies(rate, n_fft) <= bandwidth).nonzero()[0][-1]) + 1


def max_bin_to_bandwidth(rate: float, n_fft: int, max_bin: int) -> float:
    """Lowest bandwidth in Hz for which `bandwidth_to_max_bin` returns `max_bin`.

    Parameters
    ----------
    rate : float
        Sample rate in Hz.
    n_fft : int
        FFT length in samples.
    max_bin : int
        Number of STFT bins, from 1.

    Returns
    -------
    float

    Examples
    --------
    >>> round(max_bin_to_bandwidth(rate=44100.0, n_fft=4096, max_bin=1487), 1)
    15999.2
    """
    return float(_frequencies(rate, n_fft)[max_bin - 1])


def _frequencies(rate: float, n_fft: int) -> np.ndarray:
    """Frequencies of the STFT's bins in Hz."""
    import numpy as np

    return np.linspace(0.0, rate / 2, n_fft // 2 + 1)
