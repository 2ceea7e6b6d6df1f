"""Public functions with arguments that are none: an `UmxError`, or the right result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import umx_np
from umx_np.errors import UmxError
from umx_np.network.openunmix import OpenUnmix
from umx_np.testing import random_bundle

RNG = np.random.default_rng(0)
SIGNAL = RNG.standard_normal((2, 4000)).astype(np.float32)
SPECTRUM = umx_np.stft(SIGNAL, 256, 64)
MIX = np.ascontiguousarray(SPECTRUM.transpose(2, 1, 0))[:20]
MAGS = np.abs(np.stack([MIX, 0.3 * MIX], -1)).astype(np.float32)
ESTIMATES = umx_np.wiener(MAGS, MIX, 0)
SEPARATOR = umx_np.Separator.from_bundle(random_bundle("umxse", seed=0), device="cpu")
NETWORK = OpenUnmix(nb_bins=65, nb_channels=1, hidden_size=8)
FEATURES = np.abs(RNG.standard_normal((1, 1, 65, 20))).astype(np.float32)

NO_ARRAYS = {
    "None": None,
    "text": "abc",
    "bytes": b"abcd",
    "dict": {},
    "ragged": [[1.0, 2.0], [3.0]],
    "records": np.zeros(3, [("a", "f4")]),
    "times": np.zeros((2, 4000), "M8[s]"),
    "objects": np.array([[None, 1.0]], dtype=object),
    "generator": (i for i in range(3)),
    "masked": np.ma.masked_array(SIGNAL, mask=SIGNAL > 0.0),
}
NO_SCALARS = (
    None,
    "x",
    b"1",
    [],
    {},
    object(),
    1j,
    np.array([3]),
    float("nan"),
    -1,
    10**30,
    -(10**30),
)
CALLS: dict[str, tuple[Any, np.ndarray]] = {
    "stft": (umx_np.stft, SIGNAL),
    "istft": (lambda X: umx_np.istft(X, 64), SPECTRUM),
    "wiener of magnitudes": (lambda mags: umx_np.wiener(mags, MIX), MAGS),
    "wiener of a mixture": (lambda mix: umx_np.wiener(MAGS, mix), MIX),
    "expectation_maximization of estimates": (
        lambda y: umx_np.expectation_maximization(y, MIX)[0],
        ESTIMATES,
    ),
    "expectation_maximization of a mixture": (
        lambda x: umx_np.expectation_maximization(ESTIMATES, x)[0],
        MIX,
    ),
    "Separator": (SEPARATOR, SIGNAL[None, :1]),
    "OpenUnmix": (NETWORK, FEATURES),
    "separate": (
        lambda audio: umx_np.separate(audio, 16000, separator=SEPARATOR)["speech"],
        SIGNAL,
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", NO_ARRAYS)
def test_no_arrays(name: str, kind: str) -> None:
    function, _ = CALLS[name]
    with pytest.raises(UmxError) as error:
        function(NO_ARRAYS[kind])
    assert len(str(error.value)) < 400


def layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Give the same numbers in other places of memory."""
    fixed = array.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    yield "Fortran", np.asfortranarray(array)
    yield "big-endian", array.astype(array.dtype.newbyteorder(">"))
    yield "backwards", array[..., ::-1].copy()[..., ::-1]
    yield "strided", np.repeat(array, 2, axis=-1)[..., ::2]
    yield "nothing masked", np.ma.masked_array(array, mask=False)


@pytest.mark.parametrize("name", CALLS)
def test_the_layout_changes_nothing(name: str) -> None:
    function, array = CALLS[name]
    wanted = function(array)
    for layout, same in layouts(array):
        result = function(same)
        assert type(result) is np.ndarray
        # NumPy sums the products of the reference in an order that depends on the layout.
        bound = 1e-6 * np.abs(wanted).max() if name.startswith("expectation") else 0.0
        np.testing.assert_allclose(result, wanted, rtol=0.0, atol=bound, err_msg=layout)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda **k: umx_np.stft(SIGNAL, **k), ("n_fft", "n_hop", "filterbank")),
        (lambda **k: umx_np.istft(SPECTRUM, **k), ("n_hop", "filterbank")),
        (lambda **k: umx_np.wiener(MAGS, MIX, **k), ("scale_factor", "eps", "device")),
        (lambda **k: umx_np.expectation_maximization(ESTIMATES, MIX, **k), ("eps",)),
        (lambda **k: umx_np.separate(SIGNAL, 16000, **k), ("model", "targets")),
        (
            lambda **k: umx_np.Separator(**{"target_models": {"a": NETWORK}, "n_fft": 128, **k}),
            ("target_models", "sample_rate", "n_fft", "n_hop", "nb_channels", "niter"),
        ),
    ],
)
def test_no_scalars(function: Any, names: tuple[str, ...]) -> None:
    for name in names:
        for value in NO_SCALARS:
            if name in ("eps", "scale_factor") and value == 10**30:
                continue  # large, but a number
            if name in ("model", "targets") and value is None:
                continue  # the default
            with pytest.raises(UmxError):
                function(**{name: value})


def test_a_transform_has_a_largest_size() -> None:
    for sizes in ({"n_fft": 1 << 19}, {"n_hop": 1 << 19}):
        with pytest.raises(UmxError, match="must be at most"):
            umx_np.stft(SIGNAL, **sizes)
    with pytest.raises(UmxError, match="length"):
        umx_np.istft(SPECTRUM, 64, length=1 << 62)
