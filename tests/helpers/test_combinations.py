"""That a short run leaves out no pair of values."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from .combinations import covering


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 9, 2, 4), (3, 3, 3, 3, 3)], ids=str)
def test_every_pair_of_values_meets(sizes):
    cases = [dict(zip("abcde", values, strict=False)) for values in product(*map(range, sizes))]
    chosen = [cases[index] for index in covering(cases)]
    for one, other in combinations("abcde"[: len(sizes)], 2):
        met = {(case[one], case[other]) for case in chosen}
        assert met == {(case[one], case[other]) for case in cases}
    assert len(chosen) < len(cases)
    assert covering(cases) == covering(cases)


def test_two_parameters_are_all_combined():
    cases = [{"a": a, "b": b} for a in range(3) for b in range(4)]
    assert covering(cases) == set(range(12))


def test_what_has_no_pairs_is_left_to_the_caller():
    assert covering([]) == set()
    assert covering([{"a": 1}, {"a": 2}]) == set()
