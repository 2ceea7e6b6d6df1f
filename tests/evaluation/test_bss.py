"""`bss_eval` gives museval's numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from umx_np.errors import ConfigError, ShapeError
from umx_np.evaluation import bss_eval
from umx_np.evaluation.bss import METRICS, NB_TAPS, nb_frames_of, silent_sources
from umx_np.evaluation.filters import quick_length

from .conftest import imperfect, sources

WINDOW = 4000
# museval writes five decimals.
DECIMALS = 0.5e-5


def by_museval(museval, references, estimates, window=WINDOW, hop=WINDOW, nb_taps=None):
    """As its `evaluate` does it, or with shorter filters, which takes far less time."""
    signals = [np.array([x.T for x in stack]) for stack in (references, estimates)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if nb_taps is None:
            sdr, isr, sir, sar = museval.evaluate(*signals, win=window, hop=hop)
        else:
            sdr, isr, sir, sar, _ = museval.metrics.bss_eval(
                *museval.pad_or_truncate(*signals), window=window, hop=hop, filters_len=nb_taps
            )
    return {"SDR": sdr, "SIR": sir, "ISR": isr, "SAR": sar}


def silenced(x, source, part, factor=0.0):
    """Copy with a part of a source silent, or one channel the opposite of the other."""
    x = x.copy()
    x[source, 0, part] = factor * x[source, -1, part]
    if not factor:
        x[source, :, part] = 0.0
    return x


def rounded(x):
    """As the files of 16 bits are that MUSDB18 and most others consist of."""
    return np.round(x.astype(np.float64) * 32768.0) / 32768.0


def without_treble(x, share):
    """As a lossy encoder leaves it, whose decoder gives floats."""
    spectrum = np.fft.rfft(x)
    spectrum[..., int(share * spectrum.shape[-1]) :] = 0.0
    return np.fft.irfft(spectrum, x.shape[-1]).astype(np.float32)


R = sources()
E = imperfect(R)
M, F = R[:, :1], E[:, :1]
MIDDLE = slice(3000, 9000)
CASES = {
    "stereo": (R, E),
    "mono": (M, F),
    "three sources": (sources(3, 1), imperfect(sources(3, 1))),
    "shorter than a window": (M[..., :3000], F[..., :3000]),
    "a window": (M[..., :WINDOW], F[..., :WINDOW]),
    "a window and a sample": (M[..., : WINDOW + 1], F[..., : WINDOW + 1]),
    "estimates end early": (M, F[..., :26500]),
    "estimates go on": (M[..., :26500], F),
    "a silent reference for a while": (silenced(M, 0, MIDDLE), F),
    "a silent estimate for a while": (M, silenced(F, 1, MIDDLE)),
    "opposite channels count as silent": (R, silenced(E, 1, MIDDLE, factor=-1.0)),
    "mono in two channels": (R[:, [0, 0]], imperfect(R[:, [0, 0]])),
    "mono references, stereo estimates": (R[:, [0, 0]], E),
    "a silent channel": (R * np.float32([[[1], [0]], [[1], [1]]]), E),
    "panned by half": (M * np.float32([[1], [0.5]]), E),
    "16 bits": (rounded(R), E),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_museval(museval, case):
    references, estimates = CASES[case]
    nb_taps = None if case in ("stereo", "shorter than a window") else 64
    expected = by_museval(museval, references, estimates, nb_taps=nb_taps)
    found = bss_eval(references, estimates, window=WINDOW, hop=WINDOW, nb_taps=nb_taps or NB_TAPS)
    for metric in METRICS:
        values = getattr(found, metric)
        assert values.shape == expected[metric].shape
        np.testing.assert_allclose(values, expected[metric], rtol=0.0, atol=DECIMALS)
    has_silence = "for a while" in case or "opposite" in case
    assert np.isnan(found.SDR).any() == has_silence
    assert np.isfinite(found.SDR).any()


@pytest.mark.parametrize(("window", "hop"), [(8000, 3000), (2000, 7001)])
def test_windows(museval, window, hop):
    expected = by_museval(museval, M, F, window, hop, nb_taps=64)
    found = bss_eval(M, F, window=window, hop=hop, nb_taps=64)
    for metric in METRICS:
        np.testing.assert_allclose(
            getattr(found, metric), expected[metric], rtol=0.0, atol=DECIMALS
        )
    assert found.SDR.shape == (2, nb_frames_of(30000, window, hop))


def test_correlations_do_not_depend_on_the_blocks(monkeypatch):
    monkeypatch.setattr("umx_np.evaluation.filters.CORRELATION_FFT", 2048)
    monkeypatch.setattr("umx_np.evaluation.filters.BATCH", 1 << 14)
    monkeypatch.setattr("umx_np.evaluation.bss.BATCH", 1 << 14)
    small = bss_eval(M, F, window=WINDOW, hop=WINDOW, nb_taps=100)
    monkeypatch.undo()
    large = bss_eval(M, F, window=WINDOW, hop=WINDOW, nb_taps=100)
    for a, b in zip(small, large, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=1e-9)


def test_what_is_known():
    """Half the level is 6 dB; a filtered source is distortion, but nothing else."""
    options = {"window": WINDOW, "hop": WINDOW, "nb_taps": 32}
    scores = bss_eval(R, 0.5 * R, **options)
    np.testing.assert_allclose(scores.SDR, 10 * np.log10(4), atol=1e-4)
    np.testing.assert_allclose(scores.ISR, 10 * np.log10(4), atol=1e-4)
    assert scores.SIR.min() > 100
    assert scores.SAR.min() > 100

    delayed = np.roll(R, 5, axis=-1)
    delayed[..., :5] = 0.0
    scores = bss_eval(R, delayed, **options)
    assert scores.SDR.max() < 20 < 25 < scores.SIR.min()

    assert np.isinf(bss_eval(R, R, **options).SDR).all()


def test_copies_of_sources_share_the_credit():
    """The normal equations are singular, and the second copy explains nothing that is new."""
    options = {"window": WINDOW, "hop": WINDOW, "nb_taps": 32}
    copy, delayed = M[[0, 0]], np.stack([M[0], np.pad(M[0], ((0, 0), (3, 0)))[:, :-3]])
    for references in (copy, 0.5 * copy, copy * [[[1.0]], [[0.25]]], delayed):
        found = bss_eval(references, [F[0], F[0]], **options)
        alone = bss_eval(references[:1], F[:1], **options)
        for metric in ("SDR", "ISR"):
            np.testing.assert_allclose(getattr(found, metric)[0], getattr(alone, metric)[0])
        # A delayed copy explains a few lags more at the ends.
        np.testing.assert_allclose(found.SAR[0], alone.SAR[0], atol=0.1)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.3])
@pytest.mark.parametrize("nb_channels", [1, 2])
def test_references_without_treble(museval, share, nb_channels, caplog):
    """The normal equations are singular: museval's scores are noise, 70 dB off for SIR."""
    references = without_treble(sources(3, nb_channels), share)
    estimates = imperfect(references)
    options = {"window": WINDOW, "hop": WINDOW, "nb_taps": 128}
    found = bss_eval(references, estimates, **options)
    # One line, which names the sources.
    assert [record.getMessage()[:30] for record in caplog.records] == [
        "source 0, source 1, source 2: "
    ]
    caplog.clear()
    of_16_bits = bss_eval(rounded(references), estimates, **options)
    assert not caplog.records
    expected = by_museval(museval, rounded(references), estimates, nb_taps=128)
    exact = by_museval(museval, references, estimates, nb_taps=128)
    np.testing.assert_allclose(found.SDR, exact["SDR"], rtol=0.0, atol=DECIMALS)
    for metric in ("SIR", "SAR"):
        values = getattr(found, metric)
        np.testing.assert_array_equal(values, getattr(of_16_bits, metric))
        np.testing.assert_allclose(values, expected[metric], rtol=0.0, atol=DECIMALS)
    assert np.abs(found.SIR - exact["SIR"]).max() > 10.0


