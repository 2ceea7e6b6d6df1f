"""Names, shapes and values of state dicts."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from helpers.torch_bytes import TINY, tiny_state

from umx_np.config import ModelConfig
from umx_np.errors import WeightsError
from umx_np.pretrained.models import BUNDLED, PUBLISHED, ModelInfo
from umx_np.weights import check_state, expected_state, infer_config
from umx_np.weights.state import same_architecture

CONFIGS = [
    TINY,
    replace(TINY, unidirectional=True),
    replace(TINY, nb_layers=1, nb_channels=1),
    replace(TINY, nb_layers=4, max_bin=5),
    replace(TINY, hidden_size=7, unidirectional=True, nb_channels=3),
]


def test_default_architecture() -> None:
    shapes = expected_state(ModelConfig(nb_bins=2049, max_bin=1487))
    assert len(shapes) == 46
    assert shapes["fc3.weight"] == (4098, 512)
    assert shapes["lstm.weight_hh_l2_reverse"] == (1024, 256)
    assert shapes["bn3.num_batches_tracked"] == ()
    assert len(expected_state(ModelConfig(unidirectional=True))) == 46 - 12


@pytest.mark.parametrize(
    "model", [*BUNDLED.values(), *PUBLISHED.values()], ids=lambda model: model.name
)
def test_numbers_of_parameters(model: ModelInfo) -> None:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    shapes = expected_state(model.config)
    total = sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.endswith(buffers))
    assert total == model.nb_parameters


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_infer_config(config: ModelConfig) -> None:
    state = tiny_state(config)
    inferred = infer_config(state)
    assert inferred == replace(config, max_bin=config.nb_input_bins)
    assert infer_config({f"module.{name}": array for name, array in state.items()}) == inferred
    assert list(check_state(state)) == list(expected_state(config))


def test_same_architecture() -> None:
    assert same_architecture(replace(TINY, max_bin=5), replace(TINY, max_bin=None))
    assert not same_architecture(TINY, replace(TINY, unidirectional=True))


@pytest.mark.parametrize("name", ["input_mean", "output_mean", "fc1.weight"])
def test_infer_config_needs(name: str) -> None:
    state = tiny_state()
    del state[name]
    with pytest.raises(WeightsError, match=f"tensor='{name}' is missing"):
        infer_config(state)
    state[name] = np.zeros((2, 2, 2))
    with pytest.raises(WeightsError, match=rf"'{name}' has shape=\(2, 2, 2\)"):
        infer_config(state)


def test_infer_config_of_other_networks() -> None:
    with pytest.raises(WeightsError, match="no multiple"):
        infer_config(tiny_state() | {"fc1.weight": np.zeros((4, 7))})
    with pytest.raises(WeightsError, match="no multiple"):
        infer_config(tiny_state() | {"input_mean": np.zeros(0)})
    with pytest.raises(WeightsError, match="hidden_size=3"):
        infer_config(tiny_state() | {"fc1.weight": np.zeros((3, 6))})
    without = {k: v for k, v in tiny_state().items() if not k.startswith("lstm")}
    with pytest.raises(WeightsError, match="nb_layers=0"):
        infer_config(without)


def test_legacy_keys_and_wrappers_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    state = tiny_state()
    legacy = dict.fromkeys(
        ("sample_rate", "stft.window", "transform.0.window", "istft.window"), np.zeros(1)
    )
    wrapped = {f"module._orig_mod.{name}": array for name, array in (state | legacy).items()}
    with caplog.at_level(logging.DEBUG):
        checked = check_state(wrapped, TINY)
    assert list(checked) == list(expected_state(TINY))
    assert not caplog.records
    assert checked["fc1.weight"] is state["fc1.weight"]


def test_unexpected_tensors(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_state(tiny_state() | {"extra.weight": np.zeros(1)}, TINY)
    assert "ignored tensors that are not part of the network: 'extra.weight'" in caplog.text
    deeper = tiny_state(replace(TINY, nb_layers=3))
    with pytest.raises(WeightsError, match=r"'lstm.weight_ih_l2'.* and 2 more.*nb_layers"):
        check_state(deeper, TINY)
    with pytest.raises(WeightsError, match=r"do not belong.*_reverse"):
        check_state(tiny_state() | {"lstm.weight_ih_l0_reverse_2": np.zeros(1)}, TINY)


def test_missing_and_misshapen_tensors() -> None:
    state = tiny_state()
    del state["bn1.running_var"], state["lstm.bias_hh_l1"]
    with pytest.raises(WeightsError, match=r"missing: 'bn1.running_var', 'lstm.bias_hh_l1'"):
        check_state(state, TINY)
    with pytest.raises(WeightsError, match=r"'fc2.weight' has shape=\(4, 7\) instead of \(4, 8\)"):
        check_state(tiny_state() | {"fc2.weight": np.zeros((4, 7), np.float32)}, TINY)


def test_name_with_and_without_prefix() -> None:
    with pytest.raises(WeightsError, match="'input_mean' is there twice"):
        check_state(tiny_state() | {"module.input_mean": np.zeros(3)}, TINY)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fc1.weight", np.nan, "'fc1.weight' holds NaN"),
        ("input_scale", np.inf, "'input_scale' holds NaN or infinity"),
        ("bn2.running_var", -1.0, "'bn2.running_var' holds a negative variance"),
    ],
)
def test_bad_values(name: str, value: float, message: str) -> None:
    state = tiny_state()
    state[name] = state[name].copy()
    state[name].flat[1] = value
    with pytest.raises(WeightsError, match=message):
        check_state(state, TINY)


def test_dtypes() -> None:
    state = {
        name: array if array.dtype.kind == "i" else array.astype(np.float16)
        for name, array in tiny_state().items()
    }
    assert check_state(state)["fc1.weight"].dtype == np.float32
    assert check_state(state, dtype=np.float64)["fc1.weight"].dtype == np.float64
    assert check_state(state, dtype=None)["fc1.weight"].dtype == np.float16
    with pytest.raises(WeightsError, match="dtype=int64 instead of a floating"):
        check_state(state | {"input_mean": np.zeros(3, int)})
    with pytest.raises(WeightsError, match="instead of an integer"):
        check_state(state | {"bn1.num_batches_tracked": np.zeros(())})
    large = tiny_state() | {"input_mean": np.full(3, 1e200)}
    with pytest.raises(WeightsError, match="too large for dtype=float32"):
        check_state(large)


def test_old_files_without_counters() -> None:
    state = {k: v for k, v in tiny_state().items() if not k.endswith("num_batches_tracked")}
    checked = check_state(state, TINY)
    assert len(checked) == len(expected_state(TINY))
    assert checked["bn1.num_batches_tracked"].dtype == np.int64
    assert checked["bn1.num_batches_tracked"] == 0
