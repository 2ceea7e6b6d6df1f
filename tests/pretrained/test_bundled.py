"""A model that comes with the package: what its name does, whatever its weights are."""

from __future__ import annotations

import importlib.resources
import json
import logging
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from helpers.asserts import assert_close
from tolerances import TOL

import umx_np
from umx_np.commands import main
from umx_np.errors import ConfigError, ModelNotFoundError, WeightsError
from umx_np.pretrained import loading as pretrained
from umx_np.testing import random_bundle
from umx_np.weights import load_safetensors, save_folder

TARGETS = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder like that of the package, with random weights for umxm."""
    folder = tmp_path_factory.mktemp("package")
    bundle = random_bundle("umxm", seed=3)
    save_folder(bundle, folder / "assets" / "umxm", "safetensors", dtype="int8")
    return folder


@pytest.fixture
def installed(package, monkeypatch, tmp_path):
    """Let the package find them; there is no network and no cache."""
    monkeypatch.setattr(importlib.resources, "files", lambda name: package)
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("UMX_NP_OFFLINE", "1")
    return package / "assets" / "umxm"


def test_load_in_eight_bits(installed, monkeypatch):
    """The matrices are those of the files, and nothing expands them on the way to the kernels."""

    def expand(state):
        raise AssertionError("expanded")

    noise = np.random.default_rng(0).standard_normal((1, 2, 5000)).astype(np.float32)
    with monkeypatch.context() as patched:
        for room in ("weights.safetensors_files", "weights.folder", "network.openunmix"):
            patched.setattr(f"umx_np.{room}.dequantize", expand)
        bundle = umx_np.load_model("umxm", ["bass"], dtype="int8")
        separator = umx_np.Separator.from_bundle(bundle, precision="int8", device="cpu")
        stems = separator(noise)
    state = bundle.targets["bass"].state
    stored = load_safetensors(installed / "bass.safetensors", quantized=True)
    matrices = {name for name, array in stored.items() if array.dtype == np.int8}
    assert len(matrices) == 15
    for name in matrices | {f"{name}_scale" for name in matrices}:
        np.testing.assert_array_equal(state[name], stored[name])
        assert state[name].dtype == stored[name].dtype
    expanded = umx_np.load_model("umxm", ["bass"])
    floats = umx_np.Separator.from_bundle(expanded, precision="int8", device="cpu")
    # In each precision, and however it was loaded, it is the same model.
    full = umx_np.Separator.from_bundle(expanded, device="cpu")
    assert separator.weights_digest == floats.weights_digest == full.weights_digest
    assert_close(stems, floats(noise), TOL["separator_int8"]["int8"], dtype=np.float32)


def test_recommended_precision(installed, tmp_path):
    assert pretrained.recommended_precision("umxm") is None
    assert pretrained.recommended_precision("umxhq") is None
    assert pretrained.recommended_precision("nonsense") is None
    bundle = replace(random_bundle("umxm", seed=3, targets=["bass"]), precision="int8")
    save_folder(bundle, tmp_path / "mine", "safetensors", dtype="int8")
    assert pretrained.recommended_precision(tmp_path / "mine") == "int8"
    loaded = umx_np.load_model(tmp_path / "mine")
    assert loaded.precision == "int8"
    # Python does not follow it.
    assert umx_np.Separator.from_bundle(loaded, device="cpu").ops.precision == "full"
    path = tmp_path / "mine" / "separator.json"
    path.write_text(path.read_text().replace("int8", "half"))
    with pytest.raises(WeightsError, match="precision='half' must be 'full', 'fast' or 'int8'"):
        pretrained.recommended_precision(tmp_path / "mine")


def test_load(installed):
    bundle = umx_np.load_model("umxm")
    assert (bundle.name, tuple(bundle.targets)) == ("umxm", TARGETS)
    assert bundle.license == pretrained.get_model_info("umxm").license
    expected = random_bundle("umxm", seed=3)
    for target, weights in bundle.targets.items():
        assert weights.config == pretrained.get_model_info("umxm").config
        for name, array in weights.state.items():
            desired = expected.targets[target].state[name]
            # Matrices are stored in eight bits, with a scale a row; computed with in float32.
            assert array.dtype == desired.dtype
            if array.ndim == 2:
                bound = np.abs(desired).max(axis=1, keepdims=True) / 254
                assert (np.abs(array - desired) <= 1.001 * bound).all()
            else:
                np.testing.assert_array_equal(array, desired)
    assert list(umx_np.load_model("umxm", ["bass", "vocals"]).targets) == ["bass", "vocals"]
    with pytest.raises(ConfigError, match="valid targets of model='umxm': vocals, drums"):
        umx_np.load_model("umxm", ["piano"])


def test_functions(installed):
    separator = umx_np.umxm(targets=["drums", "bass"], niter=0)
    assert separator.stem_names == ["drums", "bass"]
    assert list(umx_np.umxm_spec(["other"])) == ["other"]
    noise = np.random.default_rng(0).standard_normal((2, 20000)).astype(np.float32)
    stems = umx_np.separate(noise, 44100, model="umxm", targets=["drums", "bass"], niter=0)
    desired = separator(noise[np.newaxis])[0]
    np.testing.assert_array_equal(np.stack(list(stems.values())), desired)


def test_download_names_its_files(installed, capsys):
    assert pretrained.download("umxm", ["bass"]) == {"bass": installed / "bass.safetensors"}
    assert main(["download", "umxm"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(installed / f"{target}.safetensors") for target in TARGETS]
    assert "comes with umx_np" in said.err


def test_it_is_listed(installed, capsys):
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("with umx-np")
    assert main(["info", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["bundled_models"]
    assert model["folder"] == str(installed)
    assert 22e6 < model["bytes"] < 23e6


def test_an_incomplete_installation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.resources, "files", lambda name: tmp_path)
    for use in (umx_np.load_model, umx_np.pretrained.loading.download, pretrained.bundled_folder):
        with pytest.raises(ModelNotFoundError, match=r"comes with umx_np, but path=.*umxhq"):
            use("umxm")
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "no"
    assert main(["info"]) == 0
    assert "model umxm" in capsys.readouterr().out
    (tmp_path / "assets/umxm").mkdir(parents=True)
    for target in TARGETS[1:]:
        (tmp_path / f"assets/umxm/{target}.safetensors").touch()
    with pytest.raises(ModelNotFoundError, match=r"has no vocals.safetensors: the installation"):
        pretrained.bundled_folder("umxm")


def test_other_names_are_not_bundled():
    with pytest.raises(ModelNotFoundError, match="does not come with umx_np; umxm does"):
        pretrained.bundled_folder("umxhq")


def test_package_data_takes_the_folder(installed):
    """Every file of the folder is of a kind that the wheel takes along."""
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    patterns = re.findall(r'"(assets/[^"]+)"', pyproject.read_text("utf-8"))
    names = [f"assets/umxm/{file.name}" for file in installed.iterdir()]
    for name in [*names, "assets/umxm/ATTRIBUTION.md"]:
        assert any(fnmatch(name, pattern) for pattern in patterns), name


def test_a_default_that_comes_along_is_announced(installed, caplog):
    noise = np.random.default_rng(0).standard_normal((2, 9000)).astype(np.float32)
    with caplog.at_level(logging.INFO, logger="umx_np"):
        stems = umx_np.separate(noise, 44100, targets=["bass"], niter=0)
    assert list(stems) == ["bass"]
    (record,) = [record for record in caplog.records if "using umxm" in record.message]
    assert record.levelno == logging.INFO
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="umx_np"):
        umx_np.separate(noise, 44100, model="umxm", targets=["bass"], niter=0)
    assert "using umxm" not in caplog.text


def test_the_command_announces_it_once(installed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        umx_np.audio.write(name, np.zeros((2, 9000)), 44100)
    arguments = ["separate", "a.wav", "b.wav", "--targets", "drums", "--niter", "0"]
    assert main(arguments) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "using umxm" in line]
    assert len(said) == 1
    assert "umx-np download umxhq" in said[0]
    assert "--model umxhq" in said[0]
    assert (tmp_path / "a_umxm" / "drums.wav").exists()
    assert main([*arguments, "--quiet"]) == 0
    assert main([*arguments, "--model", "umxm", "--outdir", "x"]) == 0
    assert "using umxm" not in capsys.readouterr().err


def test_a_published_default_needs_no_word(monkeypatch):
    monkeypatch.setattr("umx_np.pretrained.models.DEFAULT_MODEL", "umxhq")
    assert umx_np.pretrained.default_notice() is None
