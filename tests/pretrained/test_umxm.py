"""The weights that come with the package."""

from __future__ import annotations

import json

import numpy as np
import pytest

import umx_np
from umx_np.pretrained.loading import bundled_folder, get_model_info
from umx_np.weights import load_folder

INFO = get_model_info("umxm")


def test_folder():
    folder = bundled_folder("umxm")
    expected = {f"{target}.{kind}" for target in INFO.targets for kind in ("json", "safetensors")}
    assert {path.name for path in folder.iterdir()} == {
        *expected,
        "separator.json",
        "ATTRIBUTION.md",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25_000_000
    assert json.loads((folder / "separator.json").read_text())["license"] == INFO.license
    for path in folder.glob("*.json"):
        # No names of folders of whoever trained it.
        assert "/" not in path.read_text()


def test_weights_are_those_that_the_registry_describes():
    bundle = load_folder(bundled_folder("umxm"))
    assert tuple(bundle.targets) == INFO.targets
    found = (bundle.sample_rate, bundle.n_fft, bundle.n_hop, bundle.nb_channels)
    assert found == (INFO.sample_rate, INFO.n_fft, INFO.n_hop, INFO.nb_channels)
    for target, weights in bundle.targets.items():
        assert weights.config == INFO.config
        for name, array in weights.state.items():
            if not name.endswith("num_batches_tracked"):
                assert array.dtype == np.float32
        stored = (bundled_folder("umxm") / f"{target}.safetensors").stat().st_size
        assert INFO.nb_bytes / 4 < stored < 1.05 * INFO.nb_bytes / 4


@pytest.mark.parametrize("niter", [0, 1])
def test_it_separates_without_a_network(monkeypatch, tmp_path, niter):
    monkeypatch.setenv("UMX_NP_OFFLINE", "1")
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path))
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 44100)).astype(np.float32)
    stems = umx_np.separate(noise, model="umxm", niter=niter)
    assert tuple(stems) == INFO.targets
    assert all(stem.shape == noise.shape for stem in stems.values())
    assert any(np.abs(stem).max() > 1e-3 for stem in stems.values())


@pytest.fixture(scope="module")
def example():
    from benchmarks import levels

    return levels.load(levels.ROOT / "examples" / "song")


def test_soft_music_is_separated_as_loud_music_is(example):
    """The whole table: ``python -m benchmarks.levels``."""
    from benchmarks import levels

    stems, rate = example
    part = {name: stem[:, : 9 * round(rate)] for name, stem in stems.items()}
    separator = umx_np.Separator.from_bundle(umx_np.load_model("umxm"), niter=1)
    expected = levels.whole_song(separator, part, rate, 0)
    for scale in (-20, -50):
        found = levels.whole_song(separator, part, rate, scale)
        for name, score in expected.items():
            assert found[name] >= score - 0.3, (scale, found)


def test_a_soft_passage_is_separated_as_if_it_were_loud(example):
    from benchmarks import levels

    stems, rate = example
    separator = umx_np.Separator.from_bundle(umx_np.load_model("umxm"), niter=1)
    expected = np.array(list(levels.passage(separator, stems, rate, 0).values()))
    found = np.array(list(levels.passage(separator, stems, rate, -50).values()))
    # Three seconds are few: a single stem may be further off than all of them.
    assert found.mean() >= expected.mean() - 0.3
    assert (found >= expected - 0.6).all(), (found, expected)
