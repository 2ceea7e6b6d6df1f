"""The console of a run: bars on a terminal, and a line for each epoch in the log."""

from __future__ import annotations

import time
from typing import Any

from .records import EpochReport


class Stopwatch:
    """Adds up the time spent in ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self._start


class BatchBar:
    """A bar over the batches of an epoch, with loss, throughput and the share of waiting.

    Parameters
    ----------
    label : str
        Text before the bar.
    total, done : int
        Batches of the epoch, and those that were done before.
    shown : bool
        Whether there is a bar at all; there is none on anything but a terminal.
    """

    def __init__(self, label: str, total: int, done: int = 0, *, shown: bool) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(
            desc=label,
            total=total,
            initial=done,
            unit="batch",
            leave=False,
            disable=None if shown else True,
        )

    def update(self, **values: str) -> None:
        """Count a batch and show some values."""
        self._bar.set_postfix(values, refresh=False)
        self._bar.update()

    def __enter__(self) -> BatchBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def epoch_line(report: EpochReport, epochs: int, best_loss: float | None) -> str:
    """One line about an epoch."""
    best = "best so far" if report.is_best else f"best {_number(best_loss)}"
    return (
        f"epoch {report.epoch}/{epochs}: training loss {_number(report.train_loss)}, validation "
        f"loss {_number(report.valid_loss)} ({best}), lr {report.lr:.2g}, "
        f"{report.seconds:.3g} s, {report.samples_per_second:.3g} excerpts/s, "
        f"{100.0 * report.wait_share:.1f} % waiting for data"
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.5g}"
