"""The documents of the repository: their examples, the commands they show, and their links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A virtual environment may lie beside them and has documents of its own.
FOLDERS = ("benchmarks", "docs", "examples", "recipes", "src_ext", "umx_np")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def documents() -> list[str]:
    """Names of all documents, from the root of the repository."""
    paths = [*ROOT.glob("*.md"), *(p for name in FOLDERS for p in (ROOT / name).rglob("*.md"))]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks_of(language: str | None, document: str) -> list[str]:
    """Fenced code blocks of a language, or all of them."""
    blocks = _FENCE.findall(text_of(document))
    return [block for name, block in blocks if language in (None, name)]


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """Commands of a shell script: the program as it is typed, and its arguments.

    Examples
    --------
    >>> commands_of("cd here && python -m this --option 'a b'  # why")
    [('cd', ['here']), ('python -m this', ['--option', 'a b'])]
    """
    commands: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        commands.append([])
        for word in words:
            if word in ("&&", "||", ";", "|", "&"):
                commands.append([])
            else:
                commands[-1].append(word)
    found = []
    for words in filter(None, commands):
        nb_words = 1 if words[0] != "python" else 3 if words[1] == "-m" else 2
        found.append((" ".join(words[:nb_words]), words[nb_words:]))
    return found


def section_of(document: str, heading: str) -> str:
    """Text below a heading of the second level, up to the next one."""
    _, _, rest = text_of(document).partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0]


def lines_of(language: str, text: str) -> list[str]:
    """Lines of the code blocks of a language, without comments and empty ones."""
    blocks = [block for name, block in _FENCE.findall(text) if name == language]
    lines = [line.partition("  #")[0].rstrip() for line in "".join(blocks).splitlines()]
    return [line for line in lines if line]


def commands_in(document: str, program: str | None = None) -> list[tuple[str, list[str]]]:
    """Commands that a document shows, those of one program only if it is named."""
    blocks = [block for name in ("sh", "bash") for block in blocks_of(name, document)]
    found = commands_of("".join(blocks))
    return [command for command in found if program in (None, command[0])]


def links_in(document: str) -> list[str]:
    """Where the links and pictures of a document lead to, but for other sites."""
    # In code, brackets and parentheses are something else.
    links = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text_of(document)))
    return [link for link in links if not re.match(r"\w+:", link)]


def anchors_of(document: str) -> set[str]:
    """What a link may name after ``#``: the headings, as GitHub spells them."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", text_of(document)), re.MULTILINE):
        title = re.sub(r"\]\([^)]*\)", "", heading)
        name = re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        number = 0
        anchor = name
        while anchor in anchors:
            number += 1
            anchor = f"{name}-{number}"
        anchors.add(anchor)
    return anchors
