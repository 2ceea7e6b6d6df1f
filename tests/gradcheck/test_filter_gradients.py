"""Backward pass of the Wiener filter against finite differences in float64; needs no torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite
from helpers.upstream import options_id
from tolerances import TOL

import umx_np
from umx_np.backends import reference
from umx_np.backends.contracts import WienerOptions
from umx_np.dsp.gradients import filter as backward
from umx_np.dsp.gradients import wiener_backward
from umx_np.errors import ConfigError, ShapeError
from umx_np.testing import GradientError, gradcheck

OPTIONS = [
    {"iterations": iterations, "softmask": softmask, "residual": residual}
    for iterations, softmask, residual in itertools.product(range(4), (False, True), (False, True))
]
EPS = 1e-10
EXACT = TOL["filter_gradient_same"]["float64"]
STEP_ERROR = TOL["gradient_steps"]["float64"].rtol


def normal(shape, seed):
    """Complex normal numbers."""
    parts = np.random.default_rng(seed).standard_normal((2, *shape))
    return parts[0] + 1j * parts[1]


def case(nb_channels=2, nb_frames=7, nb_bins=5, nb_targets=3, *, level=1.0, mono=False, seed=60):
    """Mixture and magnitudes of its targets."""
    mix = signals.spectra(nb_frames, nb_bins, nb_channels, seed=seed, level=level)
    mags = signals.estimates_for(mix, nb_targets, seed=seed + 1)
    return mix, mags.mean(axis=2, keepdims=True) if mono else mags


def bins_first(array):
    """From (F, B, C) or (F, B, C, J) to the layout inside the backward pass."""
    return np.ascontiguousarray(array.transpose((1, 2, 0) if array.ndim == 3 else (1, 3, 2, 0)))


def pairs(array):
    """Real and imaginary parts on a last axis, if there are any."""
    return np.stack([array.real, array.imag], axis=-1) if np.iscomplexobj(array) else array


def check(forward, backward_of, **inputs):
    """`gradcheck` in proportion: every number is moved by a share of itself, complex ones turn too.

    So a step stays in the neighbourhood of small numbers, and their gradients count as much as
    those of large ones.
    """
    factors = {name: pairs(np.ones_like(value)) for name, value in inputs.items()}

    def function(**factors):
        moved = {
            name: value * (f @ [1, 1j] if np.iscomplexobj(value) else f)
            for (name, value), f in zip(inputs.items(), factors.values(), strict=True)
        }

        def back(d_pairs):
            gradients = backward_of(d_pairs @ [1, 1j], **moved)
            return {
                name: pairs(value.conj() * gradient)
                for (name, value), gradient in zip(inputs.items(), gradients, strict=True)
            }

        return pairs(forward(**moved)), back

    gradcheck(function, factors, rtol=STEP_ERROR)


def check_wiener(mix, mags, **options):
    """Check `wiener_backward`."""
    check(
        lambda m, x: umx_np.wiener(m, x, **options),
        lambda d_y, m, x: wiener_backward(d_y, m, x, **options),
        m=mags,
        x=mix,
    )


# -- The forward pass is the filter's own -------------------------------------------------------


@pytest.mark.parametrize("mono", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("softmask", [False, True])
def test_first_estimates_are_those_of_the_filter(softmask, residual, mono):
    mix, mags = case(mono=mono)
    mix[2, 1] = 0.0
    options = WienerOptions(softmask, residual)
    desired = reference.first_estimates(mags, mix, options)
    actual = backward.first_estimates(bins_first(mix), bins_first(mags), options)
    assert_close(actual, bins_first(desired), EXACT, dtype=np.complex128)


@pytest.mark.parametrize("nb_frames", [1, 7])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_em_step_is_the_iteration_of_the_filter(nb_channels, nb_frames):
    mix = case(nb_channels, nb_frames)[0]
    y = normal((*mix.shape, 3), seed=63)
    desired, v, R = reference.em_iteration(y, mix, eps=EPS)
    actual, cache = backward.em_step(bins_first(y), bins_first(mix), eps=EPS)
    assert_close(actual, bins_first(desired), EXACT, dtype=np.complex128)
    assert_close(cache.v, v.transpose(1, 2, 0), EXACT, dtype=np.float64)
    assert_close(cache.R, R.transpose(0, 3, 1, 2), EXACT, dtype=np.complex128)


# -- Every piece ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mono", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_first_estimates(nb_channels, softmask, residual, mono):
    x, m = map(bins_first, case(nb_channels, mono=mono))
    options = WienerOptions(softmask, residual)
    y = backward.first_estimates(x, m, options)
    assert backward.first_estimates_backward(y, x, m, options)[0].shape == m.shape
    check(
        lambda m, x: backward.first_estimates(x, m, options),
        lambda d_y, m, x: backward.first_estimates_backward(d_y, x, m, options),
        m=m,
        x=x,
    )


def check_em_step(nb_channels, nb_frames, *, eps=1e-4):
    """Check `em_step_backward`. With a large eps its own terms count."""
    x = bins_first(case(nb_channels, nb_frames)[0])
    check(
        lambda y, x: backward.em_step(y, x, eps=eps)[0],
        lambda d_new, y, x: backward.em_step_backward(d_new, backward.em_step(y, x, eps=eps)[1]),
        y=normal((x.shape[0], 3, *x.shape[1:]), seed=65),
        x=x,
    )


@pytest.mark.parametrize("nb_frames", [1, 2, 9])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_em_step(nb_channels, nb_frames):
    check_em_step(nb_channels, nb_frames)


@pytest.mark.parametrize("nb_channels", [1, 2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_whole_filter(options, nb_channels):
    mix, mags = case(nb_channels)
    check_wiener(mix, mags, **options)


@pytest.mark.parametrize("options", OPTIONS[4:], ids=options_id)
def test_loud_mixture(options):
    """The divisor is part of what is differentiated; a large eps makes it matter."""
    mix, mags = case(level=20.0)
    assert np.abs(mix).max() > 30.0
    check_wiener(mix, mags, eps=0.1, **options)


@pytest.mark.parametrize("nb_frames", [1, 2])
@pytest.mark.parametrize("iterations", [1, 3])
def test_few_frames(iterations, nb_frames):
    mix, mags = case(nb_frames=nb_frames)
    check_wiener(mix, mags, iterations=iterations, residual=True)


@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("softmask", [False, True])
def test_magnitudes_shared_by_channels(softmask, iterations):
    mix, mags = case(mono=True)
    options = {"softmask": softmask, "iterations": iterations, "residual": False}
    check_wiener(mix, mags, **options)


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("softmask", [False, True])
def test_one_target_and_the_residual(softmask, iterations):
    mix, mags = case(nb_targets=1)
    options = {"softmask": softmask, "iterations": iterations, "residual": True}
    check_wiener(mix, mags, **options)


# -- Difficult signals ---------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1e-3, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_near_silence(options, level):
    """Magnitudes around the eps of the filter, and squares around it."""
    check_wiener(*case(level=level), **options)


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_near_silent_bins(options):
    mix, mags = case()
    factor = np.ones(mix.shape[:2])
    factor[:, 1], factor[3], factor[4, 2] = 1e-5, 1e-7, 1e-12
    mix, mags = mix * factor[..., None], mags * factor[..., None, None]
    check_wiener(mix, mags, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
@pytest.mark.parametrize("what", ["everything", "one bin", "one frame", "one channel", "targets"])
def test_silence_is_finite(what, options):
    mix, mags = case()
    where = {
        "everything": np.s_[:],
        "one bin": np.s_[:, 2],
        "one frame": np.s_[3],
        "one channel": np.s_[:, :, 0],
        "targets": np.s_[:0],
    }[what]
    mix[where] = 0.0
    mags[where if what != "targets" else np.s_[:]] = 0.0
    d_y = normal((*mix.shape, mags.shape[3] + options.get("residual", False)), seed=67)
    d_mags, d_mix = wiener_backward(d_y, mags, mix, **options)
    assert_finite(d_mags, shape=mags.shape, dtype=np.float64)
    assert_finite(d_mix, shape=mix.shape, dtype=np.complex128)


@pytest.mark.parametrize("smallest", [5e-324, 1e-310, 1e-300])
def test_subnormal_mixture_is_finite(smallest):
    mix, mags = case()
    mix[2], mags[2] = smallest, smallest
    d_y = normal((*mix.shape, 3), seed=68)
    for iterations in (0, 1):
        for gradient in wiener_backward(d_y, mags, mix, iterations):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("gain", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("iterations", [1, 2])
def test_dual_mono_with_wild_masks_is_finite(iterations, gain):
    """Two equal channels: the covariance of the mixture is all but singular."""
    mix, mags = case(nb_channels=1, level=20.0)
    mix, mags = np.repeat(mix, 2, axis=2), gain * np.repeat(mags, 2, axis=2)
    d_y = normal((*mix.shape, 3), seed=69)
    for gradient in wiener_backward(d_y, mags, mix, iterations):
        assert np.isfinite(gradient).all()


def test_loudest_bins_share_the_gradient_of_the_divisor():
    """Equal loudest bins, here those of two equal channels, get equal gradients."""
    mix, mags = case(nb_channels=1, level=20.0)
    mix, mags = np.repeat(mix, 2, axis=2), np.repeat(mags, 2, axis=2)
    d_y = np.repeat(normal((*mix.shape[:2], 1, 3), seed=70), 2, axis=2)
    _, d_mix = wiener_backward(d_y, mags, mix, 1, eps=0.1)
    assert_close(
        d_mix[..., 0], d_mix[..., 1], TOL["filter_gradient_same"]["float64"], dtype=complex
    )


# -- How it computes -----------------------------------------------------------------------------


@pytest.mark.parametrize("elements", [1, 200])
def test_blocks_of_bins_do_not_matter(monkeypatch, elements):
    mix, mags = case(level=20.0)
    d_y = normal((*mix.shape, 4), seed=71)
    desired = wiener_backward(d_y, mags, mix, 2, residual=True)
    monkeypatch.setattr(backward, "_ELEMENTS_PER_BLOCK", elements)
    for device in ("reference", "cpu"):
        actual = wiener_backward(d_y, mags, mix, 2, residual=True, device=device)
        for a, d in zip(actual, desired, strict=True):
            assert_close(a, d, EXACT, dtype=d.dtype)


def test_single_precision_computes_in_double():
    mix, mags = case()
    mix, mags = mix.astype(np.complex64), mags.astype(np.float32)
    d_y = normal((*mix.shape, 3), seed=72).astype(np.complex64)
    copies = d_y.copy(), mags.copy(), mix.copy()
    actual = wiener_backward(d_y, mags, mix, 2)
    for argument, copy in zip((d_y, mags, mix), copies, strict=True):
        np.testing.assert_array_equal(argument, copy)
    desired = wiener_backward(d_y.astype(complex), mags.astype(float), mix.astype(complex), 2)
    tolerance = TOL["filter_gradient_same"]["float32"]
    assert_close(actual[0], desired[0], tolerance, dtype=np.float32)
    assert_close(actual[1], desired[1], tolerance, dtype=np.complex64)


def test_single_precision_step():
    """The pieces compute in the dtype that they are given."""
    x = bins_first(case()[0]).astype(np.complex64)
    y = normal((x.shape[0], 3, *x.shape[1:]), seed=73).astype(np.complex64)
    new, cache = backward.em_step(y, x, eps=1e-4)
    assert new.dtype == np.complex64
    for gradient in backward.em_step_backward(new, cache):
        assert gradient.dtype == np.complex64


@pytest.mark.parametrize("wrong", ["d_y", "mags", "mix", "real"])
def test_shapes_are_checked(wrong):
    mix, mags = case()
    d_y = normal((*mix.shape, 3), seed=74)
    if wrong == "d_y":
        d_y = d_y[..., :2]
    elif wrong == "mags":
        mags = mags[:, :, :, 0]
    elif wrong == "mix":
        mix = mix[1:]
    else:
        mix = mix.real
    with pytest.raises(ShapeError, match="do not fit"):
        wiener_backward(d_y, mags, mix)


# -- Sharpness: without any one of the terms the checks above must fail --------------------------


def without_inverse(monkeypatch):
    """Take Cxx^-1 for a constant: no h in (21)."""
    original = backward.filter_backward

    def wrong(d_new, cache):
        d_v = (cache.p.conj() * d_new).real.sum(axis=2)
        d_R = (cache.v[:, :, None] * d_new) @ backward._adjoint(cache.q)[:, None]
        return d_v, d_R, original(d_new, cache)[2]

    monkeypatch.setattr(backward, "filter_backward", wrong)


def without_part(index):
    """Take the powers (0), the spatial covariances (1) or the mixture (2) for constants."""

    def change(monkeypatch):
        original = backward.filter_backward

        def wrong(d_new, cache):
            parts = list(original(d_new, cache))
            parts[index] = np.zeros_like(parts[index])
            return tuple(parts)

        monkeypatch.setattr(backward, "filter_backward", wrong)

    return change


def without_weight(monkeypatch):
    """Take the divisor of R for a constant: no (24)."""
    original = backward.model_backward

    def wrong(d_v, d_R, cache):
        d_S = d_R / cache.weight[..., None, None]
        d_weight = -(cache.R.conj() * d_S).real.sum(axis=(2, 3))
        return original(d_v - d_weight[..., None], d_R, cache)

    monkeypatch.setattr(backward, "model_backward", wrong)


def without_one_side(monkeypatch):
    """Take only one of the two factors of S = y y^H into account."""
    original = backward.model_backward

    def wrong(d_v, d_R, cache):
        d_S = d_R / cache.weight[..., None, None]
        return original(d_v, d_R, cache) - backward._adjoint(d_S) @ cache.y

    monkeypatch.setattr(backward, "model_backward", wrong)


def without_regularisation(monkeypatch):
    """Solve the adjoint system with the covariance that is not regularised."""
    original = backward.filter_backward

    def wrong(d_new, cache):
        eye = np.sqrt(cache.eps) * np.eye(cache.q.shape[1])[None, :, :, None]
        return original(d_new, cache._replace(Cxx=cache.Cxx * (1 + 1e-3) - 1e-3 * eye))

    monkeypatch.setattr(backward, "filter_backward", wrong)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(without_inverse, id="Cxx inverse"),
        pytest.param(without_part(0), id="v"),
        pytest.param(without_part(1), id="R"),
        pytest.param(without_part(2), id="x"),
        pytest.param(without_weight, id="weight"),
        pytest.param(without_one_side, id="one side of R"),
        pytest.param(without_regularisation, id="another Cxx"),
    ],
)
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_a_missing_term_of_the_iteration_is_found(monkeypatch, nb_channels, change):
    change(monkeypatch)
    with pytest.raises(GradientError, match="WRONG"):
        check_em_step(nb_channels, 5)
    mix, mags = case(nb_channels)
    options = {"iterations": 2, "residual": True}
    with pytest.raises(GradientError, match="WRONG"):
        check_wiener(mix, mags, eps=1e-4, **options)


def test_a_missing_divisor_is_found(monkeypatch):
    original = backward._iterations_backward

    def wrong(*arguments):
        d_y, d_x, _ = original(*arguments)
        return d_y, d_x, 0.0

    monkeypatch.setattr(backward, "_iterations_backward", wrong)
    mix, mags = case(level=20.0)
    options = {"iterations": 1, "residual": False, "eps": 0.1}
    with pytest.raises(GradientError, match="WRONG"):
        check_wiener(mix, mags, **options)


@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("part", [0, 1])
def test_missing_first_estimates_are_found(monkeypatch, part, softmask):
    original = backward.first_estimates_backward

    def wrong(*arguments):
        parts = list(original(*arguments))
        parts[part] = np.zeros_like(parts[part])
        return tuple(parts)

    monkeypatch.setattr(backward, "first_estimates_backward", wrong)
    mix, mags = case()
    options = {"iterations": 1, "residual": True, "softmask": softmask}
    with pytest.raises(GradientError, match="WRONG"):
        check_wiener(mix, mags, **options)


@pytest.mark.parametrize("name", ["scale_factor", "eps"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_what_must_be_positive(name, value):
    mix, mags = case()
    with pytest.raises(ConfigError, match=f"{name}={value} must be positive"):
        wiener_backward(np.zeros((*mix.shape, mags.shape[-1])), mags, mix, **{name: value})
