"""The documents as a site: built without a warning, with a page for every public name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.documents import ROOT

from umx_np.commands import COMMANDS

pytest.importorskip("sphinx", reason="needs the extra 'docs'")
pytest.importorskip("furo")
sys.path.append(str(ROOT / "docs" / "_extensions"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build it from a copy, which is written to."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("generated"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", "site"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.mark.slow
def test_every_public_name_has_its_page(site):
    from pages import public_modules, public_names

    names = [
        (module.__name__, name) for module in public_modules() for name in public_names(module)
    ]
    assert ("umx_np", "separate") in names
    assert ("umx_np.plots", "plot_separation") in names
    for module, name in names:
        page = (site / "generated" / f"{module}.{name}.html").read_text(encoding="utf-8")
        assert f'id="{module}.{name}"' in page
    found = {path.stem for path in (site / "generated").glob("umx_np*.html")}
    assert found == {f"{module}.{name}" for module, name in names} | {module for module, _ in names}


@pytest.mark.slow
def test_every_command_has_its_page_with_its_options(site):
    for name, command in COMMANDS.items():
        page = (site / "generated" / f"command-{name}.html").read_text(encoding="utf-8")
        text = re.sub(r"<[^>]+>", "", page)
        for action in command.parser()._actions:
            for option in action.option_strings if action.dest != "help" else ():
                assert option in text, (name, option)


@pytest.mark.slow
def test_links_lead_somewhere(site):
    """To pages of the site, or to files of the repository, which are there."""
    source = r"https://github\.com/[\w-]+/[\w-]+/blob/main/([^#?]+)"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        for link in re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8")):
            if match := re.match(source, link):
                assert (ROOT / match[1]).exists(), (page.name, link)
            elif not re.match(r"\w+:|#|data:", link):
                target = re.split("[#?]", link)[0]
                assert (page.parent / target).exists(), (page.name, link)


def test_links_out_of_the_site_are_turned():
    from pages import turn_links

    app = SimpleNamespace(config=SimpleNamespace(source_address="S/"))
    text = ["[a](../README.md#b) [b](guide.md) [c](../.github/x.yml) [d](https://e.org) [e](#f)"]
    turn_links(app, "training", text)
    assert text == [
        "[a](S/README.md#b) [b](guide.md) [c](S/.github/x.yml) [d](https://e.org) [e](#f)"
    ]


def test_what_is_public_without_a_list():
    from pages import public_names

    import umx_np

    assert "AudioError" in public_names(umx_np.errors)
    assert "plot_separation" in public_names(umx_np.plots)
    assert "logger" not in public_names(umx_np.plots)
