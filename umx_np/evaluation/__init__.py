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

import lazy_loader

# The names are those of __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
