"""`OpenUnmix` and `Separator` as objects: arguments, weights in and out, errors."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from helpers.models import CONFIGS, model_of
from tolerances import TOL

import umx_np
from umx_np.config import ModelConfig
from umx_np.devices import cuda_index, devices, get_backend
from umx_np.errors import ConfigError, DeviceError, ShapeError, WeightsError
from umx_np.testing import random_state
from umx_np.weights import TargetWeights
from umx_np.weights.quantization import dequantize, quantize


def test_scalers_are_stored_as_upstream_stores_them():
    mean, scale = np.arange(1.0, 34.0), np.arange(2.0, 35.0)
    model = umx_np.OpenUnmix(33, hidden_size=8, input_mean=mean, input_scale=scale, max_bin=20)
    state = model.state_dict()
    np.testing.assert_allclose(state["input_mean"], -mean[:20])
    np.testing.assert_allclose(state["input_scale"], 1 / scale[:20], rtol=1e-6)
    with pytest.raises(ShapeError, match="input_mean"):
        umx_np.OpenUnmix(33, hidden_size=8, input_mean=mean[:5])


def test_seed_makes_weights_repeatable():
    one, same, other = (umx_np.OpenUnmix(33, hidden_size=8, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.state_dict()["fc1.weight"], same.state_dict()["fc1.weight"])
    assert (one.state_dict()["fc1.weight"] != other.state_dict()["fc1.weight"]).any()


def test_failed_load_keeps_the_old_weights(device):
    config = CONFIGS[0]
    model = model_of(config, device=device, seed=0)
    before = model.state_dict()
    broken = random_state(config, seed=1)
    del broken["fc2.weight"]
    with pytest.raises(WeightsError, match=r"fc2\.weight"):
        model.load_state_dict(broken)
    np.testing.assert_array_equal(model.state_dict()["fc1.weight"], before["fc1.weight"])


def test_model_refuses_what_does_not_fit():
    model = model_of(CONFIGS[0])
    with pytest.raises(ShapeError, match="nb_bins=33"):
        model(np.zeros((1, 2, 20, 4)))
    with pytest.raises(ShapeError, match="layout"):
        model(np.zeros((1, 2, 33, 4)), layout="other")
    with pytest.raises(ShapeError, match="real"):
        model(np.zeros((1, 2, 33, 4), complex))
    assert model(np.zeros((1, 2, 33, 0))).shape == (1, 2, 33, 0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden_size": 7}, "hidden_size=7"),
        ({"nb_layers": 0}, "nb_layers=0"),
        ({"max_bin": 40}, "max_bin=40"),
        ({"nb_bins": 2.5}, r"nb_bins=2\.5"),
    ],
)
def test_bad_architectures(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        umx_np.OpenUnmix(**{"nb_bins": 33, "hidden_size": 8, **kwargs})


class TestSeparator:
    def separator(self, **options):
        models = {name: model_of(CONFIGS[0], seed=i) for i, name in enumerate("ab")}
        return umx_np.Separator(models, n_fft=64, n_hop=16, **options)

    def test_defaults_are_upstream_s(self):
        config = self.separator().config
        assert (config.niter, config.softmask, config.residual) == (0, False, False)
        assert (config.wiener_win_len, config.filterbank) == (300, "torch")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"niter": -1}, "niter=-1"),
            ({"wiener_win_len": -5}, "wiener_win_len=-5"),
            ({"filterbank": "other"}, "filterbank"),
            ({"n_hop": 64}, "n_hop=64"),
            ({"nb_channels": 1}, "nb_channels"),
            ({"residual": "a"}, "residual='a'"),
            ({"sample_rate": 0}, "sample_rate"),
        ],
    )
    def test_bad_options(self, options, message):
        models = {"a": model_of(CONFIGS[0], seed=0)}
        with pytest.raises(ConfigError, match=message):
            umx_np.Separator(models, **{"n_fft": 64, "n_hop": 16, **options})

    def test_no_targets(self):
        with pytest.raises(ConfigError, match="empty"):
            umx_np.Separator({})

    def test_zero_window_is_the_whole_track(self):
        assert self.separator(wiener_win_len=0).config.wiener_win_len is None

    @pytest.mark.parametrize(
        ("audio", "message"),
        [
            (np.zeros((2, 100)), "nb_samples"),
            (np.zeros((1, 3, 100)), "nb_channels=3"),
            (np.zeros((1, 2, 0)), "shape"),
            (np.full((1, 2, 9), np.nan), "NaN"),
            (np.full((1, 2, 9), 1e39), "too large"),
            (np.zeros((1, 2, 9), complex), "dtype=complex128"),
        ],
    )
    def test_bad_audio(self, audio, message):
        with pytest.raises(ShapeError, match=message):
            self.separator()(audio)

    @pytest.mark.parametrize("name", ["__call__", "forward"])
    def test_models_whose_own_code_would_not_run_are_refused(self, name):
        class Louder(umx_np.OpenUnmix):
            pass

        setattr(Louder, name, lambda self, x, **options: 2 * x)
        model = Louder(nb_bins=33, hidden_size=8, seed=0)
        with pytest.raises(
            ConfigError, match=f"'v' is a Louder with its own {name}.*umx_np.wiener"
        ):
            umx_np.Separator({"v": model}, n_fft=64, n_hop=16)

    def test_what_is_no_model_is_refused(self):
        for model in (lambda x: x, object(), None, "vocals"):
            with pytest.raises(ConfigError, match="no OpenUnmix"):
                umx_np.Separator({"v": model}, n_fft=64, n_hop=16)

    def test_subclasses_that_only_add_are_taken(self):
        class Named(umx_np.OpenUnmix):
            title = "mine"

        model = Named(nb_bins=33, hidden_size=8, seed=0)
        separator = umx_np.Separator({"v": model}, n_fft=64, n_hop=16)
        assert separator.target_models == {"v": model}

    @pytest.mark.parametrize("device", ["cpu", "reference"])
    def test_options_may_be_changed(self, device):
        audio = signals.music(500).astype(np.float32)
        separator = self.separator(device=device)
        for name, value in (
            ("niter", 1),
            ("wiener_win_len", 7),
            ("softmask", True),
            ("residual", True),
            ("residual", "rest"),
            ("niter", 0),
            ("wiener_win_len", None),
            ("residual", False),
        ):
            setattr(separator, name, value)
            c = separator.config
            fresh = self.separator(
                niter=c.niter,
                wiener_win_len=c.wiener_win_len,
                softmask=c.softmask,
                residual=separator.residual_name if c.residual else False,
                device=device,
            )
            assert getattr(separator, name) == (bool(value) if name == "residual" else value)
            assert separator.stem_names == fresh.stem_names
            np.testing.assert_array_equal(separator(audio), fresh(audio))
        for name, value in (("niter", -1), ("wiener_win_len", 1.5), ("residual", "a")):
            with pytest.raises(ConfigError, match=name):
                setattr(separator, name, value)
        with pytest.raises(AttributeError):
            separator.nb_targets = 3

    def test_residual_is_named(self):
        assert self.separator(residual="rest").stem_names == ["a", "b", "rest"]
        assert self.separator(residual=True).stem_names == ["a", "b", "residual"]

    def test_a_model_may_come_from_another_device(self):
        models = {"a": model_of(CONFIGS[0], seed=0, device="reference")}
        audio = signals.music(500).astype(np.float32)
        results = [
            umx_np.Separator(models, n_fft=64, n_hop=16, device=device)(audio)
            for device in ("cpu", "reference")
        ]
        assert_close(*results, TOL["separator"]["float32"], dtype=np.float32)


class TestPrecision:
    def test_fast_is_close_and_different(self):
        config = ModelConfig(nb_bins=33, hidden_size=32, max_bin=20)
        models = {"a": model_of(config, seed=0), "b": model_of(config, seed=1)}
        audio = signals.music(4000).astype(np.float32)
        full, fast = (
            umx_np.Separator(models, niter=1, n_fft=64, n_hop=16, precision=precision)(audio)
            for precision in ("full", "fast")
        )
        assert_close(fast, full, TOL["separator_fast"]["bfloat16"], dtype=np.float32)
        assert (fast != full).any()

    def test_results_are_written_to_memory_that_lies_apart(self, device):
        config = CONFIGS[0]
        network = get_backend(device).network(config, random_state(config, seed=0))
        rng = np.random.default_rng(0)
        z = rng.standard_normal((5, config.hidden_size)).astype(np.float32)
        mags = rng.random((5, 2, config.nb_bins), dtype=np.float32)
        out = np.zeros((2, 5, config.nb_bins), np.float32).swapaxes(0, 1)
        network.decode(z, mags, out=out)
        assert out.any()
        np.testing.assert_allclose(out, network.decode(z, mags), rtol=1e-6)

    def test_rounded_weights_are_not_given_out(self):
        config = ModelConfig(nb_bins=33, hidden_size=8)
        network = get_backend("cpu", precision="fast").network(config, random_state(config, seed=0))
        with pytest.raises(ConfigError, match="precision='fast'"):
            network.state_dict()

    @pytest.mark.parametrize("device", [None, 3, b"cpu", ["cpu"], object(), dict, np.ones(2)])
    def test_devices_that_are_no_text(self, device):
        with pytest.raises(ConfigError, match="device="):
            get_backend(device)
        with pytest.raises(ConfigError, match="device="):
            cuda_index(device)

    def test_int8_is_close_and_different(self):
        config = ModelConfig(nb_bins=33, hidden_size=32, max_bin=20)
        models = {"a": model_of(config, seed=0), "b": model_of(config, seed=1)}
        audio = signals.music(4000).astype(np.float32)
        full, int8 = (
            umx_np.Separator(
                models, niter=1, n_fft=64, n_hop=16, precision=precision, device="cpu"
            )(audio)
            for precision in ("full", "int8")
        )
        assert_close(int8, full, TOL["separator_int8"]["int8"], dtype=np.float32)
        assert (int8 != full).any()

    @pytest.mark.parametrize("stored", [False, True])
    def test_int8_weights_go_everywhere(self, stored):
        """A bundle in eight bits also computes in full precision, and networks keep no others."""
        config = ModelConfig(nb_bins=33, hidden_size=8)
        state = quantize(random_state(config, seed=0))
        weights = TargetWeights(config, state if stored else dequantize(state))
        mags = np.abs(signals.music(33)).astype(np.float32).reshape(1, 2, 33, 1)
        for device in ("cpu", "reference"):
            full = umx_np.OpenUnmix.from_weights(weights, device=device)
            np.testing.assert_array_equal(
                full.state_dict()["fc1.weight"], dequantize(state)["fc1.weight"]
            )
        int8 = umx_np.OpenUnmix.from_weights(weights, device=get_backend("cpu", precision="int8"))
        assert int8(mags).shape == mags.shape
        with pytest.raises(ConfigError, match="precision='int8' keeps rounded weights only"):
            int8.state_dict()

    def test_unknown_precision(self):
        with pytest.raises(ConfigError, match="precision='half'"):
            get_backend("cpu", precision="half")
        with pytest.raises(ConfigError, match="reference"):
            get_backend("reference", precision="fast")


class TestDevices:
    def test_missing_device_says_why(self, monkeypatch):
        def get_device(index=0):
            raise DeviceError("there is no card")

        monkeypatch.setattr("umx_np.cuda.backend.get_device", get_device)
        with pytest.raises(DeviceError, match="device='cuda:0' is not available: there is no card"):
            get_backend("cuda:0")
        with pytest.raises(ConfigError, match="device='tpu'"):
            get_backend("tpu")
        rows = {row["name"]: row for row in devices()}
        assert rows["cpu"]["available"]
        assert not rows["cuda"]["available"]
        assert rows["cuda"]["reason"] == "there is no card"

    def test_cuda_of_this_machine_is_there_or_says_why(self):
        for row in devices():
            assert row["available"] != bool(row["reason"])

    def test_threads_are_checked(self):
        with pytest.raises(ConfigError, match="threads=0"):
            get_backend("cpu", threads=0)

    def test_instruction_set_can_be_chosen(self, monkeypatch):
        from umx_np.backends.cpu import describe

        monkeypatch.setenv("UMX_NP_ISA", "portable")
        assert describe()["level"] == "portable"
        monkeypatch.setenv("UMX_NP_ISA", "fortytwo")
        with pytest.raises(DeviceError, match="fortytwo"):
            get_backend("cpu")


@pytest.mark.parametrize(
    "name", ["umxm", "umx", "umxhq", pytest.param("umxl", marks=pytest.mark.slow), "umxse"]
)
def test_named_models_without_weights(name):
    """The functions with Open-Unmix's names make separators of the published architecture."""
    separator = getattr(umx_np, name)(pretrained=False, targets=None)
    assert separator.config.niter == 1
    networks = getattr(umx_np, f"{name}_spec")(pretrained=False)
    assert list(networks) == separator.target_names
    assert getattr(umx_np, name).__doc__.startswith(("Small", "Stereo", "Large", "Speech"))


def test_some_weights_may_be_replaced():
    model = umx_np.OpenUnmix(nb_bins=33, hidden_size=8, seed=0)
    old = model.state_dict()
    part = {"fc1.weight": 2 * old["fc1.weight"], "mine": np.zeros(3)}
    with pytest.raises(WeightsError, match="missing"):
        model.load_state_dict(part)
    result = model.load_state_dict(part, strict=False)
    assert result.unexpected_keys == ["mine"]
    assert result.missing_keys == [
        name for name in old if name != "fc1.weight" and "num_batches" not in name
    ]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, part.get(name, old[name]))
    assert model.load_state_dict(old) == ([], [])
    with pytest.raises(WeightsError, match="shape"):
        model.load_state_dict({"fc1.weight": np.zeros((1, 1))}, strict=False)
