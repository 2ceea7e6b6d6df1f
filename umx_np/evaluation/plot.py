"""Box plots of scores, where matplotlib is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..weights._files import atomic_write
from .bss import METRICS
from .summary import Summary


def check_available() -> None:
    """Raise `ConfigError` if nothing can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "--plot needs matplotlib; install it with: python -m pip install 'umx-np[plot]'"
        )


def draw_boxes(summary: Summary, title: str, path: str | os.PathLike[str]) -> None:
    """Draw how the tracks are spread around the median, as a PNG file.

    Parameters
    ----------
    summary : Summary
        The scores.
    title : str
        Text above.
    path : str or path-like
        File to write or replace.
    """
    # Imported by name, since it need not be installed. Figures made without pyplot need no display
    # and leave the caller's plots alone.
    figure_class = importlib.import_module("matplotlib.figure").Figure
    targets = list(summary.median)
    figure = figure_class(figsize=(2.0 + 2.2 * len(METRICS), 4.0), layout="constrained")
    figure.suptitle(title)
    for axes, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        columns = [
            [track[target][metric] for track in summary.tracks.values() if target in track]
            for target in targets
        ]
        # A box of no numbers is an empty place.
        columns = [[value for value in column if not np.isnan(value)] for column in columns]
        axes.boxplot(columns, widths=0.6, showfliers=True)
        axes.set_xticks(range(1, len(targets) + 1), targets, rotation=45, ha="right")
        axes.set_title(metric)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("dB, medians of tracks")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
