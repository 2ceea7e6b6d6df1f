"""Live separation against the same model on the whole signal."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite, relative_l2
from helpers.streaming import tiny_bundle
from tolerances import TOL

import umx_np
from umx_np.backends.contracts import FilterInput
from umx_np.backends.reference import ReferenceFilter
from umx_np.errors import ConfigError, ShapeError


def separator_of(*, nb_channels=2, unidirectional=True, targets="ab", **options):
    bundle = tiny_bundle(nb_channels=nb_channels, targets=targets, unidirectional=unidirectional)
    return umx_np.Separator.from_bundle(bundle, device="cpu", **options)


def run(separator, audio, sizes):
    """Stems of `audio` in blocks of the given sizes, and how far they lagged behind."""
    live = separator.stream(len(audio))
    parts, taken, given, lag = [], 0, 0, 0
    for block in np.split(audio, np.cumsum(sizes)[:-1], axis=1):
        parts.append(live.process(block))
        taken += block.shape[1]
        given += parts[-1].shape[2]
        lag = max(lag, taken - given)
    parts.append(live.flush())
    return np.concatenate(parts, axis=2), lag


@pytest.mark.parametrize("sizes", [[1] * 300, [64] * 20, [5000], [100, 0, 3, 900]], ids=len)
@pytest.mark.parametrize("options", [{}, {"softmask": True, "residual": True}], ids=str)
def test_equals_the_whole_signal(sizes, options):
    separator = separator_of(niter=0, **options)
    audio = signals.music(sum(sizes))[0].astype(np.float32)
    audio.flags.writeable = False
    stems, lag = run(separator, audio, sizes)
    expected = separator(audio[None])[0]
    assert_close(stems, expected, TOL["blockwise"]["float32"], dtype=np.float32)
    assert lag <= separator.stream(2).latency


@pytest.mark.parametrize("length", [0, 1, 20, 31, 32, 33, 63, 64, 65, 80])
def test_short_signals(length):
    separator = separator_of(niter=0)
    audio = signals.music(max(length, 1))[0, :, :length].astype(np.float32)
    stems, _ = run(separator, audio, [length])
    assert stems.shape == (2, 2, length)
    if length:
        expected = separator(audio[None])[0]
        assert_close(stems, expected, TOL["blockwise"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("length", [31, 33, 48, 80, 999, 1000, 1040])
@pytest.mark.parametrize("n_hop", [32, 33, 48])
def test_hops_of_half_a_frame_and_more(length, n_hop):
    bundle = replace(tiny_bundle(targets="ab", unidirectional=True), n_hop=n_hop)
    separator = umx_np.Separator.from_bundle(bundle, device="cpu", niter=0)
    audio = signals.music(length)[0].astype(np.float32)
    expected = separator(audio[None])[0]
    for sizes in ([length], [7] * (length // 7) + [length % 7]):
        stems, _ = run(separator, audio, sizes)
        assert_close(stems, expected, TOL["blockwise"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("nb_channels", [1, 2])
def test_mono_models(nb_channels):
    separator = separator_of(nb_channels=1, niter=0)
    audio = signals.music(1000, nb_channels=nb_channels)[0].astype(np.float32)
    stems, _ = run(separator, audio, [250] * 4)
    expected = separator(audio[None])[0]
    assert_close(stems, expected, TOL["blockwise"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("window", [None, 10])
def test_filter_over_the_past(window):
    """Independent of the blocks, causal, and close to silent where the mixture is."""
    separator = separator_of(niter=2, wiener_win_len=window, residual=True)
    audio = signals.music(2000)[0].astype(np.float32)
    audio[:, 1500:] = 0.0
    one, lag = run(separator, audio, [2000])
    many, _ = run(separator, audio, [37] * 54 + [2])
    assert_close(many, one, TOL["blockwise"]["float32"], dtype=np.float32)
    assert_finite(one, shape=(3, 2, 2000), dtype=np.float32)
    assert lag <= 64
    assert np.abs(one[:, :, 1600:]).max() < 1e-6
    # What comes later does not change what has been given out.
    changed = audio.copy()
    changed[:, 1000:] = signals.music(1000, seed=5)[0]
    other, _ = run(separator, changed, [2000])
    np.testing.assert_array_equal(other[:, :, : 1000 - 64], one[:, :, : 1000 - 64])


def filtered_over_the_past(mix, mags, options, *, niter, window):
    """Each frame by the sums over it and those before, which decay, in float64."""
    reference, decay = ReferenceFilter(options), 1.0 if window is None else math.exp(-1.0 / window)
    statistics = np.zeros((niter, len(mags) + options.residual, 4, mix.shape[2]))
    max_abs = 3.2  # 64 samples of full scale under a Hann window sum to 32, the loudest is to be 10
    parts = []
    for t in range(mix.shape[1]):
        given = FilterInput(mix[:, t : t + 1], mags[:, t : t + 1], max_abs)
        statistics *= decay
        for level in range(niter):
            reference.accumulate(given, statistics, level)
        parts.append(reference.apply(given, statistics))
    return np.concatenate(parts, axis=2)


@pytest.mark.parametrize("nb_channels", [1, 2])
@pytest.mark.parametrize("niter", [1, 2])
def test_filter_over_the_past_is_that_of_the_reference(niter, nb_channels):
    # Quiet, so that the scale of the regularisation shows.
    mix = signals.spectra(40, 33, nb_channels, seed=1, level=0.05)
    mags = signals.estimates_for(mix, 2, seed=2).transpose(3, 0, 2, 1).astype(np.float32)
    mix = mix.transpose(2, 0, 1).astype(np.complex64)
    results = []
    for window in (None, 10):
        options = {"niter": niter, "wiener_win_len": window, "residual": True}
        separator = separator_of(nb_channels=nb_channels, **options)
        live = separator.stream(nb_channels)
        # What has been seen in one call counts in the next.
        spans = itertools.starmap(slice, itertools.pairwise([0, 1, 17, 40]))
        parts = [live._filter(mix[:, span], mags[:, span]) for span in spans]
        actual = np.concatenate(parts, axis=2)
        expected = filtered_over_the_past(
            mix.astype(np.complex128),
            mags,
            separator.job.wiener_options,
            niter=niter,
            window=window,
        )
        assert_close(actual, expected, TOL["wiener"]["float32"], dtype=np.complex64)
        results.append(actual)
    if nb_channels == 2:  # of one channel there is no direction to be learnt
        assert relative_l2(results[1], results[0]) > 1e-2


@pytest.mark.parametrize("niter", [1, 2])
def test_filter_over_the_past_shares_out_the_mixture(niter):
    """The gains sum to one but for the regularisation, so the stems sum to the mixture."""
    separator = separator_of(niter=niter, residual=True)
    audio = signals.music(4000)[0].astype(np.float32)
    stems, _ = run(separator, audio, [400] * 10)
    assert relative_l2(stems.sum(axis=0), audio) < 1e-2


@pytest.mark.parametrize("niter", [0, 2])
@pytest.mark.parametrize("input_level", [None, -30.0], ids=["as it is", "followed"])
def test_the_reference_is_the_oracle(niter, input_level):
    """Live on the device 'reference' and on 'cpu', with a level follower and without."""
    bundle = tiny_bundle(nb_channels=2, targets="ab", unidirectional=True)
    bundle = replace(bundle, input_level=input_level)
    audio = signals.music(1500)[0].astype(np.float32)
    audio[:, 700:] *= 0.01
    options = {"niter": niter, "wiener_win_len": 20, "residual": True}
    actual, expected = (
        run(umx_np.Separator.from_bundle(bundle, device=device, **options), audio, [100, 700, 700])
        for device in ("cpu", "reference")
    )
    assert_close(actual[0], expected[0], TOL["separator"]["float32"], dtype=np.float32)
    assert actual[1] == expected[1]
    assert np.abs(actual[0]).max() > 1e-3


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(ConfigError, match="bidirectional"):
        separator_of(unidirectional=False).stream()
    with pytest.raises(ShapeError, match="nb_channels=1"):
        separator_of().stream(1)
    live = separator_of(niter=0).stream()
    with pytest.raises(ShapeError, match="shape"):
        live.process(np.zeros((1, 10)))
    with pytest.raises(ShapeError, match="NaN"):
        live.process(np.full((2, 10), np.nan))
    with pytest.raises(ShapeError, match="too large"):
        live.process(np.full((2, 10), 1e39))
    assert live.process(np.zeros((2, 10))).shape[2] == 0
    assert live.flush().shape == (2, 2, 10)
    assert live.flush().shape == (2, 2, 0)
    with pytest.raises(ConfigError, match="flushed"):
        live.process(np.zeros((2, 10)))
