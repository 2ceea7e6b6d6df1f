"""What a package says of itself: its description, links, versions."""

from __future__ import annotations

import re
import runpy
import tomllib
from datetime import date

import pytest
from helpers.documents import ROOT, documents, text_of

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
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)?]+)", description)
    assert len(links) > 20
    raw = SOURCE.replace("github.com", "raw.githubusercontent.com") + "/main/"
    for picture, link in links:
        assert link.startswith(("https://", "#")), link
        for start in (raw, f"{SOURCE}/blob/main/"):
            if link.startswith(start):
                assert bool(picture) == (start == raw)
                assert (ROOT / link.removeprefix(start).partition("#")[0]).exists(), link


def test_pictures_are_of_kinds_that_are_shown(description):
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", description)
    assert len(pictures) >= 2
    for picture in pictures:
        assert picture.endswith((".png", ".svg?sanitize=true")), picture


def test_anchors_within_the_description(description):
    headings = re.findall(r"^#+ (.+)$", description, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", description):
        assert anchor in anchors


def test_urls_have_one_source():
    assert all(url.startswith(SOURCE) for url in PROJECT["urls"].values())
    assert f"repository-code: {SOURCE}\n" in text_of("CITATION.cff")
    own = re.compile(re.escape(SOURCE.rpartition("/")[0]))
    for name in (*documents(), "SECURITY.md", "setup.py"):
        assert not own.search(text_of(name)), name


def released(changelog: str, version: str) -> str | None:
    """Return the date of a version in the changelog, None if it is not released."""
    found = re.search(rf"^## \[{re.escape(version)}\] - (\S+)$", changelog, re.MULTILINE)
    return None if found is None else found[1]


def test_citation_is_of_this_version():
    values = dict(re.findall(r"^([a-z-]+): (.+)$", text_of("CITATION.cff"), re.MULTILINE))
    assert values["version"] == umx_np.__version__
    # The code; a wheel holds the example song too, which has a licence of its own.
    assert PROJECT["license"].split(" AND ")[0] == values["license"]
    assert values["abstract"] == PROJECT["description"]
    day = date.fromisoformat(values["date-released"])
    changelog = text_of("CHANGELOG.md")
    # Of a version that is not released yet, the day is the one that is planned.
    assert released(changelog, umx_np.__version__) in (None, day.isoformat())
    assert released("## [1.2.3] - 2026-01-31\n", "1.2.3") == "2026-01-31"
    assert "## [Unreleased]" in changelog or released(changelog, umx_np.__version__)


def test_all_that_is_shipped_has_a_licence():
    patterns = PROJECT["license-files"]
    covered = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert ROOT / "LICENSE" in covered
    models = [folder for folder in (ROOT / "umx_np" / "assets").iterdir() if folder.is_dir()]
    assert len(models) >= 1
    for folder in models:
        about = folder / "ATTRIBUTION.md"
        assert about in covered, folder
        assert re.search(r"\blicen[cs]e\b", about.read_text(encoding="utf-8"))
    # What is data and not ours would have to be in one of these folders.
    data = tomllib.loads(text_of("pyproject.toml"))["tool"]["setuptools"]["package-data"]["umx_np"]
    kinds = {pattern.rpartition(".")[2] for pattern in data if not pattern.startswith("assets/")}
    assert kinds <= {"typed", "pyi", "json", "cu", "cuh", "md", "html", "js", "css", "svg", "ogg"}
    # The example song, which the build puts there.
    assert [pattern for pattern in data if pattern.endswith(".ogg")] == ["serve/example.ogg"]
    example = ROOT / "examples" / "README.md"
    assert example in covered
    assert "CC BY 4.0" in example.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bug", "wish"])
def test_issue_forms(name):
    """They are YAML of a few plain forms, of which one asks for what is always asked for."""
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml"
    if not path.exists():
        pytest.skip("a source archive has no forms")
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^name: .+\ndescription: .+\nbody:\n", text)
    assert "required: true" in text
    if name == "bug":
        field = text.split("id: info\n")[1].split("- type:")[0]
        assert "label: umx-np info --json\n" in field
        assert "required: true" in field
        assert "--json" in {
            flag for a in info.COMMAND.parser()._actions for flag in a.option_strings
        }


def test_security_says_how_to_report():
    text = text_of("SECURITY.md")
    assert "Report a vulnerability" in text
    for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file(), path


def test_info_names_what_is_installed_with_it():
    required = {re.match(r"[\w-]+", text)[0].replace("-", "_") for text in PROJECT["dependencies"]}
    assert {name.replace("-", "_") for name in info._REQUIRED} == required
