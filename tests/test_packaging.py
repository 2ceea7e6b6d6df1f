"""What a package says of itself: its description, links, versions."""

from __future__ import annotations

import re
import runpy
import tomllib

import pytest
from helpers.documents import ROOT

import umx_np
from umx_np.commands import info

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]


@pytest.fixture(scope="module")
def description():
    """The README as PyPI shows it."""
    setuptools = pytest.importorskip("setuptools")
    pytest.importorskip("Cython")
    kept: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **options: kept.update(options))
        patch.setattr("Cython.Build.cythonize", lambda extensions, **options: extensions)
        runpy.run_path(str(ROOT / "setup.py"))
    return kept["long_description"]


def test_every_link_is_absolute_and_leads_to_a_file(description):
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", description)
    assert len(links) > 20
    raw = SOURCE.replace("github.com", "raw.githubusercontent.com") + "/main/"
    for picture, link in links:
        assert link.startswith(("https://", "#")), link
        for start in (raw, f"{SOURCE}/blob/main/"):
            if link.startswith(start):
                assert bool(picture) == (start == raw)
                assert (ROOT / link.removeprefix(start).partition("#")[0]).exists(), link


def test_urls_have_one_source():
    assert all(url.startswith(SOURCE) for url in PROJECT["urls"].values())
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"repository-code: {SOURCE}\n" in citation
    assert f"version: {umx_np.__version__}\n" in citation


def test_info_names_what_is_installed_with_it():
    required = {re.match(r"[\w-]+", text)[0].replace("-", "_") for text in PROJECT["dependencies"]}
    assert {name.replace("-", "_") for name in info._REQUIRED} == required
