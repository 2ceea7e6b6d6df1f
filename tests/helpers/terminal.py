"""A stand-in for a terminal."""

from __future__ import annotations

import io
import itertools
import sys

import pytest


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What has stood in the line that bars are drawn over, one after the other."""
        return [line.rstrip() for line in self.getvalue().split("\r")]


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let stderr be a terminal, on which bars are drawn at every step, a second after the last."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    seconds = itertools.count()
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(seconds)))
    return terminal
