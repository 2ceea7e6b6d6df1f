"""`device="cuda"` behind the backend contract: arrays of the host in and out."""

from __future__ import annotations

import copy
import inspect
import logging
import pickle

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from tolerances import TOL

import umx_np
from umx_np import devices as doors
from umx_np.backends import contracts as base
from umx_np.backends.contracts import FilterInput, WienerOptions
from umx_np.backends.cpu import CpuBackend, CpuFilter, CpuNetwork
from umx_np.backends.reference import ReferenceBackend, ReferenceFilter, ReferenceNetwork
from umx_np.config import ModelConfig
from umx_np.cuda import backend as cuda
from umx_np.cuda import device as devices_of_cuda
from umx_np.cuda import host_network as cuda_network
from umx_np.cuda.backend import CudaBackend, CudaFilter
from umx_np.cuda.proof import LIMITS, Proof
from umx_np.devices import devices, get_backend, on_cuda
from umx_np.errors import ConfigError, DeviceError, ShapeError
from umx_np.testing import random_state

CONFIGS = [
    ModelConfig(nb_bins=33, hidden_size=8, max_bin=20),
    ModelConfig(nb_bins=33, hidden_size=10, nb_layers=1, unidirectional=True),
    ModelConfig(nb_bins=17, hidden_size=34, nb_channels=1, nb_layers=2),
]


@pytest.fixture
def ops(any_device) -> CudaBackend:
    return CudaBackend(any_device)


def public_methods(protocol: type) -> list[str]:
    return [
        name
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and not name.startswith("_")
    ]


