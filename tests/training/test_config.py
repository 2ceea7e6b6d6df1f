"""Settings and their checks."""

from __future__ import annotations

import dataclasses

import pytest

from umx_np import devices
from umx_np.errors import ConfigError, DeviceError
from umx_np.training import TrainConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 2.5},
        {"hidden_size": -1},
        {"nb_layers": 0},
        {"threads": 0},
        {"seed": -1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr_decay_gamma": 1.0},
        {"lr_schedule": "linear"},
        {"weight_decay": -1e-5},
        {"clip_grad_norm": 0.0},
        {"seq_dur": float("inf")},
        {"bandwidth": -1},
        {"optimizer": "lbfgs"},
        {"momentum": 0.9},
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"resident": "perhaps"},
        {"target": "../vocals"},
        {"target": ""},
        {"checkpoint_every": "often"},
        {"checkpoint_every": "-3"},
        {"checkpoint_every": "0min"},
        {"checkpoint_every": None},
        {"device": None},
        {"device": 3},
        {"device": ["cpu"]},
        {"optimizer": None},
        {"lr": "0.1"},
        {"lr": None},
        {"clip_grad_norm": "5"},
        {"seq_dur": None},
        {"momentum": True},
        {"epochs": "7"},
        {"output": None},
        {"output": 3},
        {"model": 3},
        {"checkpoint": 3},
        {"target": None},
        {"resident": None},
        {"model": "umxhq", "checkpoint": "out"},
    ],
    ids=str,
)
def test_unusable_values(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


@pytest.fixture
def no_card(monkeypatch):
    def absent(index):
        raise DeviceError(f"there is no card {index}")

    monkeypatch.setattr("umx_np.cuda.training.get_cuda_backend", absent)
    monkeypatch.setattr(devices, "_why_not_cuda", lambda: "there is no card 0")


def test_without_a_card(no_card, caplog):
    with pytest.raises(DeviceError, match="there is no card 1"):
        TrainConfig(device="cuda:1")
    assert TrainConfig(device="cpu").training_backend() == "numba"
    with caplog.at_level("INFO", logger="umx_np"):
        assert TrainConfig().training_backend() == "numba"
    assert "training on the processor (there is no card 0)" in caplog.text
    with pytest.raises(ConfigError, match="resident"):
        TrainConfig(resident="yes")
    with pytest.raises(ConfigError, match="tf32=True"):
        TrainConfig(tf32=True)


def test_with_a_card(monkeypatch, caplog):
    class Card:
        def check_products(self, *, amp, tf32):
            if amp and tf32:
                raise ConfigError("amp and tf32")

    monkeypatch.setattr("umx_np.cuda.training.get_cuda_backend", lambda index: Card())
    monkeypatch.setattr(devices, "_why_not_cuda", lambda: "")
    assert TrainConfig(device="cuda:1").training_backend() == "cuda:1"
    with caplog.at_level("INFO", logger="umx_np"):
        assert TrainConfig().training_backend() == "cuda"
    assert "training on cuda:0 (it passed its check)" in caplog.text
    assert TrainConfig(tf32=True, resident="yes").tf32
    with pytest.raises(ConfigError, match="amp and tf32"):
        TrainConfig(device="cuda", amp=True, tf32=True)


def test_the_reference_is_exact():
    with pytest.raises(DeviceError, match="'reference' has no mixed precision"):
        TrainConfig(device="reference", amp=True)


def test_mixed_precision_needs_a_processor(no_card, monkeypatch):
    backend = pytest.importorskip("umx_np.numba_engine.backend")
    monkeypatch.setattr(backend, "has_pairs", lambda: True)
    assert TrainConfig(amp=True).amp
    monkeypatch.setattr(backend, "has_pairs", lambda: False)
    with pytest.raises(DeviceError, match="AVX512-BF16"):
        TrainConfig(amp=True)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("0", (0, 0.0)),
        ("500", (500, 0.0)),
        ("20 batches", (20, 0.0)),
        ("10min", (0, 600.0)),
        ("0.5 m", (0, 30.0)),
        ("2 Minutes", (0, 120.0)),
    ],
)
def test_interval_of_checkpoints(text, interval):
    assert TrainConfig(checkpoint_every=text).checkpoint_interval() == interval


def test_frozen_and_checked_again():
    config = TrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0
    with pytest.raises(ConfigError, match="epochs"):
        config.with_(epochs=0)


def test_whole_tracks_come_one_at_a_time():
    config = TrainConfig(seq_dur=0.0)
    assert (config.batch_size, config.seq_duration) == (1, None)


def test_architecture():
    config = TrainConfig().model_config(44100.0)
    assert (config.nb_bins, config.max_bin, config.hidden_size, config.nb_layers) == (
        2049,
        1487,
        512,
        3,
    )


def test_arguments_and_back():
    config = TrainConfig(n_fft=512, statistics=False, lr=1e-4, output="here", optimizer="sgd")
    arguments = config.to_arguments()
    assert (arguments["nfft"], arguments["debug"]) == (512, True)
    assert TrainConfig.from_arguments({**arguments, "root": "data"}) == config
