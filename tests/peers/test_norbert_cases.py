"""What norbert's tests ask of its filter, asked of ours.

Its source package has no tests, so that they cannot be run as they are. What its repository
asserts, for mixtures of 1 to 3 channels, 1 to 4 sources and 1 to 3 iterations:

=================================================  =============================================
there                                              here
=================================================  =============================================
shapes of ``wiener``                               `test_shape_and_dtype`
shapes of ``softmask``                             `test_shape_and_dtype`, ``softmask=True``
shapes of ``residual_model``                       `test_shape_and_dtype`, ``residual=True``
``wiener``, ``softmask``, ``residual_model`` copy  `test_arguments_are_not_modified`
dtype of the estimates is that of the mixture      `test_shape_and_dtype`
silent sources                                     `test_silent_sources`
estimates of ``softmask`` sum to the mixture       `test_estimates_sum_to_the_mixture`
estimates of ``wiener`` sum to the mixture         `test_estimates_sum_to_the_mixture`
=================================================  =============================================

Here ``softmask`` and ``residual_model`` are options of one function.
"""

from __future__ import annotations

import numpy as np
import pytest

import umx_np

# Ours is Open-Unmix's, 1e-10.
NORBERTS_EPS = float(np.finfo(np.float64).eps)
SIZES = [(8, 11), (11, 33), (33, 8)]
OPTIONS = [
    {"softmask": softmask, "residual": residual}
    for softmask in (False, True)
    for residual in (False, True)
]


def case(
    nb_channels: int, nb_sources: int, size: tuple[int, int] = (11, 33), dtype: type = np.complex64
) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes of sources and a complex mixture, without a relation to each other."""
    rng = np.random.default_rng(nb_channels + 10 * nb_sources)
    shape = (*size, nb_channels)
    mix = rng.random(shape) + 1j * rng.random(shape)
    real = np.zeros(0, dtype).real.dtype
    # No source is so weak that the regularisation takes part of it.
    return (0.1 + rng.random((*shape, nb_sources))).astype(real), mix.astype(dtype)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("iterations", [0, 1, 2, 3])
@pytest.mark.parametrize("nb_sources", [1, 2, 4])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_shape_and_dtype(nb_channels, nb_sources, iterations, options, dtype):
    for size in SIZES:
        estimates, mix = case(nb_channels, nb_sources, size, dtype)
        y = umx_np.wiener(estimates, mix, iterations=iterations, **options)
        assert y.shape == (*mix.shape, nb_sources + options["residual"])
        assert y.dtype == dtype
        assert np.isfinite(y).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_arguments_are_not_modified(nb_channels, options):
    for dtype in (np.complex64, np.complex128):
        # Loud enough for the scaling that is undone at the end.
        estimates, mix = (100 * x for x in case(nb_channels, 2, dtype=dtype))
        before = estimates.copy(), mix.copy()
        umx_np.wiener(estimates, mix, iterations=2, **options)
        np.testing.assert_array_equal(estimates, before[0])
        np.testing.assert_array_equal(mix, before[1])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_silent_sources(nb_channels, iterations, options):
    estimates, mix = case(nb_channels, 2)
    y = umx_np.wiener(np.zeros_like(estimates), mix, iterations=iterations, **options)
    assert y.shape[:-1] == mix.shape
    assert np.isfinite(y).all()


@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("iterations", [0, 1, 2, 3])
@pytest.mark.parametrize("nb_sources", [1, 2, 4])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_estimates_sum_to_the_mixture(nb_channels, nb_sources, iterations, options, is_flat):
    """Ratio masks do so by themselves, the filter up to its regularisation."""
    if not options["softmask"] and iterations == 0:
        return  # magnitudes with the phase of the mixture need not sum to it
    estimates, mix = case(nb_channels, nb_sources, dtype=np.complex128)
    if is_flat:
        mix[...] = nb_channels  # as there: the same everywhere, in all channels
    y = umx_np.wiener(estimates, mix, iterations=iterations, eps=NORBERTS_EPS, **options)
    np.testing.assert_allclose(y.sum(-1), mix, rtol=1e-3)


@pytest.mark.parity
@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("nb_sources", [2, 4])
@pytest.mark.parametrize("nb_channels", [1, 2])
def test_estimates_are_norberts(nb_channels, nb_sources, iterations, softmask):
    norbert = pytest.importorskip("norbert")
    estimates, mix = case(nb_channels, nb_sources, dtype=np.complex128)
    ours = umx_np.wiener(estimates, mix, iterations=iterations, softmask=softmask, eps=NORBERTS_EPS)
    theirs = norbert.wiener(estimates, mix.copy(), iterations, use_softmask=softmask)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
