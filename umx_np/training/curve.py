"""A picture of the losses, where matplotlib is installed."""

from __future__ import annotations

import math
from pathlib import Path

from .. import plots
from .records import RunRecord

_UNITS = {
    "mse": "mean squared error",
    "log-mse": "mean squared error (dB)",
    "waveform": "error of the stems (dB)",
}


def draw_curve(record: RunRecord, target: str, path: Path, loss: str = "mse") -> None:
    """Draw the losses of all epochs as a PNG file.

    Parameters
    ----------
    record : RunRecord
        With the history.
    target : str
        For the title.
    path : Path
        File to write or replace.
    loss : {'mse', 'log-mse', 'waveform'}
        What the losses are.
    """
    figure = plots.new_figure(7.0, 4.0)
    axes = figure.add_subplot()
    epochs = range(1, record.epochs_trained + 1)
    marker = "." if record.epochs_trained < 50 else ""
    for label, losses in (
        ("training", record.train_loss_history),
        ("validation", record.valid_loss_history),
    ):
        axes.plot(epochs, losses, label=label, marker=marker)
    if record.best_epoch is not None and record.best_loss is not None:
        best = f"best: {record.best_loss:.4g} (epoch {record.best_epoch})"
        axes.plot([record.best_epoch], [record.best_loss], "o", mfc="none", mec="black", label=best)
    losses = [*record.train_loss_history, *record.valid_loss_history]
    if losses and all(loss > 0 for loss in losses if math.isfinite(loss)):
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel=_UNITS[loss], title=target)
    axes.grid(alpha=0.3)
    axes.legend()
    plots.save_figure(figure, path)
