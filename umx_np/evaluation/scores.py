"""Scores of one track: which stems are compared with which, and museval's JSON."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .._support.atomic import atomic_write
from .._support.inputs import read_json, shortened_error
from ..errors import ConfigError, ScoresError
from .bss import (
    METRICS,
    BssScores,
    doubt,
    fitted_estimates,
    nb_frames_of,
    scores_and_doubts,
    silent_sources,
)

logger = logging.getLogger(__name__)

ACCOMPANIMENT = "accompaniment"
# Seconds; museval's choice, by which results are published.
WINDOW = 1.0
HOP = 1.0
METHODS = ("builtin", "museval")

# Whose numbers these are.
_MUSEVAL_VERSION = "0.4.1"
_DIGITS = 5


@dataclass(frozen=True)
class TrackScores:
    """Scores of the stems of a track, frame by frame, to five decimals.

    Attributes
    ----------
    name : str
        Name of the track.
    targets : dict of str to dict of str to ndarray [shape=(nb_frames,)]
        Of each stem, its SDR, SIR, ISR and SAR in dB; NaN where there is no such number.
    version : str
        What computed them, as written to the file.
    """

    name: str
    targets: dict[str, dict[str, np.ndarray]] = field(repr=False)
    version: str = f"{_MUSEVAL_VERSION} (umx_np {__version__})"

    def medians(self) -> dict[str, dict[str, float]]:
        """Return each stem's median over the frames that have a score; NaN if none has one."""
        return {
            target: {metric: nan_median(values[metric]) for metric in METRICS}
            for target, values in self.targets.items()
        }

    def is_complete(self, targets: Sequence[str], nb_frames: int) -> bool:
        """Whether these are the scores of these stems of a track with so many frames.

        Parameters
        ----------
        targets : sequence of str
            Names of the stems.
        nb_frames : int
            Frames that the track has.
        """
        return sorted(self.targets) == sorted(targets) and all(
            len(values[metric]) == nb_frames
            for values in self.targets.values()
            for metric in METRICS
        )

    def to_json(self) -> str:
        """Return the text of museval's JSON for this track; NaN stands for missing scores."""
        scores = {
            "targets": [
                {"name": target, "frames": _frames(values)}
                for target, values in self.targets.items()
            ],
            "museval_version": self.version,
        }
        return json.dumps(scores, indent=2)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON; the file appears when it is complete.

        Parameters
        ----------
        path : str or path-like
            The file; its folder is made if needed.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(self.to_json().encode())


def read_scores(path: str | os.PathLike[str]) -> TrackScores:
    """Read museval's JSON of a track, written by umx_np or museval.

    Parameters
    ----------
    path : str or path-like
        The file; its name without the extension is that of the track.

    Returns
    -------
    TrackScores

    Raises
    ------
    ScoresError
        If there is no such file or it does not hold scores.
    """
    path = Path(path)
    try:
        content = read_json(path, ScoresError)
        targets = {
            target["name"]: {
                metric: np.array(
                    [float(frame["metrics"][metric]) for frame in target["frames"]], np.float64
                )
                for metric in METRICS
            }
            for target in content["targets"]
        }
        return TrackScores(path.name.removesuffix(".json"), targets, content["museval_version"])
    except ScoresError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScoresError(
            f"path={str(path)!r} does not hold scores of a track "
            f"({type(error).__name__}: {shortened_error(error)})"
        ) from error


