"""A published model from where it is published to its stems."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite, relative_l2
from tolerances import TOL

import umx_np
from umx_np.pretrained import loading as pretrained

RATE = 16000


@pytest.mark.network
def test_download_and_separate(tmp_path, monkeypatch):
    """One network of ``umxse``, the smallest model."""
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("UMX_NP_OFFLINE", "UMX_NP_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    paths = pretrained.download("umxse", "speech")
    assert paths["speech"].is_relative_to(tmp_path / "home" / "umxse")
    assert pretrained.download("umxse", "speech", offline=True, verify=True) == paths

    bundle = umx_np.load_model("umxse", ["speech"], offline=True)
    separator = umx_np.Separator.from_bundle(bundle, niter=0, residual=True)
    audio = signals.music(RATE, nb_channels=1)[0].astype(np.float32)
    stems = umx_np.separate(audio, RATE, separator=separator)
    assert list(stems) == ["speech", "residual"]
    for stem in stems.values():
        assert_finite(stem, shape=audio.shape, dtype=np.float32)
        assert relative_l2(stem, audio) > 1e-4  # neither of them is all of it
    rebuilt = stems["speech"] + stems["residual"]
    assert_close(rebuilt, audio, TOL["sum_of_stems"]["float32"], dtype=np.float32)
