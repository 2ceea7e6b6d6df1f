"""Defaults of the user: from the environment, and from a file in the folder for configuration.

The command line goes before the environment, the environment before the file, and the file before
what is built in. The file is TOML, with a table for each command and the options in it by their
long names::

    [separate]
    model = "umxhq"
    outdir = "~/stems"
    skip-existing = true
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .._support.folders import user_config
from ..errors import ConfigError, shortened
from .frame import PROGRAM, Command

# Commands whose options may have defaults of the user; those of a training are kept by its run.
CONFIGURABLE = ("separate", "evaluate", "download")
# Variables that stand for an option.
VARIABLES = {"UMX_NP_MODEL": "model"}

_MAX_BYTES = 1 << 20
# Of two options that contradict each other, who types one does not mean a default of the other.
_CONTRADICTIONS = (
    {"two_stems", "residual"},
    {"two_stems", "aggregate"},
    {"device", "no_cuda"},
    {"estimates", "model"},
    {"estimates", "targets"},
    {"reproduce", "model"},
    {"reproduce", "targets"},
    {"reproduce", "estimates"},
    {"reproduce", "niter"},
    {"reproduce", "wiener_win_len"},
    {"reproduce", "softmask"},
    {"reproduce", "residual"},
    {"reproduce", "aggregate"},
    {"reproduce", "precision"},
    {"reproduce", "subset"},
)
_BESIDE = "{dir}"


class _Refused(Exception):  # noqa: N818 - what a parser says instead of ending the program
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


def apply_defaults(
    parser: argparse.ArgumentParser, command: Command, words: Sequence[str]
) -> dict[str, str]:
    """Make the user's defaults those of a parser.

    Parameters
    ----------
    parser : ArgumentParser
        Of the command.
    command : Command
        The command.
    words : sequence of str
        What was typed after its name.

    Returns
    -------
    dict of str to str
        Of each option that has such a default, by the name of its value, where that comes from.

    Raises
    ------
    ConfigError
        If the file cannot be read, or something in it cannot be a default; the message names the
        file and the key.
    """
    if command.name not in CONFIGURABLE or {"-h", "--help"}.intersection(words):
        return {}
    values, origins = {}, {}
    path, _ = user_config()
    for key, value in read_defaults().get(command.name, {}).items():
        dest, value = _checked(command, key, value, path)
        values[dest], origins[dest] = value, f"in {path}"
    dests = {action.dest for action in parser._actions}
    for name, dest in VARIABLES.items():
        if os.environ.get(name) and dest in dests and command.name != "train":
            values[dest], origins[dest] = os.environ[name], f"of {name}"
    if not values:
        return {}
    for dest in _overruled(values, _typed(parser, words)):
        del values[dest], origins[dest]
    parser.set_defaults(**values)
    return origins


def read_defaults() -> dict[str, dict[str, Any]]:
    """Read the file of defaults.

    Returns
    -------
    dict of str to dict
        Options by command; empty if there is no such file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or has other tables than those of commands.
    """
    import tomllib

    from .._support.inputs import open_input

    path, named = user_config()
    if path is None or not (named or os.path.lexists(path)):
        return {}
    try:
        with open_input(path, ConfigError) as (file, size):
            if size > _MAX_BYTES:
                raise ConfigError(f"path={str(path)!r} has {size} bytes; defaults are a few lines")
            document = tomllib.loads(file.read().decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no valid TOML: {shortened(str(error))[1:-1]}") from error
    except ConfigError as error:
        hint = "; UMX_NP_CONFIG names it" if named else ""
        raise ConfigError(f"the file of defaults, {error}{hint}") from error
    for name, table in document.items():
        if name not in CONFIGURABLE or not isinstance(table, dict):
            raise ConfigError(
                f"{path}: {shortened(name)} must be a table of one of the commands "
                f"{', '.join(CONFIGURABLE)}, like [separate]"
            )
    return document


def check_defaults() -> dict[str, dict[str, Any]]:
    """Read the file of defaults, and look at each of them.

    Returns
    -------
    dict of str to dict
        As `read_defaults`.

    Raises
    ------
    ConfigError
        As `apply_defaults`.
    """
    from . import COMMANDS

    path, _ = user_config()
    defaults = read_defaults()
    for name, table in defaults.items():
        for key, value in table.items():
            _checked(COMMANDS[name], key, value, path)
    return defaults


def _checked(command: Command, key: str, value: object, path: Path | None) -> tuple[str, Any]:
    """Return the name and value of an option as the parser has them."""
    strict: argparse.ArgumentParser = _Parser(prog=PROGRAM)
    parser = command.add_to(strict.add_subparsers())
    place = f"{path}: [{command.name}] {key}"
    action = next((a for a in parser._actions if f"--{key}" in a.option_strings), None)
    is_switch = isinstance(action, argparse.BooleanOptionalAction)
    if action is None or (action.nargs == 0 and not is_switch) or key.startswith("no-"):
        known = ", ".join(sorted(_keys(parser)))
        raise ConfigError(f"{place} is no option that can have a default; these are {known}")
    flag = f"--{key}"
    if is_switch:
        if not isinstance(value, bool):
            raise ConfigError(f"{place} = {shortened(value)} must be true or false")
        words = [flag if value else f"--no-{key}"]
    elif isinstance(value, dict):
        words = [f"{flag}={json.dumps(value)}"]
    elif isinstance(value, list) and action.nargs == "+":
        words = [flag, ",".join(map(str, value))]
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        words = [f"{flag}={value}"]
    else:
        raise ConfigError(f"{place} = {shortened(value)} must be text or a number")
    try:
        given, _ = parser.parse_known_args(words)
    except _Refused as refused:
        reason = str(refused).partition(": ")[2] or str(refused)
        raise ConfigError(f"{place} = {shortened(value)}: {reason}") from refused
    return action.dest, getattr(given, action.dest)


def _keys(parser: argparse.ArgumentParser) -> Iterable[str]:
    for action in parser._actions:
        if action.nargs != 0 or isinstance(action, argparse.BooleanOptionalAction):
            names = [word for word in action.option_strings if word.startswith("--")]
            yield from (name.removeprefix("--") for name in names[:1])


def _typed(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """Options that are on a command line, and their values."""
    unset = object()
    blank = argparse.Namespace(**{action.dest: unset for action in parser._actions})
    given, _ = parser.parse_known_args(list(words), blank)
    return {dest: value for dest, value in vars(given).items() if value is not unset}


def _overruled(values: dict[str, Any], typed: dict[str, Any]) -> set[str]:
    """Defaults that what was typed leaves no room for."""
    overruled = set(values).intersection(typed)
    for pair in _CONTRADICTIONS:
        if pair & set(typed):
            overruled |= pair & set(values)
    if typed.get("outdir") == "-":
        overruled |= {"filename", "skip_existing", "json"} & set(values)
    if "outdir" in typed and str(values.get("filename")).startswith(_BESIDE):
        overruled.add("filename")
    if "outdir" in values and str(typed.get("filename")).startswith(_BESIDE):
        overruled.add("outdir")
    return overruled
