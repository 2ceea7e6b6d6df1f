"""Box plots of scores, where matplotlib is installed."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ..plots import new_figure, save_figure
from .bss import METRICS
from .summary import Summary


def draw_boxes(summary: Summary, title: str, path: str | os.PathLike[str]) -> Path:
    """Draw how the tracks are spread around the median, as a PNG file.

    Parameters
    ----------
    summary : Summary
        The scores.
    title : str
        Text above.
    path : str or path-like
        File to write or replace.

    Returns
    -------
    Path
        The file.
    """
    targets = list(summary.median)
    figure = new_figure(2.0 + 2.2 * len(METRICS), 4.0)
    figure.suptitle(title, parse_math=False)  # models and stems may be called "$$"
    for axes, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        columns = [
            [track[target][metric] for track in summary.tracks.values() if target in track]
            for target in targets
        ]
        # A box of no numbers is an empty place.
        axes.boxplot([[value for value in column if not math.isnan(value)] for column in columns])
        places = range(1, len(targets) + 1)
        axes.set_xticks(places, targets, rotation=45, ha="right", parse_math=False)
        axes.set_title(metric)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("dB, medians of tracks")
    return save_figure(figure, path)
