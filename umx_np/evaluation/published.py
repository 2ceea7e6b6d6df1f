"""The scores that Open-Unmix's authors publish of their models, and ours beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import ConfigError
from .bss import METRICS
from .runner import Evaluation
from .summary import Table

_SDR_SOURCE = (
    'README of Open-Unmix for PyTorch 1.3.0, "Scores (Median of frames, Median of tracks)"'
)
_OTHERS_SOURCE = f"{_SDR_SOURCE}; SIR, ISR and SAR from that of its first version"
# Songs of the test set of MUSDB18. Of its free excerpts, none is longer than seven seconds.
NB_TRACKS = 50
_EXCERPT = 30
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Published:
    """Scores of a model on MUSDB18.

    Attributes
    ----------
    model : str
        Its name.
    scores : mapping of str to mapping of str to float
        Stem and metric to the median over the frames and then the tracks, in dB.
    source : str
        Where they stand.
    """

    model: str
    scores: Mapping[str, Mapping[str, float]]
    source: str


def _published(model: str, source: str, **rows: tuple[float, ...]) -> Published:
    """Make a table of rows in the order of `METRICS`, of which the last may be left out."""
    return Published(
        model,
        MappingProxyType(
            {
                stem: MappingProxyType(dict(zip(METRICS, row, strict=False)))
                for stem, row in rows.items()
            }
        ),
        source,
    )


PUBLISHED = MappingProxyType(
    {
        "umx": _published(
            "umx",
            _OTHERS_SOURCE,
            vocals=(6.32, 13.33, 11.93, 6.52),
            drums=(5.73, 11.12, 10.51, 6.02),
            bass=(5.23, 10.93, 9.23, 6.34),
            other=(4.02, 6.59, 9.31, 4.74),
        ),
        "umxhq": _published(
            "umxhq",
            _OTHERS_SOURCE,
            vocals=(6.25, 12.95, 12.70, 6.50),
            drums=(6.04, 11.65, 11.17, 5.93),
            bass=(5.07, 10.35, 9.71, 6.02),
            other=(4.28, 7.10, 8.78, 4.62),
        ),
        "umxl": _published(
            "umxl", _SDR_SOURCE, vocals=(7.21,), drums=(7.15,), bass=(6.02,), other=(4.89,)
        ),
    }
)


def published_scores(model: str) -> Published:
    """Return the published scores of a model.

    Parameters
    ----------
    model : str
        Its name.

    Raises
    ------
    ConfigError
        If there are none; the message names the models that have some.
    """
    try:
        return PUBLISHED[model]
    except KeyError:
        raise ConfigError(
            f"reproduce={model!r}: scores are published of {', '.join(PUBLISHED)}"
        ) from None


@dataclass(frozen=True)
class Reproduction:
    """Published scores and ours.

    Attributes
    ----------
    published : Published
        Theirs.
    ours : dict of str to dict of str to float
        The medians of an evaluation, of the same stems and metrics.
    reservations : tuple of str
        Why the two are not of the same thing; empty if they are.
    """

    published: Published
    ours: Table
    reservations: tuple[str, ...]

    @classmethod
    def of(cls, result: Evaluation, model: str) -> Reproduction:
        """Put the result of an evaluation beside what is published of a model.

        Raises
        ------
        ConfigError
            If nothing is published of it.
        """
        published = published_scores(model)
        medians = result.summary().median
        ours = {
            stem: {metric: medians.get(stem, {}).get(metric, math.nan) for metric in row}
            for stem, row in published.scores.items()
        }
        return cls(published, ours, tuple(_reservations(result)))

    def rows(self) -> list[list[str]]:
        """Return a table: stem, metric, published, ours and the difference."""
        rows = [["stem", "metric", "published", "here", "difference"]]
        for stem, row in self.published.scores.items():
            for metric, value in row.items():
                here = self.ours[stem][metric]
                shown = ["-", "-"] if math.isnan(here) else [f"{here:.2f}", f"{here - value:+.2f}"]
                rows.append([stem, metric, f"{value:.2f}", *shown])
        return rows

    def to_json(self) -> str:
        """Return all of it as JSON, with null where there is no number."""
        ours = {
            stem: {metric: None if math.isnan(v) else v for metric, v in row.items()}
            for stem, row in self.ours.items()
        }
        content: dict[str, Any] = {
            "format": "umx_np reproduction",
            "format_version": FORMAT_VERSION,
            "model": self.published.model,
            "source": self.published.source,
            "published": {stem: dict(row) for stem, row in self.published.scores.items()},
            "here": ours,
            "comparable": not self.reservations,
            "reservations": list(self.reservations),
        }
        return json.dumps(content, indent=2, allow_nan=False)


def _reservations(result: Evaluation) -> list[str]:
    """Say what was scored that the published scores are not of."""
    found = []
    if result.failed:
        found.append(f"{len(result.failed)} tracks have no scores")
    if len(result.scores) != NB_TRACKS:
        found.append(
            f"{len(result.scores)} tracks were scored, and the test set of MUSDB18 has {NB_TRACKS}"
        )
    seconds = [
        len(values[METRICS[0]])
        for track in result.scores.values()
        for values in track.targets.values()
    ]
    if max(seconds, default=0) < _EXCERPT:
        found.append(f"no track is longer than {max(seconds, default=0)} s: these are excerpts")
    if result.settings.get("dataset") != "musdb":
        found.append(
            "the songs are not the compressed ones (.stem.mp4) of which scores are published"
        )
    return found
