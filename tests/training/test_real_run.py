"""The trainer on music, from the command line to the stems."""

from __future__ import annotations

import json

import numpy as np
import pytest

import umx_np

from . import real_run


def distortion_ratio(estimate, target):
    """Level of the target over that of the error, in dB."""
    return 10.0 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2))


@pytest.mark.slow
def test_a_small_network_learns_two_songs_by_heart(tmp_path):
    root, out = tmp_path / "tracks", tmp_path / "out"
    real_run.train(root, out)

    results = json.loads((out / "vocals.json").read_text())
    for history in (results["train_loss_history"], results["valid_loss_history"]):
        assert len(history) == 100
        assert min(history) < 0.1 * history[0]

    bundle = umx_np.load_model(out)
    separator = umx_np.Separator.from_bundle(bundle, residual=True)
    for title in ("excerpt", "rendered"):
        mixture, vocals = real_run.read_mixture(root, title)
        stems = umx_np.separate(mixture, real_run.RATE, separator=separator)
        before = distortion_ratio(mixture, vocals)
        after = distortion_ratio(stems["vocals"], vocals)
        print(f"{title}: {before:.1f} dB in the mixture, {after:.1f} dB separated")
        assert after > before + 8.0
