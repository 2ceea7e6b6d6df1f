"""Mean and standard deviation of a dataset's spectrogram, from which a network starts."""

from __future__ import annotations

import logging

import numpy as np

from .._support.progress import Progress, reporting
from ..dsp.stft import stft
from ..errors import DataError
from ..framing.geometry import StftGeometry
from .base import UnmixDataset, item_rng
from .batches import checked_sample

logger = logging.getLogger(__name__)

# Frames transformed at a time: 64 MB of float64 magnitudes at 2049 bins.
_FRAMES_PER_BLOCK = 4096
# The standard deviation of a bin is at least this part of the largest.
_SMALLEST_STD = 1e-4


class RunningMoments:
    """Mean and variance of rows that arrive block by block, in float64.

    Blocks are merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979): no large sums are subtracted.

    Parameters
    ----------
    nb_bins : int
        Length of a row.

    Attributes
    ----------
    count : int
        Rows so far.
    mean : ndarray [shape=(nb_bins,)], float64
        Their mean.
    """

    def __init__(self, nb_bins: int) -> None:
        self.count = 0
        self.mean = np.zeros(nb_bins)
        self._squares = np.zeros(nb_bins)  # sum of the squared distances from the mean

    def push(self, rows: np.ndarray) -> None:
        """Take in `rows` [shape=(nb_rows, nb_bins)]."""
        if not len(rows):
            return
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0)
        rows -= mean
        squares = np.einsum("tf,tf->f", rows, rows)
        total = self.count + len(rows)
        step = mean - self.mean
        self._squares += squares + step**2 * (self.count * len(rows) / total)
        self.mean += step * (len(rows) / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Variance of the rows as a whole population, float64 [shape=(nb_bins,)]."""
        return self._squares / max(self.count, 1)

    @property
    def scale(self) -> np.ndarray:
        """Standard deviation, and 1 where it vanishes but for rounding.

        The rule, and the bound on what rounding alone may cause, are those of scikit-learn's
        ``StandardScaler``.
        """
        variance = self.variance
        eps = np.finfo(np.float64).eps
        rounding = self.count * eps * variance + (self.count * self.mean * eps) ** 2
        return np.where(variance <= rounding, 1.0, np.sqrt(variance))


def get_statistics(
    dataset: UnmixDataset,
    n_fft: int = 4096,
    n_hop: int = 1024,
    *,
    seed: int = 0,
    progress: bool | Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of each frequency bin over the mixtures of a whole dataset.

    Parameters
    ----------
    dataset : UnmixDataset
        Its `for_statistics` is what is looked at: every track once, whole and not augmented.
    n_fft, n_hop : int
        Of the spectrogram, which is not centred, as in training.
    seed : int
        For datasets whose items are random by nature (``sourcefolder``).
    progress : bool, callable or None
        True draws a bar; a callable takes the fraction that is done.

    Returns
    -------
    mean : ndarray [shape=(n_fft // 2 + 1,)], float64
        Mean of the magnitude, averaged over the channels.
    std : ndarray [shape=(n_fft // 2 + 1,)], float64
        Its standard deviation (of the population), at least 1e-4 of the largest.

    Raises
    ------
    DataError
        If an item cannot be made, or none is as long as a frame.

    Notes
    -----
    Same numbers as Open-Unmix gets from scikit-learn's ``StandardScaler``, with one difference:
    upstream leaves the random gains of the folder datasets on.
    """
    geometry = StftGeometry(n_fft, n_hop, center=False)
    moments = RunningMoments(geometry.nb_bins)
    plain = dataset.for_statistics()
    with reporting(progress, label="dataset statistics") as report:
        for index in range(len(plain)):
            x, _ = checked_sample(plain, index, item_rng(seed, 0, index))
            if x.shape[1] < n_fft:
                text = (
                    "item %d %s is left out of the statistics: nb_timesteps=%d is less than a "
                    "frame of n_fft=%d"
                )
                logger.warning(text, index, plain.describe(index), x.shape[1], n_fft)
            else:
                _push_spectrogram(moments, x, geometry)
            if report is not None:
                report((index + 1) / len(plain))
    if not moments.count:
        raise DataError(f"no item of the dataset is as long as a frame of n_fft={n_fft} samples")
    scale = moments.scale
    return moments.mean, np.maximum(scale, _SMALLEST_STD * scale.max())


def _push_spectrogram(moments: RunningMoments, x: np.ndarray, geometry: StftGeometry) -> None:
    """Add the frames of one waveform [shape=(nb_channels, nb_timesteps)]."""
    nb_frames = geometry.nb_frames(x.shape[1])
    for start in range(0, nb_frames, _FRAMES_PER_BLOCK):
        count = min(_FRAMES_PER_BLOCK, nb_frames - start)
        first = start * geometry.n_hop
        block = x[:, first : first + geometry.nb_samples_of(count)]
        spectrum = stft(block, geometry.n_fft, geometry.n_hop, center=False)
        moments.push(np.abs(spectrum).mean(axis=0).T)
