"""Which combinations of parameters a short run of the tests needs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations

Combination = Mapping[str, Hashable]


def covering(cases: Sequence[Combination]) -> set[int]:
    """Choose combinations so that every pair of values that meets in one of them meets in a chosen.

    Parameters
    ----------
    cases : sequence of mappings
        Values of the parameters, by name.

    Returns
    -------
    set of int
        Indices into `cases`, the same ones for the same cases; not always the fewest possible.
    """
    pairs = [_pairs(case.items()) for case in cases]
    left = set().union(*pairs)
    chosen: set[int] = set()
    # Those that bring the most that is new come first.
    for wanted in range(max(map(len, pairs), default=0), 0, -1):
        for index, own in enumerate(pairs):
            if left and len(own & left) >= wanted:
                chosen.add(index)
                left -= own
    return chosen


def _pairs(values: Iterable[tuple[str, Hashable]]) -> set[Hashable]:
    """Return all pairs of values."""
    return set(combinations(sorted(values), 2))
