"""Results of a benchmark: tables to read, JSON to keep, one number for machines."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .agreement import BenchmarkError
from .environment import environment
from .load import others_share, snapshot
from .timing import Timing

SCHEMA = 1
# More than this of the machine in other hands, and times are not to be trusted: programs whose
# threads wait for each other suffer most.
_DISTURBED = 0.05
_ABSENT = "-"


def parser(
    description: str | None, *, repeats: int = 5, threads: int = 2
) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has.

    Parameters
    ----------
    description : str or None
        The docstring of the script.
    repeats, threads : int
        Defaults.
    """
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--threads", type=positive, default=threads, help="(default: %(default)s)")
    result.add_argument(
        "--repeats", type=positive, default=repeats, help="timed rounds (default: %(default)s)"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    return result


def model_parser(
    description: str | None, models: Sequence[str], *, repeats: int = 5
) -> argparse.ArgumentParser:
    """Return a `parser` for what is done with a model of random weights, one of `models`."""
    result = parser(description, repeats=repeats)
    result.add_argument("--model", choices=models, default=models[0])
    result.add_argument(
        "--precision", choices=("full", "fast", "int8"), default="full", help="(default: full)"
    )
    result.add_argument("--seconds", type=float, default=30.0, help="length (default: 30)")
    result.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    return result


def positive(text: str) -> int:
    """Argument type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def run(main: Callable[[], None]) -> int:
    """Call a benchmark; return its exit status.

    A benchmark that cannot be trusted, for instance because outputs differ, says so on one line and
    returns 1.
    """
    try:
        main()
    except BenchmarkError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass
class Report:
    """Results of one run of a benchmark.

    Attributes
    ----------
    benchmark : str
        Name of the script.
    threads : int
        Threads used.
    settings : dict
        All options that change a number.
    rows : list of dict
        Comparisons, from `add_row`, for the tables.
    ladder : list of dict
        Rungs of a kernel, from `add_rung`.
    agreements : list of dict
        From `agreement.require`.
    timings : dict of str to dict
        All durations.
    details : dict
        Whatever else is worth keeping.
    """

    benchmark: str
    threads: int
    settings: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    ladder: list[dict[str, Any]] = field(default_factory=list)
    agreements: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Before the work begins, so that the load is that of others.
        self.environment = self.environment or environment(self.threads)
        self._begin = snapshot()

    def add_timings(self, timings: Mapping[str, Timing], prefix: str = "") -> None:
        """Keep all repeats of all cases."""
        self.timings.update({prefix + name: t.as_dict() for name, t in timings.items()})

    def add_row(
        self,
        figure: str,
        unit: str,
        ours: Timing | float,
        *,
        peer: str | None = None,
        theirs: Timing | float | None = None,
        headline: bool = False,
        ratio: bool = True,
        brief: bool = True,
    ) -> None:
        """Add one comparison.

        Parameters
        ----------
        figure : str
            What was measured.
        unit : str
            ``'s'``, ``'ms'`` or ``'MB'``; a `Timing` is converted.
        ours, theirs : Timing or float or None
            The less, the better.
        peer : str or None
            With what it is compared.
        headline : bool
            Whether the ratio counts for the last line of the output.
        ratio : bool
            False where a ratio would mean nothing.
        brief : bool
            Whether the row belongs in the short table of the project's README.
        """
        mine, other = _spread(ours, unit), _spread(theirs, unit)
        known = ratio and other is not None and mine is not None and mine["median"] > 0
        self.rows.append(
            {
                "figure": figure,
                "unit": unit,
                "ours": mine,
                "peer": peer,
                "theirs": other,
                "ratio": other["median"] / mine["median"] if known else None,
                "headline": headline,
                "brief": brief,
            }
        )

    def add_rung(
        self,
        kernel: str,
        variant: str,
        threads: int,
        time: float,
        *,
        rate: float,
        unit: str,
        ceiling: float | None,
        time_unit: str = "ms",
        chosen: bool = False,
    ) -> None:
        """Add one rung of a ladder.

        Parameters
        ----------
        kernel : str
            Operation and size.
        variant : str
            Instruction-set level, or the name of a peer.
        threads : int
            Threads used for it.
        time : float
            In `time_unit`.
        rate, unit : float, str
            Achieved GFLOP/s or GB/s.
        ceiling : float or None
            Measured ceiling of `rate`.
        time_unit : str
            Unit of `time`.
        chosen : bool
            Whether it is what umx_np uses on this machine unless told otherwise.
        """
        self.ladder.append(
            {
                "kernel": kernel,
                "variant": variant,
                "threads": threads,
                "time": time,
                "time_unit": time_unit,
                "rate": rate,
                "unit": unit,
                "ceiling": ceiling,
                "share": rate / ceiling if ceiling else None,
                "chosen": chosen,
            }
        )

    @property
    def ratio(self) -> float | None:
        """Smallest ratio of the headlines: that against the best peer."""
        ratios = [row["ratio"] for row in self.rows if row["headline"] and row["ratio"]]
        return min(ratios, default=None)

    @property
    def share(self) -> float | None:
        """Smallest share of the ceiling among the chosen rungs."""
        shares = [rung["share"] for rung in self.ladder if rung["chosen"] and rung["share"]]
        return min(shares, default=None)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        return {
            "schema": SCHEMA,
            "benchmark": self.benchmark,
            "settings": self.settings,
            "environment": self.environment,
            "agreements": self.agreements,
            "rows": self.rows,
            "ladder": self.ladder,
            "timings": self.timings,
            "details": self.details,
            "ratio": self.ratio,
            "share": self.share,
        }

    def finish(self, path: Path | None) -> None:
        """Print the tables, write the file, and end with the line for machines.

        The last line is ``ratio`` and a number, or ``share`` and a number for a kernel, and
        ``unknown`` in place of a number that was not measured; lines of the form
        ``ratio <peer> <number>`` come before it.
        """
        others = others_share(self._begin, snapshot())
        self.environment["machine"]["others_share"] = others
        if others is not None and others > _DISTURBED:
            print(f"warning: others used {100 * others:.0f} % of the machine", file=sys.stderr)
        if path is not None:
            write_json(path, self.as_dict())
        if self.agreements:
            print(agreement_line(self.agreements))
        if self.rows:
            header = ["figure", "umx_np", "compared with", "", "ratio"]
            print(format_table(header, [row_cells(row) for row in self.rows]))
        if self.ladder:
            header = ["kernel", "variant", "threads", "time", "rate", "share of ceiling"]
            print(format_table(header, [rung_cells(rung) for rung in self.ladder]))
        for row in self.rows:
            if row["headline"] and row["ratio"]:
                print(f"ratio {row['peer'].split()[0]} {row['ratio']:.2f}")
        word, value = ("share", self.share) if self.ladder else ("ratio", self.ratio)
        print(word, "unknown" if value is None else f"{value:.2f}")


def _spread(value: Timing | float | None, unit: str) -> dict[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, Timing):
        return {"median": float(value), "low": float(value), "high": float(value)}
    scale = {"s": 1.0, "ms": 1e3}[unit]
    return {key: scale * getattr(value, key) for key in ("median", "low", "high")}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file that is either complete or not there.

    Parameters
    ----------
    path : Path
        Its folder is made if needed.
    document : mapping
        Finite numbers only: a NaN raises `ValueError`.
    """
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def number(value: float) -> str:
    """Three significant digits, and never an exponent."""
    if value == 0:
        return "0"
    for limit, digits in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if abs(value) >= limit:
            return f"{value:.{digits}f}"
    return f"{value:.4f}"


def spread(values: Mapping[str, float] | None, unit: str) -> str:
    """Median with unit, and the range if there is one."""
    if values is None:
        return _ABSENT
    text = f"{number(values['median'])} {unit}"
    if values["low"] != values["high"]:
        text += f" ({number(values['low'])} to {number(values['high'])})"
    return text


def row_cells(row: Mapping[str, Any]) -> list[str]:
    """Cells of a comparison: figure, ours, peer, theirs, ratio."""
    return [
        row["figure"],
        spread(row["ours"], row["unit"]),
        row["peer"] or _ABSENT,
        spread(row["theirs"], row["unit"]),
        f"{row['ratio']:.2f}" if row["ratio"] else _ABSENT,
    ]


def rung_cells(rung: Mapping[str, Any]) -> list[str]:
    """Cells of a rung: kernel, variant, threads, time, rate, share."""
    return [
        rung["kernel"],
        rung["variant"],
        str(rung["threads"]),
        f"{number(rung['time'])} {rung['time_unit']}",
        f"{number(rung['rate'])} {rung['unit']}",
        f"{100 * rung['share']:.0f} %" if rung["share"] else _ABSENT,
    ]


def agreement_line(agreements: Sequence[Mapping[str, Any]]) -> str:
    """Say how many outputs were compared, and which pair agreed least."""
    worst = min(agreements, key=lambda found: found["snr_db"])
    return (
        f"outputs compared: {len(agreements)}; least agreement {worst['snr_db']:g} dB "
        f"({worst['what']}), at least {worst['at_least_db']:g} dB required"
    )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align cells in columns, for a terminal."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)
