"""The `progress` argument: bars on a terminal, callables, and silence."""

from __future__ import annotations

import re
import sys

import pytest
from helpers.terminal import open_terminal

from umx_np._support.progress import reporting


def drawn(lines):
    """Label, percentage and count of the bars that were drawn, each once."""
    bars = [re.fullmatch(r"(.*?) *(\d+)%\|.{10,}\|(.*) \[\d\d:\d\d<.+\]", x) for x in lines if x]
    assert all(bars), lines
    return list(dict.fromkeys(bar.groups() for bar in bars))


def test_a_bar_counts_seconds(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with reporting(True, label="song.wav", seconds=200.0) as report:
        for fraction in (0.25, 0.75, 1.5):
            report(fraction)
    expected = [(0, "0/200 s"), (25, "50/200 s"), (75, "150/200 s"), (100, "200/200 s")]
    assert drawn(terminal.lines) == [("song.wav:", str(p), f" {count}") for p, count in expected]
    # It goes away when it is done.
    assert terminal.lines[-2:] == ["", ""]
    assert "\n" not in terminal.getvalue()


def test_a_bar_of_what_has_no_length(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with reporting(True, label="reading") as report:
        report(0.5)
    assert drawn(terminal.lines) == [("reading:", "0", ""), ("reading:", "50", "")]


def test_a_bar_goes_away_after_an_error(monkeypatch):
    terminal = open_terminal(monkeypatch)

    def fail_half_way():
        with reporting(True, label="song.wav", seconds=10.0) as report:
            report(0.5)
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert drawn(terminal.lines)[-1] == ("song.wav:", "50", " 5/10 s")
    assert terminal.lines[-2:] == ["", ""]


@pytest.mark.parametrize("progress", [False, None])
def test_no_bar_is_asked_for(monkeypatch, progress):
    terminal = open_terminal(monkeypatch)
    with reporting(progress, label="song.wav", seconds=200.0) as report:
        assert report is None
    assert terminal.getvalue() == ""


def test_a_callable_is_passed_on(monkeypatch):
    terminal, seen = open_terminal(monkeypatch), []
    with reporting(seen.append, label="song.wav", seconds=200.0) as report:
        report(0.5)
    assert seen == [0.5]
    assert terminal.getvalue() == ""


def test_no_terminal(monkeypatch, capsys):
    with reporting(True, label="song.wav", seconds=200.0) as report:
        report(0.5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", None)
    with reporting(True, label="song.wav", seconds=200.0) as report:
        assert report is None
