"""The evaluation of a track of MUSDB18, from the files to the scores, against Open-Unmix's."""

from __future__ import annotations

import importlib
import shutil
import warnings

import numpy as np
import pytest

from umx_np.config import ModelConfig
from umx_np.evaluation import evaluate, read_scores
from umx_np.evaluation.bss import METRICS
from umx_np.testing import random_bundle_of
from umx_np.weights import save_folder

pytestmark = pytest.mark.parity

TRACK = "The Easton Ellises - Falcon 69"
TARGETS = ["vocals", "drums", "bass", "other"]
# Hundredths of a dB would show in tables; upstream separates in single precision.
DECIBELS = 0.005


@pytest.mark.slow
def test_scores_with_default_options(openunmix, tmp_path):
    """By default the filter sees the whole track, as upstream's evaluation has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("musdb", "museval"):
            pytest.importorskip(name)
        stempeg = pytest.importorskip("stempeg", reason="needs stempeg's example song")
        upstream = importlib.import_module("openunmix.evaluate")
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to decode stempeg's example song")
    (tmp_path / "musdb/test").mkdir(parents=True)
    shutil.copy(stempeg.example_stem_path(), tmp_path / "musdb/test" / f"{TRACK}.stem.mp4")
    # 1487 bins are the 16 kHz of the published models.
    config = ModelConfig(nb_bins=2049, hidden_size=32, max_bin=1487)
    save_folder(random_bundle_of(config, TARGETS, seed=17, n_hop=1024), tmp_path / "model")

    with warnings.catch_warnings(), openunmix.torch.no_grad():
        warnings.simplefilter("ignore")
        db = upstream.musdb.DB(root=str(tmp_path / "musdb"), subsets="test")
        upstream.separate_and_evaluate(
            db.tracks[0],
            targets=TARGETS,
            model_str_or_path=str(tmp_path / "model"),
            niter=1,
            output_dir=None,
            eval_dir=str(tmp_path / "upstream"),
            residual=None,
            mus=db,
        )
    expected = read_scores(tmp_path / "upstream/test" / f"{TRACK}.json")

    found = evaluate(tmp_path / "musdb", model=tmp_path / "model").scores[TRACK]
    assert set(found.targets) == set(expected.targets) == set(TARGETS)
    for target in TARGETS:
        for metric in METRICS:
            np.testing.assert_allclose(
                found.targets[target][metric], expected.targets[target][metric], atol=DECIBELS
            )
    # The excerpt has less than 300 frames, so that 100 have to show that it matters.
    pieces = evaluate(tmp_path / "musdb", model=tmp_path / "model", wiener_win_len=100)
    differences = [
        abs(pieces.scores[TRACK].targets[target]["SDR"] - expected.targets[target]["SDR"]).max()
        for target in TARGETS
    ]
    assert max(differences) > 10 * DECIBELS
