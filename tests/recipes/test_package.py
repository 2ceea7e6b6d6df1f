"""From a run of the trainer to the model in the package."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from recipes.umxm.training.package import HERE, keep_log, package, without_places
from umx_np.config import ModelConfig
from umx_np.pretrained.loading import get_model_info
from umx_np.testing import random_bundle, random_bundle_of
from umx_np.weights import load_folder, save_folder

TARGETS = ["vocals", "drums", "bass", "other"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder as the trainer leaves it."""
    folder = tmp_path_factory.mktemp("run") / "refine"
    arguments = {"root": "/home/somebody/songs", "output": "/somewhere/refine", "lr": 0.001}
    descriptions = {target: {"args": arguments, "best_loss": 0.5} for target in TARGETS}
    bundle = replace(random_bundle("umxm", seed=8), license=None)
    save_folder(bundle, folder, descriptions=descriptions)
    for suffix in ("chkpnt", "log", "png"):
        (folder / f"vocals.{suffix}").write_bytes(b"not for everybody")
    return folder


def test_everything_is_there(run, tmp_path):
    written = package(run, tmp_path / "umxm")
    assert {path.name for path in written} == {path.name for path in (tmp_path / "umxm").iterdir()}
    assert {path.suffix for path in written} == {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in written) < 25e6
    bundle = load_folder(tmp_path / "umxm", dtype=None)
    assert list(bundle.targets) == TARGETS
    assert bundle.license == get_model_info("umxm").license
    for weights in bundle.targets.values():
        assert weights.config == get_model_info("umxm").config
    stored = sum(path.stat().st_size for path in written if path.suffix == ".safetensors")
    assert stored < 1.05 * get_model_info("umxm").nb_bytes
    description = json.loads((tmp_path / "umxm" / "bass.json").read_text())
    assert description["best_loss"] == 0.5
    assert description["args"]["root"] == "songs"
    assert "/" not in json.dumps(description)


def test_the_log_is_that_of_all_stages(run, tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "old-vocals.json").write_text("{}")
    written = keep_log(run.parent, tmp_path / "log")
    assert sorted(written) == sorted((tmp_path / "log").iterdir())
    names = {f"refine-{target}.json" for target in TARGETS} | {"refine-vocals.png"}
    assert {path.name for path in written} == names
    assert json.loads((tmp_path / "log" / "refine-bass.json").read_text())["best_loss"] == 0.5


def test_another_model_is_refused(tmp_path):
    config = ModelConfig(nb_bins=2049, hidden_size=16, max_bin=1301)
    save_folder(random_bundle_of(config), tmp_path / "run")
    with pytest.raises(ValueError, match=r"vocals has .*hidden_size=16.*models\.json"):
        package(tmp_path / "run", tmp_path / "umxm")
    assert not (tmp_path / "umxm").exists()


def test_places():
    value = {"a": ["x/y", {"b": "/c/d/"}], "e": 1, "f": None, "g": "h"}
    assert without_places(value) == {"a": ["y", {"b": "d"}], "e": 1, "f": None, "g": "h"}


def test_attribution_names_every_source_that_asks_for_it():
    table = re.findall(r"^\| `([^`]+)`.*CC BY \d", (HERE / "README.md").read_text(), re.MULTILINE)
    names = {"muldjordkit/": "MuldjordKit", "vocadito/": "vocadito"}
    names["midi/groove_cc-by-4.0.tar.xz"] = "Groove MIDI Dataset"
    assert set(table) == set(names), "add new sources to ATTRIBUTION.md and here"
    text = (HERE / "ATTRIBUTION.md").read_text()
    for name in (*names.values(), "rumpf_kit_z01"):
        assert name in text
