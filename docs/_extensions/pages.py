"""Pages that are written when the site is built: one for each public name, command and notebook.

They lie in ``docs/generated`` and are not kept. Links that lead out of the site are turned to the
repository.
"""

from __future__ import annotations

import importlib
import inspect
import json
import posixpath
import re
import shutil
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

import umx_np
from umx_np.commands import COMMANDS

# A link to a file, with what follows ``#``.
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def public_modules() -> list[ModuleType]:
    """Modules whose names a user may use."""
    names = ["umx_np"] + [
        f"umx_np.{name}" for name in umx_np.__all__ if inspect.ismodule(getattr(umx_np, name))
    ]
    return [importlib.import_module(name) for name in names]


def public_names(module: ModuleType) -> list[str]:
    """Names of a module that are no modules; of one without ``__all__`` what it defines."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
    return sorted(name for name in names if not inspect.ismodule(getattr(module, name)))


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n\n"


def _contents(pages: list[str]) -> str:
    return ".. toctree::\n   :maxdepth: 1\n\n" + "".join(f"   {page}\n" for page in pages) + "\n"


def _page_of(module: ModuleType, name: str) -> str:
    value = getattr(module, name)
    full = f"{module.__name__}.{name}"
    text = _title(full)
    if isinstance(value, type) and not isinstance(value, GenericAlias):
        options = "   :members:\n   :inherited-members: object, Exception, tuple, dict\n"
        return text + f".. autoclass:: {full}\n{options}"
    if inspect.isroutine(value):
        return text + f".. autofunction:: {full}\n"
    return text + f".. py:data:: {full}\n\n   ::\n\n      {value!r}\n"


def write_reference(folder: Path) -> None:
    """Write a page for each public name, and one for each module that lists them."""
    pages = []
    for module in public_modules():
        names = public_names(module)
        for name in names:
            page = folder / f"{module.__name__}.{name}.rst"
            page.write_text(_page_of(module, name), encoding="utf-8")
        listed = _contents([f"{module.__name__}.{name}" for name in names])
        summary = f".. automodule:: {module.__name__}\n   :no-index:\n\n"
        page = folder / f"{module.__name__}.rst"
        page.write_text(_title(module.__name__) + summary + listed, encoding="utf-8")
        pages.append(module.__name__)
    (folder / "reference.rst").write_text(_title("Python") + _contents(pages), encoding="utf-8")


def write_commands(folder: Path) -> None:
    """Write a page for each command."""
    for name in COMMANDS:
        text = _title(f"umx-np {name}")
        text += ".. argparse::\n   :module: umx_np.commands\n   :func: build_parser\n"
        text += f"   :prog: umx-np\n   :path: {name}\n"
        (folder / f"command-{name}.rst").write_text(text, encoding="utf-8")
    pages = [f"command-{name}" for name in COMMANDS]
    (folder / "commands.rst").write_text(_title("Commands") + _contents(pages), encoding="utf-8")


def write_notebook(source: Path, target: Path) -> None:
    """Write a notebook as a document, without what its cells gave."""
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_pages(app: Any) -> None:
    """Write all of them anew."""
    docs = Path(app.srcdir)
    folder = docs / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_reference(folder)
    write_commands(folder)
    for source in sorted(docs.glob("*.ipynb")):
        write_notebook(source, folder / f"{source.stem}.md")


def turn_links(app: Any, name: str, source: list[str]) -> None:
    """Turn links out of the site to the repository, wherever the documents were copied from."""
    here = posixpath.join("docs", posixpath.dirname(name))

    def turned(match: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(here, match[1]))
        return match[0] if place.startswith("docs/") else app.config.source_address + place

    source[0] = _LINK.sub(turned, source[0])


def setup(app: Any) -> dict[str, Any]:
    """Have Sphinx call what is here."""
    app.add_config_value("source_address", "", "env")
    app.connect("builder-inited", write_pages)
    app.connect("source-read", turn_links)
    return {"parallel_read_safe": True}
