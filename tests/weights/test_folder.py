"""Model folders as Open-Unmix's trainer writes them, and what may be wrong with them."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.torch_bytes import TINY, tiny_state

from umx_np.config import ModelConfig
from umx_np.errors import ConfigError, ModelNotFoundError, WeightsError
from umx_np.weights import (
    ModelBundle,
    TargetWeights,
    is_model_folder,
    load_folder,
    load_torch,
    save_folder,
    save_safetensors,
    save_torch,
)

SEPARATOR = {"nfft": 8, "nhop": 2, "sample_rate": 8000.0, "nb_channels": 2}


def write_target(
    folder: Path,
    target: str,
    config: ModelConfig = TINY,
    *,
    file: str | None = None,
    **arguments: object,
) -> None:
    """Write what the trainer writes for a target; its arguments do not name nb_layers."""
    folder.mkdir(exist_ok=True)
    save_torch(tiny_state(config), folder / (file or f"{target}.pth"))
    known = {"nfft": 8, "nb_channels": 2, "hidden_size": 4, "unidirectional": False}
    document = {"args": known | arguments, "best_loss": 0.5, "epochs_trained": 3}
    (folder / f"{target}.json").write_text(json.dumps(document))


def write_separator(folder: Path, **changes: object) -> None:
    (folder / "separator.json").write_text(json.dumps(SEPARATOR | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    for target in ("other", "drums", "vocals"):
        write_target(path, target)
    write_separator(path)
    return path


def test_load(folder: Path) -> None:
    bundle = load_folder(folder)
    assert bundle.name == "model"
    assert list(bundle.targets) == ["vocals", "drums", "other"]
    assert (bundle.sample_rate, bundle.n_fft, bundle.n_hop, bundle.nb_channels) == (8000.0, 8, 2, 2)
    assert bundle.license is None
    weights = bundle.targets["drums"]
    assert weights.config == TINY
    for name, array in tiny_state().items():
        np.testing.assert_array_equal(weights.state[name], array, strict=True)


def test_choice_and_order_of_targets(folder: Path) -> None:
    assert list(load_folder(folder, ["other", "vocals"]).targets) == ["other", "vocals"]
    assert list(load_folder(folder, "drums").targets) == ["drums"]
    write_target(folder, "zither")
    write_target(folder, "accordion")
    expected = ["vocals", "drums", "other", "accordion", "zither"]
    assert list(load_folder(folder).targets) == expected


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["bass"], "target='bass' is not in .*valid targets: vocals, drums, other"),
        (["vocals", "vocals"], "target='vocals' is named twice"),
        ([], "is empty"),
        (["../vocals"], r"target='\.\./vocals' is no name"),
        ([""], "target='' is no name"),
        ([".."], "is no name"),
        (["a\0b"], "is no name"),
        ([3], "target=3 is no name"),
    ],
)
def test_bad_targets(folder: Path, targets: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_folder(folder, targets)


@pytest.mark.parametrize(
    "config",
    [
        replace(TINY, unidirectional=True),
        replace(TINY, nb_layers=1),
        replace(TINY, nb_layers=4, unidirectional=True, max_bin=5),
    ],
    ids=str,
)
def test_architecture_is_restored(tmp_path: Path, config: ModelConfig) -> None:
    write_target(tmp_path, "vocals", config, unidirectional=config.unidirectional)
    write_separator(tmp_path)
    assert load_folder(tmp_path).targets["vocals"].config == config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 6),
        ("nb_channels", 1),
        ("nb_layers", 3),
        ("unidirectional", True),
        ("nfft", 16),
    ],
)
def test_description_of_other_weights(folder: Path, key: str, value: object) -> None:
    write_target(folder, "vocals", **{key: value})
    with pytest.raises(WeightsError, match=rf"vocals\.json says {key}={value}"):
        load_folder(folder)


@pytest.mark.parametrize("suffix", ["-0a1b2c3d", "_0a1b2c3d"])
def test_hash_in_the_name(tmp_path: Path, suffix: str) -> None:
    write_target(tmp_path, "vocals", file=f"vocals{suffix}.pth")
    write_separator(tmp_path)
    assert is_model_folder(tmp_path)
    assert list(load_folder(tmp_path).targets) == ["vocals"]
    # The plain name wins; two with a hash are ambiguous.
    write_target(tmp_path, "vocals", file="vocals-ffffffff.pth")
    with pytest.raises(WeightsError, match=r"several weights of target='vocals': vocals.*, vocals"):
        load_folder(tmp_path)
    write_target(tmp_path, "vocals")
    assert list(load_folder(tmp_path).targets) == ["vocals"]


def test_target_whose_name_begins_like_another(tmp_path: Path) -> None:
    write_target(tmp_path, "drums", file="drums-0a1b2c3d.pth")
    write_target(tmp_path, "drums_2")
    write_separator(tmp_path)
    assert list(load_folder(tmp_path).targets) == ["drums", "drums_2"]


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    write_target(tmp_path, "v[o]*")
    write_separator(tmp_path)
    assert list(load_folder(tmp_path).targets) == ["v[o]*"]


def test_safetensors_need_no_description(tmp_path: Path) -> None:
    save_safetensors(tiny_state(), tmp_path / "vocals.safetensors", TINY)
    assert is_model_folder(tmp_path)
    with pytest.raises(WeightsError, match=r"no separator\.json.*do not say nfft"):
        load_folder(tmp_path)
    write_separator(tmp_path)
    assert load_folder(tmp_path).targets["vocals"].config == TINY


def test_safetensors_that_contradict_themselves(tmp_path: Path) -> None:
    path = tmp_path / "vocals.safetensors"
    save_safetensors(tiny_state(), path, replace(TINY, nb_layers=3))
    write_separator(tmp_path)
    with pytest.raises(WeightsError, match="but the file says"):
        load_folder(tmp_path)


def test_weights_without_description(tmp_path: Path) -> None:
    save_torch(tiny_state(), tmp_path / "vocals.pth")
    write_separator(tmp_path)
    assert is_model_folder(tmp_path)
    assert list(load_folder(tmp_path, ["vocals"]).targets) == ["vocals"]
    with pytest.raises(ModelNotFoundError, match="holds no model"):
        load_folder(tmp_path)


# separator.json


def test_separator_is_inferred(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_target(tmp_path, "vocals", nhop=4)
    with caplog.at_level(logging.WARNING):
        bundle = load_folder(tmp_path)
    assert (bundle.n_fft, bundle.n_hop, bundle.sample_rate) == (8, 4, 44100.0)
    assert "does not exist; using n_fft=8, n_hop=4, sample_rate=44100.0" in caplog.text


def test_separator_cannot_be_inferred(tmp_path: Path) -> None:
    write_target(tmp_path, "vocals")
    with pytest.raises(WeightsError, match="its targets do not say nhop"):
        load_folder(tmp_path)
    write_target(tmp_path, "vocals", nhop=4)
    write_target(tmp_path, "drums", nhop=2)
    with pytest.raises(WeightsError, match="disagree on nhop"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nfft": 16}, "has nfft=16, nb_channels=2, but the weights"),
        ({"nb_channels": 1}, "nb_channels=1, but the weights"),
        ({"nhop": 0}, "nhop=0"),
        ({"nhop": "2"}, "nhop='2'"),
        ({"nhop": True}, "nhop=True"),
        ({"sample_rate": None}, "sample_rate=None"),
        ({"sample_rate": -1}, "sample_rate=-1"),
        ({"sample_rate": float("nan")}, "sample_rate=nan"),
    ],
)
def test_bad_separator(folder: Path, changes: dict, message: str) -> None:
    write_separator(folder, **changes)
    with pytest.raises(WeightsError, match=message):
        load_folder(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"args": 3}', "\udcff"])
def test_bad_description(folder: Path, text: str) -> None:
    (folder / "vocals.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError, match=r"vocals\.json"):
        load_folder(folder)


def test_damaged_weights_are_named(folder: Path) -> None:
    path = folder / "drums.pth"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match=r"drums\.pth"):
        load_folder(folder)
    save_torch(tiny_state() | {"fc1.weight": np.full((4, 6), np.nan)}, path)
    with pytest.raises(WeightsError, match=r"drums\.pth.*'fc1\.weight' holds NaN"):
        load_folder(folder)


# Folders that are none


def test_what_is_no_model_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        assert not is_model_folder(path)
        with pytest.raises(ModelNotFoundError):
            load_folder(path)
    (tmp_path / "separator.json").write_text("{}")
    (tmp_path / "notes.json").write_text("{}")
    assert not is_model_folder(tmp_path)
    (tmp_path / "unrelated.pth").touch()
    (tmp_path / "separator.json").unlink()
    assert not is_model_folder(tmp_path)
    assert not is_model_folder(tmp_path / "notes.json")


# Writing


def bundle(config: ModelConfig = TINY, **changes: object) -> ModelBundle:
    targets = {
        name: TargetWeights(config, tiny_state(config, seed))
        for seed, name in enumerate(("drums", "vocals"))
    }
    settings = {"sample_rate": 8000.0, "n_fft": 8, "n_hop": 2, "nb_channels": 2}
    return ModelBundle("any", targets, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["pth", "safetensors"])
def test_save_and_load(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "new" / "model"
    original = bundle(replace(TINY, unidirectional=True, nb_layers=1), license="MIT")
    written = save_folder(original, path, layout)  # type: ignore[arg-type]
    assert sorted(written) == sorted(path.iterdir())
    loaded = load_folder(path)
    assert list(loaded.targets) == ["vocals", "drums"]
    assert loaded.license == "MIT"
    for name, weights in original.targets.items():
        assert loaded.targets[name].config == weights.config
        for key, array in weights.state.items():
            np.testing.assert_array_equal(loaded.targets[name].state[key], array, strict=True)


def test_layout_of_the_descriptions(tmp_path: Path) -> None:
    save_folder(bundle(), tmp_path)
    text = (tmp_path / "separator.json").read_text()
    assert text == json.dumps(SEPARATOR, indent=4, sort_keys=True)
    arguments = json.loads((tmp_path / "vocals.json").read_text())["args"]
    assert arguments == {
        "target": "vocals",
        "nfft": 8,
        "nhop": 2,
        "nb_channels": 2,
        "hidden_size": 4,
        "nb_layers": 2,
        "unidirectional": False,
    }


def test_overwriting(tmp_path: Path) -> None:
    save_folder(bundle(), tmp_path)
    save_folder(bundle(), tmp_path)
    with pytest.raises(
        ConfigError, match=r"already holds drums\.json, drums\.pth, separator\.json"
    ):
        save_folder(bundle(), tmp_path, overwrite=False)
    with pytest.raises(ConfigError, match=r"already holds drums\.pth; remove it"):
        save_folder(bundle(), tmp_path, "safetensors")


def test_bad_models_touch_nothing(tmp_path: Path) -> None:
    broken = bundle()
    broken.targets["vocals"].state["fc1.weight"] = np.zeros((1, 1), np.float32)
    path = tmp_path / "model"
    with pytest.raises(WeightsError, match=r"'fc1\.weight' has shape"):
        save_folder(broken, path)
    with pytest.raises(ConfigError, match="format='zip'"):
        save_folder(bundle(), path, "zip")  # type: ignore[arg-type]
    outside = ModelBundle("any", {"../x": bundle().targets["drums"]})
    with pytest.raises(ConfigError, match="is no name"):
        save_folder(outside, path)
    assert not path.exists()


def test_int8_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dtype='int8' is for safetensors only"):
        save_folder(bundle(), tmp_path, dtype="int8")
    assert list(tmp_path.iterdir()) == []
    save_folder(bundle(), tmp_path, "safetensors", dtype="int8")
    loaded = load_folder(tmp_path, dtype=None)
    for target, weights in bundle().targets.items():
        for name, array in weights.state.items():
            found = loaded.targets[target].state[name]
            assert found.dtype == array.dtype
            np.testing.assert_allclose(found, array, atol=np.abs(array).max(initial=0) / 250)


def test_float16_folder(tmp_path: Path) -> None:
    save_folder(bundle(), tmp_path, dtype="float16")
    assert load_torch(tmp_path / "drums.pth")["fc1.weight"].dtype == np.float16
    assert load_folder(tmp_path).targets["drums"].state["fc1.weight"].dtype == np.float32
    kept = load_folder(tmp_path, dtype=None)
    assert kept.targets["drums"].state["fc1.weight"].dtype == np.float16