@pytest.mark.parametrize(
    ("protocol", "name", "kind"),
    [
        (protocol, name, kind)
        for protocol, kinds in (
            (base.Backend, (ReferenceBackend, CpuBackend, CudaBackend)),
            (base.Network, (ReferenceNetwork, CpuNetwork, cuda_network.CudaNetwork)),
            (base.WienerFilter, (ReferenceFilter, CpuFilter, CudaFilter)),
        )
        for name in public_methods(protocol)
        for kind in kinds
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_backend_has_the_signatures_of_the_contract(protocol, name, kind):
    wanted = inspect.signature(getattr(protocol, name)).parameters.values()
    there = inspect.signature(getattr(kind, name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in wanted] == [
        (p.name, p.kind, p.default) for p in there
    ]


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


@pytest.mark.parametrize("filterbank", ["torch", "asteroid"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n_fft", "n_hop", "center"), [(64, 16, True), (15, 4, False)])
def test_stft_and_back(ops, filterbank, dtype, n_fft, n_hop, center):
    x = signals.music(1001)[0].astype(dtype)
    x.flags.writeable = False
    options = {"center": center, "filterbank": filterbank}
    spectrum = umx_np.stft(x, n_fft, n_hop, device=ops, **options)
    expected = umx_np.stft(x.astype(np.float64), n_fft, n_hop, device="reference", **options)
    name = np.dtype(dtype).name
    tolerance = TOL["stft" if filterbank == "torch" else "istft"][name]
    assert_close(spectrum, expected, tolerance, dtype=np.result_type(dtype, np.complex64))
    options["n_fft"] = n_fft
    back = umx_np.istft(spectrum, n_hop, length=1001, device=ops, **options)
    expected = umx_np.istft(
        spectrum.astype(np.complex128), n_hop, length=1001, device="reference", **options
    )
    assert_close(back, expected, TOL["istft"][name], dtype=dtype)


@pytest.mark.parametrize("nb_channels", [1, 2])
@pytest.mark.parametrize("iterations", [0, 2])
def test_public_wiener(ops, nb_channels, iterations):
    mix = signals.spectra(20, 33, nb_channels, level=40.0)
    mags = signals.estimates_for(mix, 3)
    y = umx_np.wiener(
        mags.astype(np.float32), mix.astype(np.complex64), iterations, residual=True, device=ops
    )
    expected = umx_np.wiener(mags, mix, iterations, residual=True, device="reference")
    assert_close(y, expected, TOL["wiener"]["float32"], dtype=np.complex64)
    assert umx_np.wiener(mags[:0], mix[:0], iterations, device=ops).shape == (0, *y.shape[1:3], 3)
    with pytest.raises(ShapeError, match="nb_channels=3"):
        umx_np.wiener(np.ones((4, 5, 3, 2)), np.ones((4, 5, 3), complex), device=ops)


def test_statistics_of_a_track(ops):
    """As a separator without windows calls it, with arrays of the host."""
    options = WienerOptions(residual=True)
    mix = signals.spectra(30, 17, 2).transpose(2, 0, 1).astype(np.complex64)
    mags = np.abs(mix)[None].transpose(0, 2, 1, 3) * np.float32([[[[0.3]]], [[[0.5]]]])
    mix, mags = np.ascontiguousarray(mix), np.ascontiguousarray(mags.astype(np.float32))
    both = [np.zeros((2, 3, 4, 17)) for _ in range(2)]
    results = []
    filters = ops.wiener(options), ReferenceFilter(options)
    for wiener, statistics in zip(filters, both, strict=True):
        for level in range(2):
            for part in (slice(0, 13), slice(13, 30)):
                some = (np.ascontiguousarray(array[:, part]) for array in (mix, mags))
                wiener.accumulate(FilterInput(*some, 1.5), statistics, level)
        results.append(wiener.apply(FilterInput(mix, mags, 1.5), statistics))
    np.testing.assert_allclose(both[0], both[1], rtol=1e-12, atol=1e-12)
    assert_close(*results, TOL["wiener"]["float32"], dtype=np.complex64)
    out = np.empty_like(results[0])
    assert filters[0].apply(FilterInput(mix, mags, 1.5), both[0], out) is out
    np.testing.assert_array_equal(out, results[0])


def test_magnitude_into_an_array(ops):
    spectrum = signals.spectra(5, 9, 2).transpose(2, 0, 1).astype(np.complex64)
    out = np.empty((5, 2, 7), np.float32)
    assert ops.magnitude(spectrum, nb_bins=7, mono=False, out=out) is out
    np.testing.assert_allclose(out, np.abs(spectrum[..., :7]).transpose(1, 0, 2), rtol=3e-7)


def test_map_is_in_order(ops):
    assert ops.map(lambda x: x * x, range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("level", [1e-6, 1.0, 1e3])
def test_network_stage_by_stage(ops, config, level):
    state = random_state(config, seed=3)
    fast, slow = ops.network(config, state), ReferenceNetwork(config, state)
    nb_frames, tolerance = 13, TOL["network"]["float32"]
    mags = signals.magnitudes(config, nb_frames=nb_frames)[0].transpose(2, 0, 1) * level
    mags = np.ascontiguousarray(mags.astype(np.float32))
    mags.flags.writeable = False
    read = mags[:, :, : config.nb_input_bins]
    encoded = slow.encode(read.astype(np.float64))
    assert_close(fast.encode(read), encoded, tolerance, dtype=np.float32)
    parts = [encoded]
    spans = [slice(0, 5), slice(5, 6), slice(6, nb_frames)]
    for layer in range(config.nb_layers):
        outputs = []
        for direction in range(config.nb_directions):
            expected = slow.scan(layer, direction, parts, slow.initial_state())
            blocks, memory = {}, fast.initial_state()
            for span in spans[::-1] if direction else spans:
                arrivals = [part[span].astype(np.float32) for part in parts]
                blocks[span.start] = fast.scan(layer, direction, arrivals, memory)
            joined = np.concatenate([blocks[span.start] for span in spans])
            assert_close(joined, expected, TOL["lstm_scan"]["float32"], dtype=np.float32)
            outputs.append(expected)
        parts = outputs
    parts = [encoded, *parts]
    z = slow.combine(parts)
    single = [part.astype(np.float32) for part in parts]
    assert_close(fast.combine(single), z, tolerance, dtype=np.float32)
    expected = slow.decode(z, mags.astype(np.float64))
    out = np.empty(mags.shape, np.float32)
    assert fast.decode(z.astype(np.float32), mags, out=out) is out
    assert_close(out, expected, tolerance, dtype=np.float32)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("step", [7, 1000])
def test_model(ops, config, step, monkeypatch):
    monkeypatch.setattr(cuda_network, "_STEP_FRAMES", step)
    models = [
        umx_np.OpenUnmix(
            config.nb_bins,
            config.nb_channels,
            config.hidden_size,
            config.nb_layers,
            config.unidirectional,
            max_bin=config.max_bin,
            device=device,
        )
        for device in (ops, "reference")
    ]
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
