"""Scores of many tracks in few numbers: tables for the terminal and for other programs."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._support.atomic import atomic_write
from ..errors import ConfigError
from .bss import METRICS
from .scores import HOP, TrackScores, nan_median

Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Summary:
    """Medians over the frames of each track, and of these the median and the mean over the tracks.

    Frames and tracks without a number are left out, as museval does.

    Attributes
    ----------
    tracks : dict of str to dict of str to dict of str to float
        Track, stem and metric to the median over the frames.
    median, mean : dict of str to dict of str to float
        Stem and metric to the median and mean over the tracks.
    counts : dict of str to int
        Stem to the number of tracks that have an SDR.
    """

    tracks: dict[str, Table]
    median: Table
    mean: Table
    counts: dict[str, int]

    @classmethod
    def of(cls, scores: Mapping[str, TrackScores]) -> Summary:
        """Sum up scores by the names of the tracks.

        Parameters
        ----------
        scores : mapping of str to TrackScores
            From `evaluate` or `read_scores`.

        Examples
        --------
        >>> frames = {"SDR": [3, 5, np.nan], "SIR": [1, 1, 1], "ISR": [2, 2, 2], "SAR": [0, 0, 0]}
        >>> frames = {metric: np.array(values) for metric, values in frames.items()}
        >>> one = TrackScores("one", {"vocals": frames})
        >>> Summary.of({"one": one}).median["vocals"]
        {'SDR': 4.0, 'SIR': 1.0, 'ISR': 2.0, 'SAR': 0.0}
        """
        tracks = {name: track.medians() for name, track in scores.items()}
        targets = list(dict.fromkeys(target for track in tracks.values() for target in track))
        by_target = {
            target: {
                metric: [track[target][metric] for track in tracks.values() if target in track]
                for metric in METRICS
            }
            for target in targets
        }

        def over_tracks(function: Callable[[list[float]], float]) -> Table:
            return {
                target: {metric: function(of[metric]) for metric in METRICS}
                for target, of in by_target.items()
            }

        counts = {
            target: sum(not math.isnan(x) for x in of["SDR"]) for target, of in by_target.items()
        }
        return cls(tracks, over_tracks(nan_median), over_tracks(_nan_mean), counts)

    def table(self) -> str:
        """Return the numbers over all tracks as text."""
        lines = [f"{'':16}" + "".join(f"{metric:>9}" for metric in METRICS) + "   tracks"]
        for title, rows in (("median of tracks", self.median), ("mean of tracks", self.mean)):
            lines.append(title)
            for target, row in rows.items():
                numbers = "".join(f"{_shown(row[metric]):>9}" for metric in METRICS)
                lines.append(f"  {target:14}{numbers}{self.counts[target]:9d}")
        lines.append("dB; of each track, the median over its frames of one second")
        return "\n".join(lines)

    def to_json(self, settings: Mapping[str, Any] | None = None) -> str:
        """Return all numbers as JSON, with null where there is none.

        Parameters
        ----------
        settings : mapping or None
            What is to stand beside the numbers, by which they came to be.
        """
        content = {
            "settings": dict(settings or {}),
            "frames": "median",
            "median": self.median,
            "mean": self.mean,
            "counts": self.counts,
            "tracks": self.tracks,
        }
        return json.dumps(_without_nan(content), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """Return a row for each stem over all tracks, with the columns aggregation, target, ..."""
        rows = [
            [aggregation, target, *_cells(row), self.counts[target]]
            for aggregation, table in (("median", self.median), ("mean", self.mean))
            for target, row in table.items()
        ]
        return _csv(["aggregation", "target", *METRICS, "tracks"], rows)

    def tracks_to_csv(self) -> str:
        """Return a row for each track and stem, with the columns track, target, SDR, ..."""
        rows = [
            [name, target, *_cells(row)]
            for name, track in self.tracks.items()
            for target, row in track.items()
        ]
        return _csv(["track", "target", *METRICS], rows)


def write_summary(
    summary: Summary, folder: Path, subset: str, settings: Mapping[str, Any]
) -> list[Path]:
    """Write the tables beside the folder with the scores of the tracks.

    Parameters
    ----------
    summary : Summary
        The numbers.
    folder : Path
        Folder in which the folder `subset` is. Programs that collect museval's files look into that
        one for JSON, so other files stay out of it.
    subset : str
        Beginning of the names.
    settings : mapping
        For the JSON.

    Returns
    -------
    list of Path
        The files.
    """
    contents = {
        "summary.json": summary.to_json(settings),
        "summary.csv": summary.to_csv(),
        "tracks.csv": summary.tracks_to_csv(),
    }
    paths = []
    for ending, text in contents.items():
        paths.append(folder / f"{subset}_{ending}")
        with atomic_write(paths[-1]) as file:
            # Names of tracks are those of folders, which need not be Unicode.
            file.write(text.encode(errors="surrogateescape"))
    return paths


def write_pandas(
    scores: Mapping[str, TrackScores], path: str | os.PathLike[str], method: str
) -> None:
    """Pickle all scores as the pandas data frame that Open-Unmix's evaluation writes.

    Parameters
    ----------
    scores : mapping of str to TrackScores
        By the names of the tracks.
    path : str or path-like
        The file, which `museval.MethodStore.load` reads; its folder is made if needed.
    method : str
        Name of the model, for the column of that name.

    Raises
    ------
    ConfigError
        If there is no pandas.
    """
    pandas = import_pandas()
    columns = ("time", "target", "metric", "score", "track", "method")
    rows = [
        (k * HOP, target, metric, score, name, method)
        for name, track in scores.items()
        # The order of museval's.
        for metric in ("SDR", "SAR", "ISR", "SIR")
        for target, values in track.targets.items()
        for k, score in enumerate(values[metric])
    ]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        pandas.DataFrame(rows, columns=list(columns)).to_pickle(file)


def import_pandas() -> Any:
    """Return the package pandas, or raise `ConfigError`."""
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise ConfigError(
            f'pandas is needed to write a data frame: pip install "umx-np[eval]" ({error})'
        ) from error


def _nan_mean(values: list[float]) -> float:
    numbers = np.asarray(values)[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else math.nan


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _cells(row: Mapping[str, float]) -> list[str]:
    return ["" if math.isnan(row[metric]) else f"{row[metric]:.5f}" for metric in METRICS]


def _csv(heading: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heading, *rows])
    return text.getvalue()


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None, and shorten sums of binary fractions."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 5)
    return value
