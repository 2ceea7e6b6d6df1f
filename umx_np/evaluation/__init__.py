"""Evaluation: how well a model separates, as numbers that can be compared with published ones.

    result = evaluate("MUSDB18", model="umxhq", evaldir="scores")
    print(result.summary().table())

``python -m umx_np.evaluate`` does the same from the command line; see docs/evaluation.md. Names are
imported when they are first used.

- `bss_eval` computes the scores of arrays, `score_track` those of named stems, with accompaniment
  the way museval treats it, and `score_files` gives the SDR of files in little memory.
- `evaluate` does it for a whole data set, with a model or a folder of estimates.
- `TrackScores` are the scores of a track, `Summary` those of many.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ScoresError

if TYPE_CHECKING:
    from .bss import BssScores, bss_eval
    from .runner import Evaluation, evaluate
    from .scores import TrackScores, read_scores, score_track
    from .sdr import score_files
    from .summary import Summary

_HOMES = {
    "BssScores": "bss",
    "Evaluation": "runner",
    "Summary": "summary",
    "TrackScores": "scores",
    "bss_eval": "bss",
    "evaluate": "runner",
    "read_scores": "scores",
    "score_files": "sdr",
    "score_track": "scores",
}

__all__ = [
    "BssScores",
    "Evaluation",
    "ScoresError",
    "Summary",
    "TrackScores",
    "bss_eval",
    "evaluate",
    "read_scores",
    "score_files",
    "score_track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
