"""What every backend is, and what it does with samples, frames and spectra."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from helpers.material import noise
from tolerances import TOL, Tolerance

import umx_np
from umx_np.backends import contracts, reference
from umx_np.backends.cpu import CpuBackend, CpuFilter, CpuNetwork
from umx_np.backends.reference import ReferenceBackend, ReferenceFilter, ReferenceNetwork
from umx_np.cuda.backend import CudaBackend, CudaFilter
from umx_np.cuda.host_network import CudaNetwork

DTYPES = [np.float32, np.float64]
KINDS = {
    contracts.Backend: (ReferenceBackend, CpuBackend, CudaBackend),
    contracts.Network: (ReferenceNetwork, CpuNetwork, CudaNetwork),
    contracts.WienerFilter: (ReferenceFilter, CpuFilter, CudaFilter),
}


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
        for protocol, kinds in KINDS.items()
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


def test_attributes(ops):
    assert isinstance(ops, contracts.Backend)
    assert ops.precision == "full"
    assert ops.threads >= 1
    assert ops.copy_threads >= 1
    assert ops.max_channels in (None, 2)
    assert ops.dtype_for(np.dtype(np.float32)) == np.float32


def test_map_is_in_order(ops):
    assert ops.map(lambda x: x * x, range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_fft", "n_hop", "nb_frames"), [(8, 3, 5), (2, 1, 1), (7, 7, 4), (16, 4, 8)]
)
def test_frame(ops, dtype, n_fft, n_hop, nb_frames):
    storage = noise(3, 60, dtype=dtype)
    storage.flags.writeable = False
    # Rows that lie apart, and are longer than the frames.
    x, window = storage[:, 5:50], noise(n_fft, dtype=dtype, seed=1)
    frames = ops.frame(x, window, n_hop=n_hop, nb_frames=nb_frames)
    assert frames.dtype == dtype
    expected = [x[:, t * n_hop : t * n_hop + n_fft] * window for t in range(nb_frames)]
    np.testing.assert_array_equal(frames, np.stack(expected, 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n_fft", "n_hop", "nb_frames"),
    [(8, 3, 5), (2, 1, 1), (7, 7, 4), (16, 4, 9), (15, 7, 3), (6, 1, 46)],
)
def test_overlap_add(ops, dtype, n_fft, n_hop, nb_frames):
    frames, window = noise(3, nb_frames, n_fft, dtype=dtype), noise(n_fft, dtype=dtype, seed=1)
    frames.flags.writeable = window.flags.writeable = False
    start = noise(3, 60, dtype=dtype, seed=2)
    out, expected = start.copy(), start.astype(np.float64)
    ops.overlap_add(frames, window, n_hop=n_hop, out=out[:, 4:55])
    reference.overlap_add(frames.astype(np.float64), window, n_hop=n_hop, out=expected[:, 4:55])
    assert_close(out, expected, TOL["istft"][np.dtype(dtype).name], dtype=dtype)
    end = 4 + (nb_frames - 1) * n_hop + n_fft
    np.testing.assert_array_equal(out[:, :4], start[:, :4])
    np.testing.assert_array_equal(out[:, end:], start[:, end:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("nb_channels", "mono"), [(1, False), (2, False), (2, True), (3, True)])
@pytest.mark.parametrize("nb_bins", [1, 9, 20, 33])
@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0, 1e25])
def test_magnitude(ops, dtype, nb_channels, mono, nb_bins, level):
    storage = level * noise(nb_channels, 9, 33, dtype=np.complex128)
    storage[:, 4] = 0.0
    # Frames out of more of them.
    spectrum = storage.astype(np.result_type(dtype, np.complex64))[:, 2:8]
    spectrum.flags.writeable = False
    expected = np.abs(spectrum.astype(np.complex128))[..., :nb_bins].transpose(1, 0, 2)
    if mono:
        expected = expected.mean(axis=1, keepdims=True)
    mags = ops.magnitude(spectrum, nb_bins=nb_bins, mono=mono)
    rtol = 2 * np.finfo(dtype).eps
    assert_close(mags, expected, Tolerance(rtol, 0.0, "a root, a sum"), dtype=dtype)
    out = np.full_like(mags, np.nan)
    assert ops.magnitude(spectrum, nb_bins=nb_bins, mono=mono, out=out) is out
    np.testing.assert_array_equal(out, mags)


def test_magnitudes_of_what_is_no_number(ops):
    spectrum = noise(2, 5, 9, dtype=np.complex64)
    spectrum[1, 3, 4] = np.nan
    mags = ops.magnitude(spectrum, nb_bins=9, mono=False)
    assert np.argwhere(~np.isfinite(mags)).tolist() == [[3, 1, 4]]
    mags = ops.magnitude(spectrum, nb_bins=9, mono=True)
    assert np.argwhere(~np.isfinite(mags)).tolist() == [[3, 0, 4]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (1, 13, 33), (3, 4, 257)])
@pytest.mark.parametrize("nb_rows", [1, 10, 65])
def test_linear(ops, dtype, shape, nb_rows):
    x, weight = noise(*shape, dtype=dtype), noise(nb_rows, shape[-1], dtype=dtype, seed=1)
    x.flags.writeable = weight.flags.writeable = False
    actual = ops.linear(x, ops.pack_linear(weight))
    expected = x.astype(np.float64) @ weight.T.astype(np.float64)
    tolerance = TOL["gemm"]["float32"] if dtype == np.float32 else TOL["train_gemm"]["float64"]
    assert_close(actual, expected, tolerance, dtype=dtype)


@pytest.mark.parametrize("filterbank", ["torch", "asteroid"])
@pytest.mark.parametrize("dtype", DTYPES)
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
