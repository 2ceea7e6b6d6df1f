"""`device="cuda"` behind the backend contract: arrays of the host in and out."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from helpers.models import CONFIGS, model_of
from tolerances import TOL

import umx_np
from umx_np import devices as doors
from umx_np.config import ModelConfig
from umx_np.cuda import backend as cuda
from umx_np.cuda import device as devices_of_cuda
from umx_np.cuda import host_network as cuda_network
from umx_np.cuda.backend import CudaBackend
from umx_np.cuda.proof import LIMITS, Proof
from umx_np.devices import devices, get_backend, on_cuda
from umx_np.errors import ConfigError, DeviceError
from umx_np.testing import random_state


@pytest.fixture
def ops(any_device) -> CudaBackend:
    return CudaBackend(any_device)


class TestDevices:
    @pytest.fixture
    def installed(self, monkeypatch, emulated_device):
        """One card, whatever is really there."""

        def get_device(index=0):
            if index:
                raise DeviceError(f"index={index}, but there is 1 CUDA device")
            return emulated_device

        monkeypatch.setattr(cuda, "get_device", get_device)
        monkeypatch.setattr("umx_np.cuda.proof.get_device", get_device)

    @pytest.fixture
    def missing(self, monkeypatch):
        def get_device(index=0):
            raise DeviceError("CuPy cannot be imported; install it")

        monkeypatch.setattr(cuda, "get_device", get_device)
        monkeypatch.setattr("umx_np.cuda.proof.get_device", get_device)

    @pytest.fixture(autouse=True)
    def _not_experimental(self, monkeypatch, tmp_path):
        """As if a device had run the kernels; results of checks are kept elsewhere."""
        monkeypatch.setattr(doors, "CUDA_IS_EXPERIMENTAL", False)
        monkeypatch.setenv("UMX_NP_HOME", str(tmp_path))
        doors._why_not_cuda.cache_clear()
        yield
        doors._why_not_cuda.cache_clear()

    @pytest.fixture
    def proved(self, monkeypatch):
        monkeypatch.setattr(
            "umx_np.cuda.proof.prove", lambda device: Proof(dict.fromkeys(LIMITS, 1e-6))
        )

    @pytest.mark.usefixtures("installed")
    def test_names(self):
        for name in ("cuda", "cuda:0"):
            ops = get_backend(name)
            assert isinstance(ops, CudaBackend)
            assert (ops.name, ops.threads, ops.precision) == ("cuda:0", 1, "full")
            assert on_cuda(ops)
        assert not on_cuda(get_backend("cpu"))
        with pytest.raises(DeviceError, match=r"device='cuda:1' is not available: index=1"):
            get_backend("cuda:1")
        for name in ("cuda:", "cuda:x", "cuda:-1", "cudas"):
            with pytest.raises(ConfigError, match=f"device='{name}' must be"):
                get_backend(name)
        with pytest.raises(ConfigError, match="precision='half'"):
            get_backend("cuda", precision="half")

    @pytest.mark.usefixtures("installed", "proved")
    def test_auto_takes_the_card(self, caplog):
        with caplog.at_level(logging.INFO, logger="umx_np"):
            ops = get_backend("auto", precision="fast")
        assert (ops.name, ops.precision) == ("cuda:0", "fast")
        assert "device='auto': using cuda:0 (emulator" in caplog.text
        assert "it passed its check" in caplog.text
        assert doors.training_backend_name("auto") == "cuda"

    @pytest.mark.usefixtures("installed", "proved")
    def test_auto_takes_none_while_cuda_is_experimental(self, caplog, monkeypatch):
        monkeypatch.setattr(doors, "CUDA_IS_EXPERIMENTAL", True)
        with caplog.at_level(logging.INFO, logger="umx_np"):
            assert get_backend("auto").name == "cpu"
            assert doors.training_backend_name("auto") == "numba"
        assert caplog.text.count("CUDA is experimental") == 2
        assert get_backend("cuda").name == "cuda:0"
        assert devices()[-1]["experimental"]

    @pytest.mark.usefixtures("installed")
    def test_auto_takes_none_that_fails_its_check(self, caplog, monkeypatch):
        errors = {"separation": 1e-6, "gradients": float("nan")}
        monkeypatch.setattr("umx_np.cuda.proof.prove", lambda device: Proof(errors))
        with caplog.at_level(logging.INFO, logger="umx_np"):
            assert get_backend("auto").name == "cpu"
        assert "the check of the CUDA device failed" in caplog.text
        assert get_backend("cuda").name == "cuda:0"

    @pytest.mark.usefixtures("missing")
    def test_auto_without_a_card(self, caplog):
        with caplog.at_level(logging.INFO, logger="umx_np"):
            assert get_backend("auto").name == "cpu"
        assert "no CUDA device: CuPy cannot be imported; install it" in caplog.text
        with pytest.raises(DeviceError, match="device='cuda' is not available: CuPy"):
            get_backend("cuda")
        row = devices()[-1]
        assert (row["name"], row["available"]) == ("cuda", False)
        assert row["reason"] == "CuPy cannot be imported; install it"

    @pytest.mark.usefixtures("installed")
    def test_what_is_said_of_a_card(self):
        row = devices()[-1]
        assert (row["name"], row["available"], row["reason"]) == ("cuda:0", True, "")
        assert row["card"] == "emulator"
        assert row["memory"] >= row["free_memory"] > 0
        assert row["compute_capability"].count(".") == 1
        assert set(row["recurrence"]) == {"umxhq", "umxl"}

    @pytest.mark.usefixtures("installed")
    def test_info(self, capsys):
        from umx_np.commands import main

        assert main(["info"]) == 0
        text = capsys.readouterr().out
        assert "device cuda:0" in text
        assert "emulator, compute capability 9.0" in text
        assert "not made; umx-np info --check makes it" in text
        assert "experimental" not in text
        assert "  umxl" in text

    def test_repr_names_card_and_kernel(self, emulated_device):
        text = repr(CudaBackend(emulated_device, "fast"))
        assert text.startswith("cuda:0 (emulator, fast precision, ")
        assert "kernel for the recurrence" in text


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("step", [7, 1000])
def test_model(ops, config, step, monkeypatch):
    monkeypatch.setattr(cuda_network, "_STEP_FRAMES", step)
    models = [model_of(config, device=device) for device in (ops, "reference")]
    state = random_state(config, seed=1)
    for model in models:
        model.load_state_dict(state)
    x = signals.magnitudes(config, nb_frames=30, nb_samples=2)
    x.flags.writeable = False
    assert_close(models[0](x), models[1](x), TOL["network"]["float32"], dtype=np.float32)
    assert models[0](x[..., :0]).shape == (*x.shape[:-1], 0)
    back = models[0].state_dict()
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


def test_models_of_another_device_are_moved(any_device):
    config = CONFIGS[0]
    models = {
        "a": umx_np.OpenUnmix(33, hidden_size=8, max_bin=config.max_bin, seed=0, device="cpu")
    }
    audio = signals.music(700).astype(np.float32)
    here, there = (
        umx_np.Separator(models, n_fft=64, n_hop=16, device=device)(audio)
        for device in ("cpu", CudaBackend(any_device))
    )
    assert_close(there, here, TOL["separator"]["float32"], dtype=np.float32)


def test_live_separation(ops):
    audio = signals.music(600)[0].astype(np.float32)
    architecture = {"nb_bins": 33, "hidden_size": 8, "max_bin": 20, "unidirectional": True}
    results = []
    for device in (ops, "cpu"):
        models = {
            name: umx_np.OpenUnmix(**architecture, seed=seed, device=device)
            for seed, name in enumerate("ab")
        }
        live = umx_np.Separator(models, niter=1, n_fft=64, n_hop=16, device=device).stream()
        blocks = [live.process(audio[:, i : i + 150]) for i in range(0, 600, 150)]
        results.append(np.concatenate([*blocks, live.flush()], axis=2))
    assert_close(*results, TOL["separator"]["float32"], dtype=np.float32)


class TestPrecision:
    def test_fast_rounds_the_products_of_the_networks(self, emulated_device):
        config = ModelConfig(nb_bins=33, hidden_size=32, max_bin=20)
        state = random_state(config, seed=0)
        mags = signals.magnitudes(config, nb_frames=9)[0].transpose(2, 0, 1).astype(np.float32)
        read = np.ascontiguousarray(mags[:, :, :20])
        full, fast = (
            CudaBackend(emulated_device, precision).network(config, state).encode(read)
            for precision in ("full", "fast")
        )
        assert_close(fast, full, TOL["separator_fast"]["tf32"], dtype=np.float32)
        assert (fast != full).any()
        weights = CudaBackend(emulated_device, "fast").network(config, state).state_dict()
        np.testing.assert_array_equal(weights["fc1.weight"], state["fc1.weight"])

    def test_cards_without_tf32_compute_in_full(self, emulated_device, monkeypatch):
        monkeypatch.setattr(emulated_device, "compute_capability", (7, 5))
        config = CONFIGS[0]
        state = random_state(config, seed=0)
        mags = np.ones((3, 2, 20), np.float32)
        full, fast = (
            CudaBackend(emulated_device, precision).network(config, state).encode(mags)
            for precision in ("full", "fast")
        )
        np.testing.assert_array_equal(full, fast)


def test_copies_stay_on_the_device_and_pickles_name_it(ops, monkeypatch):
    state = random_state(CONFIGS[0], seed=2)
    network = ops.network(CONFIGS[0], state)
    mags = signals.magnitudes(CONFIGS[0], nb_frames=7)[0].transpose(2, 0, 1)
    mags = np.ascontiguousarray(mags, np.float32)
    copied_ops, copied = copy.deepcopy((ops, network))
    assert copied_ops.device is ops.device
    np.testing.assert_array_equal(copied.whole_track(mags), network.whole_track(mags))
    monkeypatch.setattr(devices_of_cuda, "get_device", _device_of_number)
    monkeypatch.setitem(_DEVICES, ops.device.index, ops.device)
    sent = pickle.loads(pickle.dumps(network))
    np.testing.assert_array_equal(sent.whole_track(mags), network.whole_track(mags))


_DEVICES: dict = {}


def _device_of_number(index):
    return _DEVICES[index]
