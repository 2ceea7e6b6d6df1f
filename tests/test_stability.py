"""What is promised to stay is what there is: see docs/stability.md."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import public_api
from helpers.documents import text_of
from helpers.public_api import ADVICE, FILE, collect, render, split_document

LISTED = json.loads(FILE.read_text(encoding="utf-8"))


def differences(listed: Any, there: Any, path: str = "") -> Iterator[str]:
    """Name what is in one tree and not in the other."""
    if isinstance(listed, dict) and isinstance(there, dict):
        for key in sorted({*listed, *there}):
            inner = f"{path}/{key}"
            if key not in there:
                yield f"{inner} is listed and gone"
            elif key not in listed:
                yield f"{inner} is new"
            else:
                yield from differences(listed[key], there[key], inner)
    elif listed != there:
        yield f"{path} was {listed} and is {there}"


@pytest.fixture(scope="module")
def there() -> dict[str, Any]:
    return json.loads(json.dumps(collect()))


@pytest.mark.parametrize("part", ["names", "commands", "variables", "formats"])
def test_what_is_listed_is_what_there_is(there: dict[str, Any], part: str) -> None:
    changed = list(differences(LISTED[part], there[part], part))
    assert not changed, f"{changed}: {ADVICE}"


def test_the_document_has_the_list() -> None:
    _, lists, _ = split_document(text_of("docs/stability.md"))
    assert lists.strip() == render(LISTED), ADVICE


def test_changes_are_seen() -> None:
    for path, change in (
        (("names", "umx_np"), {"separate": "(audio)"}),
        (("names", "umx_np", "Separator", "members"), {"stream": "()"}),
        (("commands",), {"separate": []}),
        (("formats", "<target>.chkpnt"), {"version": 0}),
        (("formats", "record of stems", "keys"), {"source": []}),
    ):
        changed = copy.deepcopy(LISTED)
        inner = changed
        for key in path:
            inner = inner[key]
        inner.update(change)
        assert len(list(differences(LISTED, changed))) == 1, path


def test_every_format_with_a_version_says_so() -> None:
    """Of those that are ours; Open-Unmix's and museval's have none or their own."""
    versions = {name for name, value in LISTED["formats"].items() if "version" in value}
    table = text_of("docs/stability.md").split("## Files")[1].split("## The lists")[0]
    for name in versions:
        word = name.split(" ")[0] if name.startswith("<") else name.split(" --")[0]
        assert word in table, name
    assert {"record of stems", "<target>.chkpnt", "<target>.safetensors"} <= versions


def test_the_list_is_made_of_public_names_only() -> None:
    for module, names in LISTED["names"].items():
        assert all(not name.startswith("_") or name == "__version__" for name in names), module
    assert set(LISTED["names"]) == set(public_api.public_modules())
