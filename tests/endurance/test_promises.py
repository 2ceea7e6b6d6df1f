"""What docs/promises.md names is there, and its figures are those that were found."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
from helpers.documents import ROOT, text_of

from . import records, scenarios

DOCUMENT = "docs/promises.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`")


def rows() -> list[str]:
    """Rows of promises, of the tables of promises and tests."""
    promises = text_of(DOCUMENT).partition("## Long runs")[0]
    lines = [line for line in promises.splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("|---", "| promise |"))]


@cache
def names_in(path: Path) -> set[str]:
    """Names of the tests of a file, those of classes as ``class::test``."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        functions = (item for item in inner if isinstance(item, ast.FunctionDef))
        found |= {prefix + item.name for item in functions if item.name.startswith("test")}
    return found


def test_every_promise_is_held_by_tests() -> None:
    assert len(rows()) > 20
    for row in rows():
        assert NAMED.search(row.split("|")[2]), row


@pytest.mark.parametrize("document", [DOCUMENT, "SECURITY.md"])
def test_tests_that_are_named_are_there(document: str) -> None:
    named = NAMED.findall(text_of(document))
    assert named
    for name, test in named:
        tests = names_in(ROOT / name)
        assert tests, name
        assert not test or test in tests, f"{name}::{test}"


def test_figures_are_those_that_were_found() -> None:
    text = text_of(DOCUMENT)
    assert text == records.with_table(text), "run python tests/endurance/records.py"


def test_nothing_is_disturbed_that_no_row_tells_of() -> None:
    assert {f"SIGKILL of {name}" for name in scenarios.NAMES} <= {*records.RUNS}


def test_a_result_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results.json")
    records.RESULTS.write_text("{}")
    monkeypatch.setenv("UMX_NP_LONG_SCALE", "0.1")
    assert records.scaled(200) == 20
    records.record("soak", "a tenth", seconds=1.0)
    assert records.read_results() == {}
    assert "| soak | not run yet |" in records.table()
    monkeypatch.delenv("UMX_NP_LONG_SCALE")
    records.record("soak", "all", seconds=3600.4)
    assert json.loads(records.RESULTS.read_text())["soak"]["seconds"] == 3600
    assert "| soak | all | 3,600 s | 20" in records.table()
