"""docs/onnx.md: its examples run, and what they compute is what the package computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.documents import ROOT, blocks_of, text_of
from tolerances import TOL

import umx_np

DOCUMENT = "docs/onnx.md"


@pytest.mark.slow
def test_examples_give_the_stems(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    pytest.importorskip("onnxruntime")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "example"}
    blocks = blocks_of("python", DOCUMENT)
    for number, block in enumerate(blocks):
        exec(compile(block, f"{DOCUMENT}, block {number}", "exec"), names)
        if number == 0:
            stems = names["stems"]
    # The whole track at once, and at the level that it has.
    bundle = replace(umx_np.load_model("umxm"), input_level=None)
    separator = umx_np.Separator.from_bundle(bundle, niter=1, wiener_win_len=None, device="cpu")
    wanted = separator.to_dict(separator(names["audio"][None]))
    wanted = {name: stem[0] for name, stem in wanted.items()}
    assert list(stems) == list(wanted)
    for name, stem in stems.items():
        assert_close(stem, wanted[name], TOL["onnx_song"]["float32"], dtype="float32")
    # NumPy's spectra, shares and inverse are those of the package.
    mix, estimates = names["mix"], np.stack(names["estimates"], axis=-1).transpose(0, 2, 1, 3)
    spectra = names["spectra"].transpose(1, 2, 0).astype(np.complex64)
    assert_close(spectra, mix, TOL["stft"]["float32"], dtype="complex64")
    shares = umx_np.wiener(estimates, mix.transpose(2, 1, 0), iterations=0, softmask=True)
    for j, stem in enumerate(names["masked"].values()):
        spectrum = shares[..., j].transpose(2, 1, 0)
        wanted_stem = umx_np.istft(spectrum, 1024, length=stem.shape[1])
        tolerance = TOL["onnx_song"]["float32"]
        assert_close(stem.astype(np.float32), wanted_stem, tolerance, dtype="float32")
    assert names["vocals"].shape == (3, 2, 129)


def test_sizes_are_those_of_the_files(tmp_path):
    pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    bundle = umx_np.load_model("umxm")
    for dtype in ("float32", "int8"):
        path = umx_np.export.save_onnx(bundle, tmp_path / "model.onnx", dtype=dtype)
        megabytes = round(path.stat().st_size / 1e6)
        assert f"| `{dtype}` | {megabytes} MB |" in text_of(DOCUMENT)
