"""Options of commands: their types, which make a value of a text, and their names in messages."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence

from ..errors import ConfigError, shortened
from .inputs import parse_json


def positive_int(text: str) -> int:
    """Type of an option that counts something."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def natural(text: str) -> int:
    """Type of an option that counts something, and may be 0."""
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} must not be negative")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def json_object(text: str) -> dict[str, list[str]]:
    """Type of an option with names and lists."""
    try:
        return parse_json(text, "", ConfigError)
    except ConfigError as error:
        reason = str(error).removeprefix("path='' ")
        raise argparse.ArgumentTypeError(
            f"{shortened(text)} must be a JSON object of names and lists, but {reason}"
        ) from error


class Names(argparse.Action):
    """Several names, separated by spaces, commas or both: a list of text."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[str] | None,
        option_string: str | None = None,
    ) -> None:
        """Take the names of one use of the option apart."""
        words = [values] if isinstance(values, str) else values or []
        names = [name for word in words for name in word.split(",") if name]
        if not names:
            parser.error(f"argument {option_string}: {' '.join(words)!r} names nothing")
        setattr(namespace, self.dest, names)


def add_switch(group: argparse._ActionsContainer, *flags: str, help: str) -> None:
    """Add a switch that is off, and that ``--no-...`` puts off where a file of defaults has it."""
    group.add_argument(*flags, action=argparse.BooleanOptionalAction, default=False, help=help)


_VALUE = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\w+|\.\.\."""
_ARGUMENT = re.compile(rf"(?<![\w.\[])([a-z_]+)=({_VALUE})?")


def option_words(
    parser: argparse.ArgumentParser,
    renamed: Mapping[str, str] | None = None,
    origins: Mapping[str, str] | None = None,
) -> Callable[[str], str]:
    """Make the function that puts the options of a command into a message.

    Messages of the package name the arguments of its functions, as ``max_memory=1``; who has typed
    ``--max-memory 1`` is to read that.

    Parameters
    ----------
    parser : ArgumentParser
        Of the command.
    renamed : mapping of str to str
        Arguments whose option has another name.
    origins : mapping of str to str
        Of arguments that nobody typed, where they come from: ``in config.toml``.

    Returns
    -------
    callable
        Takes and returns a message.
    """
    actions = {action.dest: action for action in parser._actions if action.option_strings}
    names = {} if renamed is None else renamed
    origins = {} if origins is None else origins

    def translated(match: re.Match[str]) -> str:
        action, value = actions.get(names.get(match[1], match[1])), match[2] or ""
        if action is None:
            return match[0]
        option = next(word for word in action.option_strings if word.startswith("--"))
        origin = f" ({origins[action.dest]})" if action.dest in origins else ""
        if action.nargs == 0:  # a switch: what is on is said by its name alone
            return option + origin if value == "True" else match[0]
        text = value[1:-1] if value[:1] in ("'", '"') else None
        if action.choices is not None and text not in action.choices and value != "...":
            # Such an option cannot be wrong, so this is something else of the same name, like the
            # rate of a file.
            return match[0]
        return f"{option} {text if action.choices is not None and text else value}{origin}"

    return lambda message: _ARGUMENT.sub(translated, message)
