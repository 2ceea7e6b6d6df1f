"""The file of the container: what it starts is the program, and what documents say of it works."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

from helpers.documents import ROOT, commands_in

from umx_np.commands import build_parser

TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
# Instructions, each in one line, without comments.
LINES = [
    line.split(maxsplit=1)
    for line in re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    if line
]


def values_of(instruction: str) -> list[str]:
    return [rest for name, rest in LINES if name == instruction]


def test_it_starts_the_program_as_no_administrator():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (entry,) = values_of("ENTRYPOINT")
    assert json.loads(entry)[0] in project["scripts"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values_of("USER")[-1])
    images = [image.split()[0] for image in values_of("FROM")]
    assert len(set(images)) == 1
    version = re.fullmatch(r"python:([\d.]+)-slim", images[0])[1]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_the_commands_in_its_head_are_those_of_the_guide():
    """And those of the program parse."""
    head = TEXT[: TEXT.index("FROM")].replace("#", "")
    shown = [" ".join(["docker", *words]) for _, words in commands_in("docs/guide.md", "docker")]
    assert len(shown) == 2
    for command in shown:
        words = shlex.split(command)
        assert all(word in head for word in words[1:])
    inside = words[words.index("umx-np") + 1 :]
    assert build_parser().parse_args(inside).input == ["song.mp3"]
