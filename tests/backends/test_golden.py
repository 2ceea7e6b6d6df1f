"""Both engines against what openunmix computed, without needing PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import golden_cases
from helpers.asserts import assert_close
from tolerances import TOL

import umx_np

DATA = Path(__file__).resolve().parent.parent / "golden"
NETWORKS = golden_cases.networks()
TRANSFORMS = golden_cases.transforms()
FILTERS = golden_cases.filters()
SEPARATIONS = golden_cases.separations()
DTYPES = ["float32", "float64"]


@pytest.fixture(scope="module")
def golden():
    """Arrays of all golden files by kind and case."""
    kinds = ("network", "stft", "wiener", "separator")
    return {kind: dict(np.load(DATA / f"golden_{kind}.npz")) for kind in kinds}


def test_every_case_is_there(golden):
    assert set(golden["network"]) == set(NETWORKS)
    assert {name.partition("/")[0] for name in golden["stft"]} == set(TRANSFORMS)
    assert set(golden["wiener"]) == set(FILTERS)
    assert set(golden["separator"]) == set(SEPARATIONS)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("reference", "float64"), ("reference", "float32"), ("cpu", "float32")],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_network(golden, name, device, dtype):
    weights, x = NETWORKS[name]
    network = umx_np.OpenUnmix.from_weights(weights, device=device)
    actual = network(x.astype(dtype))
    assert_close(actual, golden["network"][name], TOL["network"][dtype], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_stft(golden, name, dtype):
    x, n_fft, n_hop, center = TRANSFORMS[name]
    complex_dtype = np.result_type(dtype, np.complex64)
    spectrogram = golden["stft"][f"{name}/stft"]
    actual = umx_np.stft(x.astype(dtype), n_fft=n_fft, n_hop=n_hop, center=center)
    assert_close(actual, spectrogram, TOL["stft"][dtype], dtype=complex_dtype)
    if f"{name}/istft" in golden["stft"]:
        masked = golden_cases.masked(spectrogram).astype(complex_dtype)
        actual = umx_np.istft(masked, n_hop=n_hop, length=x.shape[-1], n_fft=n_fft)
        desired = golden["stft"][f"{name}/istft"]
        assert_close(actual, desired, TOL["istft"][dtype], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FILTERS)
def test_wiener(golden, name, dtype):
    estimates, mix_stft, options = FILTERS[name]
    complex_dtype = np.result_type(dtype, np.complex64)
    actual = umx_np.wiener(estimates.astype(dtype), mix_stft.astype(complex_dtype), **options)
    tolerance = TOL["wiener_near_mono" if name == "dual mono" else "wiener"][dtype]
    assert_close(actual, golden["wiener"][name], tolerance, dtype=complex_dtype)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("reference", "float64"), ("reference", "float32"), ("cpu", "float32")],
)
@pytest.mark.parametrize("name", SEPARATIONS)
def test_separator(golden, name, device, dtype):
    bundle, audio, options = SEPARATIONS[name]
    separator = umx_np.Separator.from_bundle(bundle, device=device, **{"niter": 0, **options})
    actual = separator(audio.astype(dtype))
    assert_close(actual, golden["separator"][name], TOL["separator"][dtype], dtype=dtype)
