"""Options that are written out once, in records, and are keywords of several functions."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import umx_np
from umx_np._support.keywords import check_keywords, pick, shows
from umx_np.config import Computing, SeparationOptions
from umx_np.evaluation import evaluate
from umx_np.evaluation.runner import Data, EvaluationKeywords, Results
from umx_np.separation.options import (
    ComputingKeywords,
    Excerpt,
    FileKeywords,
    OutputPlan,
    SeparationKeywords,
)
from umx_np.testing import random_bundle

EIGHT = ("niter", "softmask", "residual", "wiener_win_len", "filterbank")
EIGHT += ("device", "threads", "precision")


def names_of(*kinds: type) -> set[str]:
    return {field.name for kind in kinds for field in fields(kind)}


@shows(Excerpt, hiding=("start",))
def play(song: str, **options: Any) -> dict[str, Any]:
    check_keywords("play", options, Excerpt, hiding=("start",))
    return options


def test_a_signature_shows_the_fields():
    assert str(inspect.signature(play)).startswith("(song: 'str', *, duration: 'float | None'")
    assert play("x", duration=1.0) == {"duration": 1.0}
    for name in ("start", "durations"):
        with pytest.raises(TypeError, match=rf"play\(\) got an unexpected .* '{name}'"):
            play("x", **{name: 1.0})


def test_pick():
    assert pick(Excerpt, {"start": 2.0, "stop": 3.0}) == Excerpt(2.0)


def test_type_checkers_see_the_same_names():
    separation = names_of(SeparationOptions, Computing)
    assert set(ComputingKeywords.__annotations__) == names_of(Computing)
    assert set(SeparationKeywords.__annotations__) == separation == set(EIGHT)
    files = separation | names_of(Excerpt, OutputPlan) - {"outdir"}
    assert set(FileKeywords.__annotations__) == files
    here = set(EvaluationKeywords.__annotations__)
    assert here | {"wiener_win_len", "filterbank"} == separation | names_of(Data, Results)


@pytest.mark.parametrize(
    "function",
    [
        umx_np.separate,
        umx_np.separate_file,
        umx_np.Separator.from_bundle,
        umx_np.umx,
        umx_np.umxhq,
        umx_np.umxl,
        umx_np.umxm,
        umx_np.umxse,
    ],
)
def test_the_options_of_a_separation_and_their_defaults(function):
    shown = inspect.signature(function).parameters
    usual = {**vars(SeparationOptions()), **vars(Computing())}
    assert {name: shown[name].default for name in EIGHT} == usual
    assert not any(p.kind is p.VAR_KEYWORD for p in shown.values())


def test_an_option_that_there_is_not_is_refused(tmp_path):
    separator = umx_np.Separator.from_bundle(random_bundle("umxse", seed=0))
    calls = {
        "separate": lambda: umx_np.separate(np.zeros(10), separator=separator, nither=1),
        "separate_file": lambda: umx_np.separate_file("x.wav", separator=separator, nither=1),
        "from_bundle": lambda: umx_np.Separator.from_bundle(None, nither=1),
        "umxl": lambda: umx_np.umxl(nither=1),
        "evaluate": lambda: evaluate(tmp_path, nither=1),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected .* 'nither'"):
            call()
    with pytest.raises(TypeError, match="'filterbank'"):
        evaluate(tmp_path, filterbank="torch")
