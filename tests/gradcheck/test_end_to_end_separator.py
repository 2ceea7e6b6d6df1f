"""`WaveformSeparator`: equal to `Separator`, and its gradients by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite
from helpers.upstream import options_id
from threadpoolctl import threadpool_info, threadpool_limits
from tolerances import TOL

from umx_np.config import ModelConfig, SeparatorConfig
from umx_np.errors import ConfigError, ShapeError
from umx_np.nn import TrainableNetwork
from umx_np.testing import GradientError, gradcheck, random_bundle_of, random_state
from umx_np.training import chain
from umx_np.training.end_to_end import WaveformSeparator

STEREO = random_bundle_of(
    ModelConfig(nb_bins=33, hidden_size=8, nb_layers=2, max_bin=25), ("vocals", "rest"), seed=100
)
MONO = random_bundle_of(
    ModelConfig(nb_bins=33, nb_channels=1, hidden_size=8, nb_layers=1), ("a", "b", "c"), seed=101
)
SINGLE = random_bundle_of(ModelConfig(nb_bins=33, hidden_size=8), ("vocals",), seed=102)
BUNDLES = {"stereo": STEREO, "mono": MONO, "single": SINGLE}
# Far from the kinks of both ReLUs, which finite differences would step over.
SHIFTS = {"bn2.bias": 5.0, "output_mean": 20.0}

OPTIONS = [
    {"niter": 0},
    {"niter": 1},
    {"niter": 2, "residual": True},
    {"niter": 0, "residual": True},
    {"niter": 1, "softmask": True},
    {"niter": 0, "softmask": True, "residual": True},
    {"niter": 1, "wiener_win_len": 6},
    {"niter": 2, "wiener_win_len": None},
]


def trainable(bundle, **options):
    options = {"backend": "reference", "dtype": np.float64, **options}
    return WaveformSeparator.from_bundle(bundle, **options)


def audio_for(*, nb_samples=2, nb_channels=2, nb_timesteps=330, level=1.0):
    sound = signals.music(nb_timesteps, nb_samples=nb_samples, nb_channels=nb_channels, seed=103)
    return level * sound


def weights_of_loss(shape):
    return np.random.default_rng(104).standard_normal(shape)


# -- Forward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
@pytest.mark.parametrize("name", BUNDLES)
def test_evaluation_mode_is_the_separator(name, options):
    audio = audio_for()
    separator = trainable(BUNDLES[name], **options)
    stems, _ = separator.forward(audio, training=False)
    desired = separator.separator(device="reference")(audio)
    assert_close(stems, desired, TOL["end_to_end_same"]["float64"], dtype=np.float64)

    audio = audio.astype(np.float32)
    separator = trainable(BUNDLES[name], dtype=np.float32, **options)
    stems, _ = separator.forward(audio, training=False)
    desired = separator.separator()(audio)
    assert_close(stems, desired, TOL["end_to_end_same"]["float32"], dtype=np.float32)


def test_three_channels_under_mono_networks():
    """One network input for any number of channels; the filter solves 3 x 3 systems."""
    audio = audio_for(nb_channels=3)
    separator = trainable(MONO, niter=1)
    stems, cache = separator.forward(audio, training=False)
    desired = separator.separator(device="reference")(audio)
    assert_close(stems, desired, TOL["end_to_end_same"]["float64"], dtype=np.float64)
    assert separator.audio_gradient(stems, cache).shape == audio.shape
    separator = trainable(MONO, niter=1, dtype=np.float32)
    assert separator.forward(audio, training=False)[0].shape == stems.shape


def test_arguments_do_not_change():
    audio = audio_for()
    separator = trainable(STEREO, niter=1)
    stems, cache = separator.forward(audio, training=False)
    before = audio.copy(), stems.copy()
    gradients = separator.backward(stems, cache)
    np.testing.assert_array_equal(audio, before[0])
    np.testing.assert_array_equal(stems, before[1])
    # Nor does the caller's array matter after the forward pass.
    _, cache = separator.forward(audio, training=False)
    audio[:] = 0.0
    again = separator.backward(stems, cache)
    np.testing.assert_array_equal(again["rest"]["fc1.weight"], gradients["rest"]["fc1.weight"])


# -- Gradients -----------------------------------------------------------------------------------


def check_parameters(bundle, *, training=False, level=0.005, **options):
    """Check the gradients of every network, all its parameters at once and in proportion.

    The sound is soft: with loud sound and few sources the filter is nearly singular, and amplifies
    rounding errors that finite differences amplify again.
    """
    separator = trainable(bundle, **options)
    for network in separator.networks.values():
        for key, shift in SHIFTS.items():
            network.parameters[key] += shift
    # Two windows of the filter, the second one shorter.
    audio = audio_for(nb_timesteps=150, level=level)
    for name, network in separator.networks.items():
        start = {key: value.copy() for key, value in network.parameters.items()}
        ends = np.cumsum([value.size for value in start.values()])[:-1]

        def stems_of(factors, name=name, network=network, start=start, ends=ends):
            for (key, value), factor in zip(start.items(), np.split(factors, ends), strict=True):
                network.parameters[key][...] = value * factor.reshape(value.shape)
            # The same dropout masks every time.
            rng = np.random.default_rng(7)
            stems, cache = separator.forward(audio, training=training, rng=rng)

            def back(d_stems):
                gradients = separator.backward(d_stems, cache)
                assert list(gradients) == list(bundle.targets)
                parts = [(gradients[name][key] * value).ravel() for key, value in start.items()]
                return {"factors": np.concatenate(parts)}

            return stems, back

        size = sum(value.size for value in start.values())
        gradcheck(stems_of, {"factors": np.ones(size)}, rtol=STEP_ERROR)
        for key, value in start.items():
            network.parameters[key][...] = value


STEP_ERROR = TOL["end_to_end_steps"]["float64"].rtol

# The softmask of a single target is 1, its gradient all but vanishes.
PARAMETER_CASES = [
    pytest.param(name, options, id=f"{name}-{options_id(options)}")
    for name in BUNDLES
    for options in OPTIONS
    if name != "single" or not options.get("softmask")
]


@pytest.mark.parametrize(("name", "options"), PARAMETER_CASES)
def test_parameters(name, options):
    check_parameters(BUNDLES[name], **options)


@pytest.mark.parametrize("options", OPTIONS[:3], ids=options_id)
def test_parameters_in_training_mode(options):
    """With batch statistics and dropout."""
    check_parameters(STEREO, training=True, **options)


def test_parameters_with_a_loud_mixture():
    check_parameters(STEREO, niter=1, level=50.0)


class Constant:
    """Stands for a network that gives the same magnitudes whatever it sees."""

    def __init__(self, network, y):
        self.config, self.dtype, self._y = network.config, network.dtype, y

    def forward(self, x, **_):
        return self._y, None


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
@pytest.mark.parametrize(("name", "level"), [*((name, 0.02) for name in BUNDLES), ("stereo", 50.0)])
def test_audio(name, options, level):
    """The networks are constants for this gradient."""
    separator = trainable(BUNDLES[name], **options)
    audio = audio_for(level=level)
    _, cache = separator.forward(audio, training=False)
    separator.networks = {
        name: Constant(network, y)
        for (name, network), y in zip(separator.networks.items(), cache.targets, strict=True)
    }

    def stems_of(audio):
        stems, cache = separator.forward(audio)
        return stems, lambda d_stems: {"audio": separator.audio_gradient(d_stems, cache)}

    gradcheck(stems_of, {"audio": audio}, rtol=STEP_ERROR)


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
@pytest.mark.parametrize("kind", ["silence", "gap", "dual mono", "short"])
def test_difficult_signals_have_finite_gradients(kind, options):
    audio = {
        "silence": np.zeros((2, 2, 330)),
        "gap": signals.gapped(660, seed=107),
        "dual mono": signals.dual_mono(330, seed=107),
        "short": audio_for(nb_timesteps=3),
    }[kind]
    separator = trainable(STEREO, dtype=np.float32, **options)
    stems, cache = separator.forward(audio, training=False)
    assert_finite(stems, shape=stems.shape, dtype=np.float32)
    d_stems = weights_of_loss(stems.shape)
    assert_finite(separator.audio_gradient(d_stems, cache), shape=audio.shape, dtype=np.float32)
    for name, gradients in separator.backward(d_stems, cache).items():
        parameters = separator.networks[name].parameters
        assert list(gradients) == list(parameters)
        for key, gradient in gradients.items():
            assert_finite(gradient, shape=parameters[key].shape, dtype=np.float32)


def test_single_precision_gradients():
    audio = audio_for()
    found = {}
    for dtype in (np.float32, np.float64):
        separator = trainable(STEREO, dtype=dtype, niter=1)
        stems, cache = separator.forward(audio, training=False)
        found[dtype] = separator.backward(weights_of_loss(stems.shape), cache)
    for name, gradients in found[np.float32].items():
        for key, gradient in gradients.items():
            tolerance = TOL["end_to_end_gradient"]["float32"]
            assert_close(gradient, found[np.float64][name][key], tolerance, dtype=np.float32)


def test_compiled_networks():
    """The kernels that train, which reuse memory, give the gradients of the reference."""
    pytest.importorskip("numba")
    audio, found = audio_for(), {}
    for backend in ("reference", "numba"):
        separator = trainable(STEREO, backend=backend, dtype=np.float32, niter=1)
        for _ in range(2):
            stems, cache = separator.forward(audio, rng=np.random.default_rng(7))
            found[backend] = separator.backward(weights_of_loss(stems.shape), cache)
    for name, gradients in found["numba"].items():
        for key, gradient in gradients.items():
            if key != "input_mean":  # taken out by the batch norm; its gradient is rounding errors
                desired = found["reference"][name][key]
                tolerance = TOL["end_to_end_gradient"]["float32"]
                assert_close(gradient, desired, tolerance, dtype=np.float32)


# -- Sharpness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("nb_samples", [1, 2, 5])
def test_threads_share_the_samples_without_a_trace(nb_samples):
    audio = audio_for(nb_samples=nb_samples).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        separator = trainable(STEREO, dtype=np.float32, threads=threads)
        stems, cache = separator.forward(audio, training=False)
        d_audio = separator.audio_gradient(2 * stems, cache)
        gradients = separator.backward(2 * stems, cache)
        found.append((stems, d_audio, gradients))
    for stems, d_audio, gradients in found[1:]:
        np.testing.assert_array_equal(stems, found[0][0])
        np.testing.assert_array_equal(d_audio, found[0][1])
        for name, arrays in gradients.items():
            for key, array in arrays.items():
                np.testing.assert_array_equal(array, found[0][2][name][key], err_msg=key)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_thread_is_told(monkeypatch, threads):
    separator = trainable(STEREO, threads=threads)

    def broken(*arguments, **options):
        raise FloatingPointError("the filter failed")

    monkeypatch.setattr(chain, "wiener", broken)
    with pytest.raises(FloatingPointError, match="the filter failed"):
        separator.forward(audio_for(nb_samples=4), training=False)


class OnesForZeros:
    """NumPy, but for one mistake."""

    zeros_like = staticmethod(np.ones_like)

    def __getattr__(self, name):
        return getattr(np, name)


def test_a_gradient_of_the_dropped_residual_is_found(monkeypatch):
    monkeypatch.setattr(chain, "np", OnesForZeros())
    check_parameters(STEREO, niter=1)  # where nothing is dropped
    with pytest.raises(GradientError, match="WRONG"):
        check_parameters(SINGLE, niter=1)


def test_windows_that_are_filtered_together_are_found(monkeypatch):
    separator = trainable(STEREO, niter=1, wiener_win_len=5)
    audio = audio_for()
    stems, cache = separator.forward(audio, training=False)
    right = separator.backward(stems, cache)
    _, cache = separator.forward(audio, training=False)
    monkeypatch.setattr(separator._chain, "_windows", lambda nb_frames: [slice(0, nb_frames)])
    wrong = separator.backward(stems, cache)
    key = "fc1.weight"
    difference = np.linalg.norm(wrong["rest"][key] - right["rest"][key])
    assert difference > 1e-3 * np.linalg.norm(right["rest"][key])


# -- Networks side by side -----------------------------------------------------------------------


def results_of(separator):
    audio = audio_for().astype(np.float32)
    stems, cache = separator.forward(audio, rng=np.random.default_rng(5))
    found = {"stems": stems}
    for target, gradients in separator.backward(stems, cache).items():
        found |= {f"{target} {name}": value for name, value in gradients.items()}
        found |= {f"{target} {n}": v for n, v in separator.networks[target].buffers.items()}
    return found


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_networks_side_by_side_compute_what_they_do_in_turn(dropout):
    options = {"backend": "numba", "dtype": np.float32, "dropout": dropout}
    bundle = random_bundle_of(
        ModelConfig(nb_bins=33, hidden_size=8, nb_layers=2), ("a", "b", "c", "d"), seed=110
    )
    in_turn = trainable(bundle, threads=1, **options)
    desired = results_of(in_turn)
    assert all(np.isfinite(value).all() for value in desired.values())
    for threads in (2, 4):
        separator = trainable(bundle, threads=threads, **options)
        assert separator._side_by_side == threads
        assert [net.threads for net in separator.networks.values()] == [1] * 4
        actual = results_of(separator)
        assert actual.keys() == desired.keys()
        for name, value in desired.items():
            np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize(("bundle", "threads"), [(STEREO, 3), (MONO, 2)], ids=["2 / 3", "3 / 2"])
def test_threads_share_each_network_where_it_does_not_come_out_even(bundle, threads):
    separator = trainable(bundle, backend="numba", dtype=np.float32, threads=threads)
    assert separator._side_by_side == 1
    assert {net.threads for net in separator.networks.values()} == {threads}


def test_one_network_for_two_targets_is_not_run_beside_itself():
    weights = STEREO.targets["vocals"]
    network = TrainableNetwork(weights.config, weights.state, threads=1)
    config = SeparatorConfig(n_fft=64, n_hop=16)
    separator = WaveformSeparator({"a": network, "b": network}, config, threads=2)
    assert separator._side_by_side == 1


def test_networks_on_several_threads_are_not_run_side_by_side():
    """They use the pool that would run them, and would wait for each other for ever."""
    networks = {
        name: TrainableNetwork(weights.config, weights.state, threads=2)
        for name, weights in STEREO.targets.items()
    }
    separator = WaveformSeparator(networks, SeparatorConfig(n_fft=64, n_hop=16), threads=2)
    assert separator._side_by_side == 1


def test_blas_has_one_thread_before_any_network_begins(monkeypatch):
    """A network gives BLAS back what it found: two of them could give and find in any order."""

    def blas_threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    found = []

    def watched(forward):
        def call(*arguments, **options):
            found.extend(blas_threads())
            return forward(*arguments, **options)

        return call

    separator = trainable(STEREO, backend="numba", dtype=np.float32, threads=2)
    for network in separator.networks.values():
        monkeypatch.setattr(network, "forward", watched(network.forward))
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        results_of(separator)
        assert blas_threads() == before
    assert set(found) == ({1} if before else set())


# -- Arguments -----------------------------------------------------------------------------------


def test_networks_have_to_fit():
    config = SeparatorConfig(n_fft=64, n_hop=16)

    def network(dtype=np.float32, **changes):
        model = ModelConfig(**{"nb_bins": 33, "hidden_size": 4, "nb_layers": 1, **changes})
        return TrainableNetwork(model, random_state(model), backend="reference", dtype=dtype)

    with pytest.raises(ConfigError, match="empty"):
        WaveformSeparator({}, config)
    for wrong in ({"nb_bins": 65}, {"nb_channels": 1}):
        with pytest.raises(ConfigError, match="'vocals'"):
            WaveformSeparator({"vocals": network(**wrong)}, config)
    with pytest.raises(ConfigError, match="dtype=float64"):
        WaveformSeparator({"a": network(), "b": network(np.float64)}, config)
    with pytest.raises(ConfigError, match="n_hop=64"):
        WaveformSeparator({"a": network()}, config.with_(n_hop=64))


def test_audio_is_checked():
    separator = trainable(STEREO)
    audio = audio_for()
    for wrong in (audio[0], audio[:, :1], audio[..., :0], audio[:0]):
        with pytest.raises(ShapeError, match="audio has shape"):
            separator.forward(wrong)
    audio[0, 0, 0] = np.nan
    with pytest.raises(ShapeError, match="NaN"):
        separator.forward(audio)


def test_backward_is_checked():
    separator = trainable(STEREO)
    stems, cache = separator.forward(audio_for(), training=False)
    with pytest.raises(ShapeError, match="d_stems has shape"):
        separator.backward(stems[:, :1], cache)
    separator.backward(stems, cache)
    with pytest.raises(ConfigError, match="cache"):
        separator.backward(stems, cache)
    _, cache = separator.forward(audio_for(), training=False, keep=False)
    with pytest.raises(ConfigError, match="cache"):
        separator.backward(stems, cache)
