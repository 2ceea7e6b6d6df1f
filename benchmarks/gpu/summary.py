"""The short table at the end of a run, and what else is said of it in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.results import format_table, row_cells, rung_cells

from .record import BAD, NOT_RUN, PASSED, SKIPPED
from .supervise import first_line

# As the other benchmarks say it; JSON has no infinity.
_IDENTICAL_DB = 300.0
_WIDEST = 100
_SHOWN_VERSIONS = ("cupy", "torch", "cudnn")


def section_line(section: Mapping[str, Any]) -> str:
    """How one section went, on one line."""
    text = f"{section['name']}: {section['status']}, {section['seconds']:.0f} s"
    reason = first_line(section["reason"])
    return f"{text} ({_cut(reason)})" if reason else text


def agreements(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Relative errors as the signal-to-noise ratios that the other benchmarks tell."""
    found = []
    for check in checks:
        if check["unit"] != "relative error" or check["value"] is None:
            continue
        found.append(
            {
                "what": f"{check['section']}, {check['what']}",
                "snr_db": _decibels(check["value"]),
                "at_least_db": _decibels(check["bound"]),
            }
        )
    return found


def _decibels(error: float) -> float:
    if error <= 0.0:
        return _IDENTICAL_DB
    return round(min(-20.0 * math.log10(error), _IDENTICAL_DB), 1)


def table(document: Mapping[str, Any]) -> str:
    """Everything in short: card, sections, failures, comparisons, kernels.

    Parameters
    ----------
    document : mapping
        What is in the JSON file, complete or not.

    Returns
    -------
    str
        Some lines of text.
    """
    parts = [describe_card(document["environment"])]
    sections = document["sections"]
    if sections:
        rows = [
            [s["name"], s["status"], f"{s['seconds']:.0f} s", _checks(document, s)]
            for s in sections
        ]
        parts.append(format_table(["section", "status", "time", "checks"], rows))
    failures = [line for section in sections for line in _failures(section)]
    if failures:
        parts.append("\n".join(failures))
    if document["rows"]:
        header = ["figure", "umx_np", "compared with", "", "ratio"]
        parts.append(format_table(header, [row_cells(row) for row in document["rows"]]))
    rungs = [rung for rung in document["ladder"] if rung["brief"]]
    if rungs:
        header = ["kernel", "variant", "time", "rate", "share of ceiling"]
        cells = [rung_cells(rung) for rung in rungs]
        parts.append(format_table(header, [[*row[:2], *row[3:]] for row in cells]))
    parts.append(verdict(document))
    return "\n\n".join(parts)


def describe_card(environment: Mapping[str, Any]) -> str:
    """Card and versions on one line."""
    card = environment.get("card")
    if not card:
        return "no card"
    versions = environment.get("versions", {})
    shown = [
        f"{name} {versions[name]}" for name in ("cupy", "torch", "cudnn") if versions.get(name)
    ]
    return ", ".join(
        [card["name"], f"driver {card.get('driver') or 'unknown'}", f"CUDA {card['cuda']}", *shown]
    )


def verdict(document: Mapping[str, Any]) -> str:
    """The last line: how many checks there were and how many sections are not good."""
    checks, sections = document["checks"], document["sections"]
    failed = sum(not check["passed"] for check in checks)
    bad = [section["name"] for section in sections if section["status"] in BAD]
    left = [s["name"] for s in sections if s["status"] in (NOT_RUN, SKIPPED)]
    text = f"{len(checks)} checks, {failed} failed"
    if bad:
        text += f"; sections that failed: {', '.join(bad)}"
    if left:
        text += f"; left out: {', '.join(left)}"
    return text


def _checks(document: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    checks = [check for check in document["checks"] if check["section"] == section["name"]]
    if not checks:
        return ""
    return f"{sum(check['passed'] for check in checks)} of {len(checks)}"


def _failures(section: Mapping[str, Any]) -> list[str]:
    """A line for everything that did not pass, and why."""
    # One reason may concern many.
    reasons: dict[tuple[str, str], list[str]] = {}
    for case in section["cases"]:
        if case["status"] != PASSED:
            key = case["status"], _cut(first_line(case["reason"]))
            reasons.setdefault(key, []).append(case["name"])
    lines = []
    for (status, reason), names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{section['name']}, {names[0]}{more}: {status}: {reason}")
    lines += [f"{section['name']}: {_cut(first_line(note))}" for note in section["notes"]]
    if not lines and section["status"] != PASSED:
        reason = _cut(first_line(section["reason"]))
        lines.append(f"{section['name']}: {section['status']}: {reason}")
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."
