"""Comparison of training runs by what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from umx_np.training.checkpoint import read_checkpoint

# Where the files are, how often to save, and how long it took.
VARYING = ("/output", "/checkpoint", "/overwrite", "/checkpoint_every", "/seconds", "_time_history")


def flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Leaves of a checkpoint by the path to them, without what may differ."""
    if name.endswith(VARYING) or name == "/arguments":
        return {}
    if not isinstance(tree, dict):
        return {name: tree}
    leaves = {}
    for key, value in tree.items():
        leaves.update(flat(value, f"{name}/{key}"))
    return leaves


def assert_same_checkpoint(actual: Path, desired: Path) -> None:
    """Compare the checkpoints of two runs to the bit."""
    one, two = (flat(read_checkpoint(path)) for path in (actual, desired))
    assert set(one) == set(two)
    for name, value in two.items():
        if isinstance(value, np.ndarray):
            assert one[name].dtype == value.dtype
            np.testing.assert_array_equal(one[name], value, err_msg=name)
        else:
            assert one[name] == value, name


def assert_same_results(actual: Path, desired: Path) -> None:
    """Compare the histories of two runs, as they are in ``<target>.json``."""
    results = [json.loads(path.read_text()) for path in (actual, desired)]
    for key in ("train_loss_history", "valid_loss_history", "best_loss", "num_bad_epochs"):
        assert results[0][key] == results[1][key]


def assert_same_run(actual: Path, desired: Path, target: str = "tone") -> None:
    """Compare the final checkpoints, the best weights and the histories of two runs."""
    assert_same_checkpoint(*(folder / f"{target}.chkpnt" for folder in (actual, desired)))
    weights = [(folder / f"{target}.pth").read_bytes() for folder in (actual, desired)]
    assert weights[0] == weights[1]
    assert_same_results(*(folder / f"{target}.json" for folder in (actual, desired)))
