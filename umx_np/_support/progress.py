"""The `progress` argument of the public functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import printable

Progress = Callable[[float], None]


@contextmanager
def reporting(
    progress: bool | Progress | None, *, label: str | None = None, seconds: float | None = None
) -> Iterator[Progress | None]:
    """Turn the argument into a callable that takes the fraction that is done.

    Parameters
    ----------
    progress : bool, callable or None
        True draws a bar on a terminal; a callable is passed on.
    label : str or None
        Text before the bar.
    seconds : float or None
        Length of the audio, which the bar then counts in seconds.

    Yields
    ------
    callable or None
        Takes a number from 0 to 1.
    """
    if callable(progress):
        yield progress
        return
    if not progress or sys.stderr is None:  # None in programs without a console
        yield None
        return
    from tqdm import tqdm

    total = 1.0 if seconds is None else seconds
    count = "" if seconds is None else " {n:.0f}/{total:.0f} s"
    layout = "{desc}: {percentage:3.0f}%|{bar}|" + count + " [{elapsed}<{remaining}]"
    # `disable=None` draws no bar on anything but a terminal.
    label = None if label is None else printable(label)
    with tqdm(total=total, desc=label, disable=None, leave=False, bar_format=layout) as bar:

        def report(fraction: float) -> None:
            bar.update(min(fraction, 1.0) * total - bar.n)

        yield report
