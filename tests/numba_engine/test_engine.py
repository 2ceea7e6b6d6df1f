"""The compiled engine: threads, memory, precision."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import relative_l2
from helpers.signals import magnitudes

from umx_np.config import ModelConfig
from umx_np.errors import ConfigError
from umx_np.nn import TrainableNetwork, mse_loss
from umx_np.numba_engine import gemm
from umx_np.optim import Adam
from umx_np.testing import random_state

pytest.importorskip("numba", reason="needs the extra 'train'")

CONFIGS = {
    "three layers": ModelConfig(nb_bins=33, hidden_size=16, max_bin=21),
    "odd, unidirectional": ModelConfig(nb_bins=40, hidden_size=7, nb_layers=2, unidirectional=True),
    "mono, wide": ModelConfig(nb_bins=613, nb_channels=1, hidden_size=34, nb_layers=1),
    "one unit": ModelConfig(nb_bins=33, hidden_size=2, nb_layers=2),
}


def both(config, shape, dtype, training, threads=2):
    rng = np.random.default_rng(0)
    mags = magnitudes(config, nb_frames=shape[0], nb_samples=shape[1])
    x = mags.transpose(3, 0, 1, 2)
    d_y = rng.standard_normal(x.shape)
    results = []
    for backend, precision in (("reference", np.float64), ("numba", dtype)):
        network = TrainableNetwork(
            config, random_state(config, seed=5), backend=backend, dtype=precision, threads=threads
        )
        y, cache = network.forward(x, training=training, rng=np.random.default_rng(1))
        gradients = network.backward(d_y, cache, input_gradient=True)
        results.append({"y": y, **gradients, **network.buffers})
    return results


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_threads_change_nothing(threads):
    config = CONFIGS["three layers"]
    expected = both(config, (6, 20), "float64", True, threads=2)[1]
    actual = both(config, (6, 20), "float64", True, threads=threads)[1]
    for key, value in expected.items():
        if key != "input_mean":
            assert relative_l2(actual[key], value) < 1e-11, key


def test_repeatable():
    config = CONFIGS["three layers"]
    expected, actual = (both(config, (6, 20), "float32", True)[1] for _ in range(2))
    for key, value in expected.items():
        assert np.array_equal(actual[key], value), key


def test_kernels_see_no_more_than_their_columns():
    """Columns of the output layer are dealt out in blocks; the last one is not full."""
    from umx_np.numba_engine.bins import bin_kernels

    kernels = bin_kernels(np.dtype(np.float32))
    rng = np.random.default_rng(0)
    z, mix = rng.standard_normal((2, 5, 43)).astype(np.float32)
    gain, offset = rng.standard_normal((2, 43)).astype(np.float32)
    y = np.full(z.shape, 7.0, np.float32)
    flat = [a.reshape(-1) for a in (z, mix, gain, offset, y)]
    kernels.decode(*flat, 5, 43, 3, 41)
    expected = np.maximum(z * gain + offset, 0) * mix
    assert relative_l2(y[:, 3:41], expected[:, 3:41]) < 1e-6
    assert (y[:, :3] == 7.0).all()
    assert (y[:, 41:] == 7.0).all()


def test_statistics_of_a_large_mean():
    """The variance does not drown in the square of the mean."""
    from umx_np.numba_engine.engine import NumbaEngine

    engine = NumbaEngine(CONFIGS["three layers"], np.dtype(np.float32), 2)
    z = (1000.0 + np.random.default_rng(0).standard_normal((500, 70))).astype(np.float32)
    exact = z.astype(np.float64).var(axis=0)
    for measured in (engine._measure_columns(z)[1], engine._measure_rows(z.T.copy())[1]):
        assert relative_l2(measured, exact) < 1e-5


def test_results_are_not_written_to_again():
    """The memory of a result is used again only when the last view of it is gone."""
    config = CONFIGS["three layers"]
    network = TrainableNetwork(config, random_state(config, seed=5), dropout=0.0)
    x = magnitudes(config, nb_frames=5, nb_samples=3).transpose(3, 0, 1, 2)
    first, _ = network.forward(x)
    part = first[2:, 1]
    kept, address = part.copy(), first.ctypes.data
    del first
    for _ in range(3):
        other, _ = network.forward(2.0 * x)
        assert other.ctypes.data != address
        assert np.array_equal(part, kept)
    del part, other
    held = [network.forward(x)[0] for _ in range(3)]
    assert address in {y.ctypes.data for y in held}
    # After a batch of another shape it is forgotten, and the result still stands.
    first, _ = network.forward(x)
    kept = first.copy()
    network.forward(x[:2])
    assert np.array_equal(first, kept)
    del first
    network.forward(x[:2])


class TestMixedPrecision:
    """Products of bfloat16, whose relative error is 2e-3.

    Random gradients cancel and inputs near zero change sign: measured are up to 0.1 for both
    passes. A single unit can be off by more.
    """

    @pytest.fixture(autouse=True)
    def _needs_pairs(self):
        if not gemm.has_pairs():
            pytest.skip("needs AVX512-BF16")

    def networks(self, config):
        state = random_state(config, seed=5)
        return [TrainableNetwork(config, state, amp=amp, dropout=0.0) for amp in (False, True)]

    @pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"one unit"}))
    def test_both_passes(self, name):
        config = CONFIGS[name]
        x = magnitudes(config, nb_frames=30, nb_samples=16).transpose(3, 0, 1, 2)
        d_y = np.random.default_rng(0).standard_normal(x.shape)
        results = []
        for network in self.networks(config):
            y, cache = network.forward(x)
            results.append({"y": y, **network.backward(d_y, cache)})
        full, mixed = results
        scale = np.linalg.norm(full["fc1.weight"])
        for key, value in full.items():
            if key != "input_mean":  # only rounding, see above
                assert np.linalg.norm(mixed[key] - value) <= 0.2 * np.linalg.norm(value), key
        assert np.linalg.norm(mixed["input_mean"]) <= 0.2 * scale
        assert relative_l2(mixed["y"], full["y"]) > 1e-5  # it was not the same computation

    def test_learns_as_well(self):
        config = CONFIGS["three layers"]
        x = magnitudes(config, nb_frames=30, nb_samples=8).transpose(3, 0, 1, 2)
        target = 0.5 * x
        losses = []
        for network in self.networks(config):
            optimizer, found = Adam(network.parameters, lr=1e-3), []
            for _ in range(60):
                y, cache = network.forward(x)
                loss, d_y = mse_loss(y, target)
                optimizer.step(network.backward(d_y, cache))
                found.append(loss)
            losses.append(found)
        full, mixed = losses
        assert full[-1] < 0.5 * full[0]
        np.testing.assert_allclose(mixed[:10], full[:10], rtol=0.02)
        np.testing.assert_allclose(mixed[-1], full[-1], rtol=0.2)

    def test_single_precision_only(self):
        config = CONFIGS["one unit"]
        with pytest.raises(ConfigError, match="float32"):
            TrainableNetwork(config, random_state(config), amp=True, dtype=np.float64)
        with pytest.raises(ConfigError, match="reference"):
            TrainableNetwork(config, random_state(config), amp=True, backend="reference")