def test_references_of_16_bits_and_of_more_are_left_alone(museval, caplog):
    """Where they determine the scores, these are museval's, whatever the rounding."""
    references = without_treble(R[:, :1], 0.9) + 1e-6 * sources(2, 1, seed=9)
    expected = by_museval(museval, references, F, nb_taps=64)
    found = bss_eval(references, F, window=WINDOW, hop=WINDOW, nb_taps=64)
    assert not caplog.records
    for metric in METRICS:
        np.testing.assert_allclose(
            getattr(found, metric), expected[metric], rtol=0.0, atol=DECIMALS
        )


def test_rounding_leaves_no_reference_silent():
    references = without_treble(M, 0.5) * np.float32([[[1.0]], [[1e-5]]])
    scores = bss_eval(references, F, window=WINDOW, hop=WINDOW, nb_taps=64)
    assert all(np.isfinite(values).all() for values in scores)


def test_what_is_silent_throughout_has_no_scores(museval):
    silent = silenced(M, 1, slice(None))
    with pytest.raises(ValueError, match="non-silent"):
        by_museval(museval, silent, F)

    # Without the silent reference the rest is what it would be alone.
    options = {"window": WINDOW, "hop": WINDOW, "nb_taps": 64}
    scores = bss_eval(silent, F, **options)
    alone = bss_eval(M[:1], F[:1], **options)
    for values, expected in zip(scores, alone, strict=True):
        assert np.isnan(values[1]).all()
        np.testing.assert_array_equal(values[0], expected[0])

    # A silent estimate leaves the reference to be a source of interference.
    scores = bss_eval(M, silenced(F, 1, slice(None)), **options)
    both = bss_eval(M, F, **options)
    for values, expected in zip(scores, both, strict=True):
        assert np.isnan(values[1]).all()
        np.testing.assert_allclose(values[0], expected[0], atol=1e-9)

    silent_estimate = silenced(F, 0, slice(None))
    assert silent_sources(silent, silent_estimate) == [(0, "estimate"), (1, "reference")]
    nothing = bss_eval(0 * M, F, **options)
    assert np.isnan(nothing).all()
    assert nothing.SAR.shape == (2, 7)


def test_inputs_are_not_modified():
    references, estimates = M.copy(), F[..., :20000].copy()
    bss_eval(references, estimates, window=WINDOW, hop=WINDOW)
    np.testing.assert_array_equal(references, M)
    np.testing.assert_array_equal(estimates, F[..., :20000])


def test_mistakes():
    nan = E.copy()
    nan[1, 0, 7] = np.nan
    for references, estimates, message in (
        (R, E[:1], "2 references and 1 estimates"),
        ([], [], "0 references"),
        ([R[0], R[1][:, :-1]], E, r"references\[1\] has shape=\(2, 29999\)"),
        (R[:, :, None], E, "has shape"),
        (R, E[:, :1], r"estimates\[0\] has shape=\(1, 30000\).* nb_channels=2"),
        (R, nan, r"estimates\[1\] holds NaN"),
    ):
        with pytest.raises(ShapeError, match=message):
            bss_eval(references, estimates)
    with pytest.raises(ConfigError, match="window=0"):
        bss_eval(R, E, window=0)


@pytest.mark.parametrize("length", [1, 2, 511, 513, 4511, 44611, 65537])
def test_lengths_of_transforms(length):
    found = quick_length(length)
    rest = found
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert length <= found <= max(1.2 * length, 2)
