"""Sources of the kernels: found, put together from their includes, and named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "sources"

Defines = Mapping[str, "int | float | str"]

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PARENTHESES = r"\s*\((?:[^()]|\([^()]*\))*\)"
_ATTRIBUTE = re.compile(rf"__global__|__launch_bounds__{_PARENTHESES}")
_KERNEL = re.compile(r'extern\s+"C"\s+([^{};]*)\{')
_THREADS = re.compile(r"__launch_bounds__\s*\(((?:[^(),]|\([^()]*\))*)")


@cache
def read_source(name: str) -> str:
    """Return a source with every ``#include "..."`` replaced by the text of that file.

    Parameters
    ----------
    name : str
        File name below ``sources``.

    Returns
    -------
    str
        One text, so that caches keyed by text notice a change of any file. Each file occurs once;
        ``#line`` directives keep the places in messages.
    """
    seen: set[str] = set()

    def expand(file: str) -> str:
        seen.add(file)
        text = (SOURCES / file).read_text(encoding="utf-8").replace("#pragma once", "")

        def included(match: re.Match[str]) -> str:
            line = text.count("\n", 0, match.start()) + 2
            inner = "" if match[1] in seen else expand(match[1])
            return f'{inner}\n#line {line} "{file}"'

        return f'#line 1 "{file}"\n' + _INCLUDE.sub(included, text)

    return expand(name)


def kernels(source: str) -> dict[str, str]:
    """Find the kernels of a source: by name, the most threads of a block in the words of C."""
    found = {}
    for match in _KERNEL.finditer(_COMMENT.sub("", source)):
        name = re.match(r"\s*void\s+(\w+)\s*\(", _ATTRIBUTE.sub("", match[1]))
        if name and "__global__" in match[1]:
            threads = _THREADS.search(match[1])
            found[name[1]] = threads[1] if threads else "1024"
    return found


def options(defines: Defines) -> tuple[str, ...]:
    """Options of the compiler for some definitions, in a fixed order.

    A float becomes a C literal of type double.
    """
    return ("-std=c++17", *(f"-D{name}={defines[name]!s}" for name in sorted(defines)))