def comparisons(targets: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Say which stems are compared among themselves.

    Parameters
    ----------
    targets : sequence of str
        Stems that there are estimates and references of.

    Returns
    -------
    list of (list of str, list of str)
        The stems that are compared, and those whose scores count. Vocals and accompaniment are a
        pair of their own, as in museval: the accompaniment contains what else there is.

    Examples
    --------
    >>> comparisons(["vocals", "drums", "bass"])
    [(['vocals', 'drums', 'bass'], ['vocals', 'drums', 'bass'])]
    >>> comparisons(["vocals", "drums", "accompaniment"])
    [(['vocals', 'drums'], ['drums']), (['vocals', 'accompaniment'], ['vocals', 'accompaniment'])]
    >>> comparisons(["vocals"])
    []
    """
    pair = ["vocals", ACCOMPANIMENT]
    has_pair = all(target in targets for target in pair)
    rest = [target for target in targets if not (has_pair and target == ACCOMPANIMENT)]
    found = []
    if len(rest) >= 2:
        found.append((rest, [target for target in rest if not (has_pair and target in pair)]))
    if has_pair:
        found.append((pair, list(pair)))
    return found


def scored_targets(targets: Sequence[str]) -> list[str]:
    """Names of the stems that get scores, in the order of museval's files."""
    return [target for _, counting in comparisons(targets) for target in counting]


def nb_frames(nb_timesteps: int, rate: float) -> int:
    """Frames that the scores of a track have."""
    return nb_frames_of(nb_timesteps, int(WINDOW * rate), int(HOP * rate))


def score_track(
    name: str,
    references: Mapping[str, np.ndarray],
    estimates: Mapping[str, np.ndarray],
    rate: float,
    *,
    method: str = "builtin",
) -> TrackScores:
    """Score the stems of a track.

    Parameters
    ----------
    name : str
        Name of the track.
    references : mapping of str to ndarray [shape=(nb_channels, nb_timesteps)]
        The true stems; the order is that of the scores.
    estimates : mapping of str to ndarray [shape=(nb_channels, any)]
        Estimates of them. Those without a reference are not looked at.
    rate : float
        Sample rate in Hz.
    method : {'builtin', 'museval'}
        Compute with `bss_eval` or let the package museval do it. The scores are the same to five
        decimals; museval takes much longer and more memory, and says nothing where they are noise.

    Returns
    -------
    TrackScores

    Raises
    ------
    ScoresError
        If there are not two stems to compare.
    ShapeError
        If shapes do not fit.
    ConfigError
        If `method` is unknown, or museval is not there.

    Notes
    -----
    A stem that is silent throughout has NaN for scores, with a warning in the log; museval raises
    an error instead.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> stems = {name: rng.standard_normal((1, 3000)) for name in ("vocals", "drums")}
    >>> estimates = {name: 0.9 * stem for name, stem in stems.items()}
    >>> scores = score_track("song", stems, estimates, rate=1000)
    >>> scores.medians()["vocals"]["SDR"]
    20.0
    """
    check_method(method)
    common = [target for target in references if target in estimates]
    compared = comparisons(common)
    if not compared:
        raise ScoresError(
            f"track={name!r} has estimates of {_list(estimates)} and references of "
            f"{_list(references)}; scores need at least two stems that have both"
        )
    found: dict[str, dict[str, np.ndarray]] = {}
    for stems, counting in compared:
        pairs = [references[stem] for stem in stems], [estimates[stem] for stem in stems]
        scores, numbers = _compute(*pairs, rate, method)
        doubtful = [stems[k] for k in numbers if stems[k] in counting]
        if doubtful:
            logger.warning("%s: %s", name, doubt(doubtful))
        for k, kind in silent_sources(*pairs):
            if stems[k] in counting:
                logger.warning(
                    "%s: the %s of %s is silent, which gives no scores", name, kind, stems[k]
                )
        for target in counting:
            k = stems.index(target)
            found[target] = {metric: _rounded(getattr(scores, metric)[k]) for metric in METRICS}
    if method == "museval":
        return TrackScores(name, found, importlib.import_module("museval.version")._version)
    return TrackScores(name, found)


def check_method(method: str) -> None:
    """Raise `ConfigError` unless scores can be computed by this method."""
    if method not in METHODS:
        raise ConfigError(f"method={method!r} must be one of {', '.join(METHODS)}")
    if method == "museval":
        _museval()


def nan_median(values: Sequence[float] | np.ndarray) -> float:
    """Median of the numbers that are not NaN; NaN if there are none."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return float(np.median(numbers)) if len(numbers) else math.nan


def _compute(
    references: list[np.ndarray], estimates: list[np.ndarray], rate: float, method: str
) -> tuple[BssScores, list[int]]:
    """Scores, and the numbers of the sources that `doubt` is to be said of."""
    window, hop = int(WINDOW * rate), int(HOP * rate)
    if method == "builtin":
        return scores_and_doubts(references, estimates, window, hop)
    estimates = fitted_estimates(references, estimates)
    try:
        sdr, isr, sir, sar = _museval().evaluate(
            [reference.T for reference in references],
            [estimate.T for estimate in estimates],
            win=window,
            hop=hop,
        )
    except (ValueError, ArithmeticError, AttributeError) as error:
        # AttributeError: museval's handling of singular matrices needs an old NumPy.
        raise ScoresError(f"museval cannot score this track: {error}") from error
    return BssScores(sdr, sir, isr, sar), []


def _museval() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's deprecations
            return importlib.import_module("museval")
    except ImportError as error:
        raise ConfigError(
            f'method="museval" needs the package museval: pip install "umx-np[eval]" ({error})'
        ) from error


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round to the decimals that are written; infinite ratios are no numbers to average."""
    values = np.where(np.isfinite(values), values, np.nan)
    return np.array([float(f"{value:.{_DIGITS}f}") for value in values])


def _frames(values: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {
            "time": k * HOP,
            "duration": WINDOW,
            # In museval's order.
            "metrics": {name: float(values[name][k]) for name in ("SDR", "SIR", "SAR", "ISR")},
        }
        for k in range(len(values[METRICS[0]]))
    ]


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "nothing"
