"""Tables and a plot from ``benchmarks/results/*.json``.

    python -m benchmarks.report            writes them
    python -m benchmarks.report --check    fails if the tables are not those of the results

The short table goes between the markers in the project's README, everything goes into
``benchmarks/results/README.md``, and the plot beside it.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # to run this as a file, too

from benchmarks.harness.results import (
    SCHEMA,
    agreement_line,
    row_cells,
    rung_cells,
)
from benchmarks.harness.threads import ROOT

RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PLOT = "summary.svg"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"

_ROW_HEADER = ["figure", "umx_np", "compared with", "its figure", "ratio"]
_LADDER_HEADER = ["kernel", "variant", "threads", "time", "rate", "share of ceiling"]
# Order of the tables; whatever else there is comes after these.
_ORDER = ("separate_", "network_", "wiener", "train_step", "memory", "coldstart", "kernel_", "gpu")
_SHOWN_VERSIONS = ("python", "numpy", "torch", "onnxruntime")


class StaleReportError(Exception):
    """The tables are not those of the results."""


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all results, in the order of the tables.

    Parameters
    ----------
    folder : Path
        With a ``<name>.json`` each.

    Returns
    -------
    dict of str to dict
    """

    def place(path: Path) -> tuple[int, int, str]:
        name = path.stem
        group = next((i for i, start in enumerate(_ORDER) if name.startswith(start)), len(_ORDER))
        return group, int("umxhq" not in name), name.replace("niter1", "")

    found = {}
    for path in sorted(folder.glob("*.json"), key=place):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("schema") != SCHEMA:
            raise StaleReportError(
                f"{path.name} has schema={document.get('schema')}, not {SCHEMA}; run it again"
            )
        found[path.stem] = document
    return found


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def describe_run(environment: Mapping[str, Any]) -> str:
    """Machine, threads, versions and commit in one line."""
    machine, source = environment["machine"], environment["source"]
    versions = [
        f"{name} {environment['versions'][name]}"
        for name in _SHOWN_VERSIONS
        if name in environment["versions"]
    ]
    commit = (source["commit"] or "unknown")[:10] + (" with changes" if source["dirty"] else "")
    card = environment.get("card")
    on_card = f"{card['name']}, driver {card['driver']}, CUDA {card['cuda']}; " if card else ""
    return (
        f"{on_card}{machine['cpu']}, {machine['cores']} cores, {environment['threads']} threads, "
        f"{environment['umx_np']['level']}; {machine['os'].split()[0]}, {', '.join(versions)}; "
        f"commit {commit}; {environment['date'][:10]}"
    )


def short_table(documents: Mapping[str, Mapping[str, Any]], *, plot: bool) -> str:
    """Return what stands between the markers of README.

    Parameters
    ----------
    documents : mapping of str to mapping
        From `load`.
    plot : bool
        Whether there is a plot to show.
    """
    note = "<!-- made by python -m benchmarks.report -->"
    if not documents:
        return f"{note}\nNothing has been measured yet: `python -m benchmarks.run_all`."
    runs: dict[str, str] = {}
    rows = []
    for document in documents.values():
        brief = [row for row in document["rows"] if row["brief"]]
        if not brief:
            continue
        run = describe_run(document["environment"])
        letter = runs.setdefault(run, string.ascii_lowercase[len(runs) % 26])
        rows += [[*row_cells(row), letter] for row in brief]
    parts = [note, markdown_table([*_ROW_HEADER, "run"], rows)]
    parts.append(
        "Medians of interleaved repeats in one run, in parentheses their range; outputs were "
        "compared first. The ratio says how many times less umx_np takes."
    )
    parts.append("\n".join(f"- run {letter}: {run}" for run, letter in runs.items()))
    if plot:
        parts.append(f"![speed and memory](benchmarks/results/{PLOT})")
    return "\n\n".join(parts)


def full_page(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Return all results as one page of Markdown."""
    parts = [
        "# Results",
        "Made by `python -m benchmarks.report` from the JSON files in this folder. What the "
        "figures mean is in [the README of the benchmarks](../README.md).",
    ]
    for name, document in documents.items():
        environment = document["environment"]
        settings = ", ".join(f"{key}={value}" for key, value in document["settings"].items())
        parts += [f"## {name}", f"{describe_run(environment)}.", f"Settings: {settings}."]
        others = environment["machine"].get("others_share")
        if others is not None:
            parts.append(f"Others used {100 * others:.0f} % of the machine meanwhile.")
        if document["agreements"]:
            line = agreement_line(document["agreements"])
            parts.append(f"{line[0].upper()}{line[1:]}.")
        if document["rows"]:
            cells = [row_cells(row) for row in document["rows"]]
            parts.append(markdown_table(_ROW_HEADER, cells))
        if document["ladder"]:
            cells = [rung_cells(rung) for rung in document["ladder"]]
            parts.append(markdown_table(_LADDER_HEADER, cells))
    return "\n\n".join(parts) + "\n"


def replace_region(text: str, region: str) -> str:
    """Put a region between the markers of a document.

    Raises
    ------
    StaleReportError
        If the markers are not there once each, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise StaleReportError(f"README needs the lines {BEGIN} and {END}, once each")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{region}\n{END}{after}"


def pages(readme: Path, results: Path) -> dict[Path, str]:
    """Return the documents as they should be."""
    documents = load(results)
    region = short_table(documents, plot=(results / PLOT).exists())
    return {
        readme: replace_region(readme.read_text(encoding="utf-8"), region),
        results / "README.md": full_page(documents),
    }


def check(readme: Path = README, results: Path = RESULTS) -> None:
    """Raise `StaleReportError` unless the documents are what `write` would make of them."""
    for path, text in pages(readme, results).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            raise StaleReportError(
                f"{path.name} does not show the results; run: python -m benchmarks.report"
            )


def write(readme: Path = README, results: Path = RESULTS) -> None:
    """Write the plot, if matplotlib is there, and the documents."""
    documents = load(results)
    if documents:
        try:
            from benchmarks.plot import draw
        except ImportError as error:
            print(f"no plot: {error} (python -m pip install matplotlib)", file=sys.stderr)
        else:
            draw(documents, results / PLOT)
    for path, text in pages(readme, results).items():
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, fail if stale")
    args = parser.parse_args(arguments)
    try:
        if args.check:
            check()
        else:
            write()
    except StaleReportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
