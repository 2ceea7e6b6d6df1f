"""Every parameter and the input of whole networks against differences."""

from __future__ import annotations

import pytest

from umx_np.config import ModelConfig

from .checks import check_network

CONFIGS = {
    "three layers": ModelConfig(nb_bins=9, hidden_size=6, max_bin=7),
    "unidirectional": ModelConfig(nb_bins=9, hidden_size=5, nb_layers=2, unidirectional=True),
    "one layer, mono": ModelConfig(nb_bins=11, nb_channels=1, hidden_size=4, nb_layers=1),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("training", [True, False])
def test_reference(name, training):
    check_network(CONFIGS[name], training=training)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("training", [True, False])
def test_numba(name, training):
    pytest.importorskip("numba", reason="needs the extra 'train'")
    check_network(CONFIGS[name], training=training, backend="numba")


@pytest.mark.parametrize(("nb_frames", "nb_samples"), [(1, 5), (1, 16), (6, 1)])
def test_shapes(nb_frames, nb_samples):
    """One frame, and one sample."""
    check_network(CONFIGS["three layers"], nb_frames=nb_frames, nb_samples=nb_samples)
