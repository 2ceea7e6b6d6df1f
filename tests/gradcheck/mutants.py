"""Modules with one place of their source changed: the mistakes that a gradient check must find."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """Copy of a module with `old`, which must stand there exactly once, replaced by `new`."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
    copy = ModuleType(module.__name__)
    copy.__package__ = module.__package__
    copy.__file__ = module.__file__
    # Dataclasses and named tuples look their module up by name.
    code = compile(source.replace(old, new), f"<mutant of {module.__name__}>", "exec")
    with _registered(copy):
        exec(code, copy.__dict__)
    return copy


@contextmanager
def _registered(module: ModuleType) -> Iterator[None]:
    original = sys.modules[module.__name__]
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        sys.modules[module.__name__] = original
