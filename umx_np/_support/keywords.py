"""Keywords that many functions take and one record holds: written out once, in the record.

A function takes them as ``**options`` and shows them in its signature by `shows`; `check_keywords`
refuses others, and `pick` makes the record.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
Record = TypeVar("Record")


def shows(*kinds: type, hiding: Collection[str] = ()) -> Callable[[Function], Function]:
    """Decorate a function that takes the fields of records as keywords, for help and completion.

    Parameters
    ----------
    *kinds : type
        Dataclasses. What the function names itself is shown as it says.
    hiding : collection of str
        Fields that it does not take.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        shown = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        for kind in kinds:
            for field in fields(kind):
                if field.name not in hiding:
                    parameter = inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=field.default,
                        annotation=field.type,
                    )
                    shown.setdefault(field.name, parameter)
        function.__signature__ = signature.replace(parameters=list(shown.values()))  # type: ignore[attr-defined]
        return function

    return decorate


def check_keywords(
    function: str, options: Iterable[str], *kinds: type, hiding: Collection[str] = ()
) -> None:
    """Raise `TypeError`, as Python does, unless keywords are fields of records.

    Parameters
    ----------
    function : str
        Its name, for the message.
    options : iterable of str
        What was given.
    *kinds, hiding
        As for `shows`.
    """
    known = {field.name for kind in kinds for field in fields(kind)}.difference(hiding)
    for name in options:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def pick(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Make a record of those values that are its fields; the others are left alone."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: values[name] for name in names if name in values})
