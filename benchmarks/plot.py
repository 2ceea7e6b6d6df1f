"""Speed and memory as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib.figure import Figure  # after the choice of the backend

_COLOURS = {"umx_np": "#0b6e99", "openunmix": "#b0b0b0", "limited": "#69b3d0"}


def draw(documents: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw what there is of both parts; nothing if there is neither.

    Parameters
    ----------
    documents : mapping of str to mapping
        Results by name.
    path : Path
        SVG file to write; the same results give the same bytes.
    """
    # Speech at 16 kHz in mono is an order of magnitude faster and would squeeze the rest.
    speed = {
        name: doc
        for name, doc in documents.items()
        if doc["benchmark"] == "separate" and doc["settings"]["model"] != "umxse"
    }
    memory = [doc for doc in documents.values() if doc["benchmark"] == "memory"]
    parts = int(bool(speed)) + int(bool(memory))
    if not parts:
        return
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "umx_np", "font.size": 9}):
        figure = Figure(figsize=(5.2 * parts, 3.6), layout="constrained")
        axes = list(figure.subplots(1, parts, squeeze=False)[0])
        if speed:
            _draw_speed(axes.pop(0), speed)
        if memory:
            _draw_memory(axes.pop(0), memory[0]["details"]["points"])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_speed(axis: Any, documents: Mapping[str, Mapping[str, Any]]) -> None:
    labels = []
    for row, document in enumerate(reversed(list(documents.values()))):
        settings = document["settings"]
        fast = "" if settings["precision"] == "full" else f", {settings['precision']}"
        labels.append(f"{settings['model']}, niter={settings['niter']}{fast}")
        for offset, name in ((0.2, "umx_np"), (-0.2, "openunmix")):
            value = document["details"]["times_real_time"][name]
            label = {"umx_np": "umx_np", "openunmix": "openunmix (torch)"}[name]
            axis.barh(
                row + offset,
                value,
                height=0.38,
                color=_COLOURS[name],
                label=label if row == 0 else None,
            )
            axis.annotate(
                f"{value:.1f}",
                (value, row + offset),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
            )
    axis.set_yticks(range(len(labels)), labels)
    axis.margins(x=0.12)
    threads = next(iter(documents.values()))["environment"]["threads"]
    axis.set_xlabel(f"times real time, {threads} threads (more is better)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_memory(axis: Any, points: Mapping[str, Any]) -> None:
    for name, line in points.items():
        kind = "openunmix" if name.startswith("openunmix") else "umx_np"
        kind = "limited" if "max_memory" in name else kind
        axis.plot(
            [point["minutes"] for point in line],
            [point["peak_mb"] / 1e3 for point in line],
            marker="o",
            markersize=4,
            color=_COLOURS[kind],
            linestyle="--" if kind == "limited" else "-",
            label=name,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    minutes = sorted({point["minutes"] for line in points.values() for point in line})
    axis.set_xticks(minutes, [f"{value:g}" for value in minutes])
    axis.minorticks_off()
    ticks = [value for value in (0.2, 0.5, 1, 2, 5, 10) if axis.get_ylim()[0] < value * 1.5]
    axis.set_yticks(ticks, [f"{value:g}" for value in ticks])
    axis.set_xlabel("minutes of stereo")
    axis.set_ylabel("peak memory in GB (less is better)")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="upper left", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
