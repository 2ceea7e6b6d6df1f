"""Frames, magnitudes, peaks and overlap-add on the card, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from tolerances import TOL, Tolerance

from umx_np.backends import reference
from umx_np.backends.contracts import scale_of
from umx_np.cuda.ops import Envelope, OverlapAdder, Spectra
from umx_np.framing.geometry import StftGeometry

EXACT = Tolerance(0.0, 0.0, "the same products")


def noise(*shape: int, dtype=np.float64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


@pytest.mark.parametrize(("n_fft", "n_hop"), [(16, 4), (15, 7), (300, 70)])
@pytest.mark.parametrize("length", [1, 9, 150, 1001])
def test_frames_of_a_padded_signal(any_device, n_fft, n_hop, length):
    xp, geometry = any_device.xp, StftGeometry(n_fft, n_hop)
    x = noise(2, length, dtype=np.float32)
    window = noise(n_fft, dtype=np.float32, seed=1)
    nb_frames = geometry.nb_frames(length)
    expected = reference.frame(geometry.pad_signal(x), window, n_hop=n_hop, nb_frames=nb_frames)
    spectra = Spectra(any_device)
    for first, count in [(0, nb_frames), (nb_frames // 2, nb_frames - nb_frames // 2)]:
        frames = spectra.frame(
            xp.asarray(x),
            xp.asarray(window),
            n_hop=n_hop,
            nb_frames=count,
            first=first,
            pad=geometry.pad,
        )
        assert_close(frames.get(), expected[:, first : first + count], EXACT, dtype=np.float32)


def test_frames_of_a_part_of_a_signal(any_device):
    """Rows of a view lie apart."""
    x, window = any_device.xp.asarray(noise(2, 100, dtype=np.float32)), noise(8, dtype=np.float32)
    part = x[:, 20:60]
    frames = Spectra(any_device).frame(part, any_device.xp.asarray(window), n_hop=4, nb_frames=9)
    expected = reference.frame(part.get(), window, n_hop=4, nb_frames=9)
    np.testing.assert_array_equal(frames.get(), expected)


@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0, 1e25])
@pytest.mark.parametrize(("nb_channels", "mono"), [(1, False), (2, False), (2, True), (3, True)])
def test_magnitude(any_device, level, nb_channels, mono):
    spectrum = noise(nb_channels, 5, 33, dtype=np.complex128) * level
    spectrum[:, 2] = 0.0
    spectrum = spectrum.astype(np.complex64)
    out = Spectra(any_device).magnitude(any_device.xp.asarray(spectrum), nb_bins=20, mono=mono)
    # The reference would overflow in float32.
    expected = reference.magnitude(spectrum.astype(np.complex128), nb_bins=20, mono=mono)
    rtol = 2 * np.finfo(np.float32).eps
    assert_close(out.get(), expected, Tolerance(rtol, 0.0, "a root, a sum"), dtype=np.float32)


def test_peaks_and_scales(any_device):
    xp, spectra = any_device.xp, Spectra(any_device)
    spectrum = noise(2, 11, 300, dtype=np.complex64) * np.linspace(0, 30, 11)[None, :, None]
    spectrum = spectrum.astype(np.complex64)
    peaks = xp.empty(11, np.float32)
    spectra.frame_peaks(xp.asarray(spectrum), peaks)
    expected = np.abs(spectrum).max(axis=(0, 2))
    np.testing.assert_allclose(peaks.get(), expected, rtol=2e-7)
    for window in (1, 3, 4, 11, 100):
        scales = spectra.window_scales(peaks, window).get()
        by_hand = [scale_of(peaks.get()[i : i + window].max()) for i in range(0, 11, window)]
        np.testing.assert_allclose(scales, by_hand, rtol=1e-15)


@pytest.mark.parametrize(
    ("n_fft", "n_hop", "center"), [(16, 4, True), (15, 7, True), (16, 5, False), (64, 3, True)]
)
@pytest.mark.parametrize("group", [1, 2, 5, 1000])
@pytest.mark.parametrize("missing", [0, 3, 20])
def test_overlap_add_in_groups(any_device, n_fft, n_hop, center, group, missing):
    """However the frames are grouped, the samples are those of the whole signal."""
    xp, geometry, nb_frames = any_device.xp, StftGeometry(n_fft, n_hop, center), 12
    # Samples that no frame reaches are 0.
    length = max(geometry.nb_timesteps(nb_frames) + geometry.pad + missing - 10, 1)
    frames = noise(2, nb_frames, n_fft, dtype=np.float32)
    padded = np.zeros((2, geometry.nb_samples_of(nb_frames)))
    reference.overlap_add(frames.astype(float), geometry.window, n_hop=n_hop, out=padded)
    padded *= geometry.inverse_envelope(0, padded.shape[1], nb_frames)
    expected = np.zeros((2, length))
    there = padded[:, geometry.pad : geometry.pad + length]
    expected[:, : there.shape[1]] = there
    envelope = Envelope(
        xp.asarray(geometry.window.astype(np.float32)),
        xp.asarray(steady_envelope(geometry)),
        xp.asarray(geometry.window**2),
    )
    adder = OverlapAdder(
        Spectra(any_device),
        envelope,
        n_hop=n_hop,
        pad=geometry.pad,
        nb_frames=nb_frames,
        nb_timesteps=length,
    )
    out = np.full((2, length), np.nan, np.float32)
    position = 0
    for first in range(0, nb_frames, group):
        start, samples = adder.add(first, xp.asarray(frames[:, first : first + group]))
        assert start == position
        position += samples.shape[1]
        out[:, start:position] = samples.get()
    assert position == length
    assert_close(out, expected, TOL["istft"]["float32"], dtype=np.float32)


def steady_envelope(geometry: StftGeometry) -> np.ndarray:
    far = -(-geometry.n_fft // geometry.n_hop) * geometry.n_hop
    nb_frames = 2 * far // geometry.n_hop + 2
    values = geometry.inverse_envelope(far, far + geometry.n_hop, nb_frames)
    return values.astype(np.float32)
