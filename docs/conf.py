"""The documents as a site: ``python -m sphinx -W docs site``."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import umx_np

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))[
    "project"
]

project = "umx_np"
author = copyright = _project["authors"][0]["name"]
release = version = umx_np.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinxarg.ext",
    "pages",
]
exclude_patterns = ["_extensions"]
html_theme = "furo"
html_title = f"umx_np {release}"
html_show_sourcelink = False
# Options would become dashes.
smartquotes = False
# Where what is linked to lies outside of the site; the only place of the address is pyproject.toml.
source_address = _project["urls"]["Source"] + "/blob/main/"
rst_epilog = f".. _README: {source_address}README.md"

# In docstrings `name` is a name of Python, where there is one.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["dollarmath"]
# sphinx-argparse has no answer to links of any kind.
suppress_warnings = ["myst.domains"]
# Headings are linked to as on GitHub.
myst_heading_anchors = 4
