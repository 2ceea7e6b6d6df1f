"""Which axis is which, scaling of integers, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umx_np.audio import Layout, preprocess, resample
from umx_np.errors import ConfigError, ShapeError


def noise(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


SHAPES = [
    # shape of the caller, axes, channels, shape for the model
    ((50,), "T", 1, (1, 2, 50)),
    ((2, 50), "CT", 2, (1, 2, 50)),
    ((50, 2), "TC", 2, (1, 2, 50)),
    ((1, 50), "CT", 1, (1, 2, 50)),
    ((50, 1), "TC", 1, (1, 2, 50)),
    ((2, 2), "CT", 2, (1, 2, 2)),
    ((1, 1), "CT", 1, (1, 2, 1)),
    ((2, 1), "TC", 1, (1, 2, 2)),
    ((1, 2), "CT", 1, (1, 2, 2)),
    ((3, 2), "TC", 2, (1, 2, 3)),
    ((3, 2, 50), "NCT", 2, (3, 2, 50)),
    ((3, 50, 2), "NTC", 2, (3, 2, 50)),
    ((3, 1, 50), "NCT", 1, (3, 2, 50)),
]


@pytest.mark.parametrize(("shape", "axes", "nb_channels", "expected"), SHAPES)
def test_shapes_and_way_back(shape, axes, nb_channels, expected):
    audio = noise(*shape)
    layout = Layout.of(audio)
    assert layout == Layout(axes, nb_channels)
    waveform = preprocess(audio)
    assert waveform.shape == expected
    assert waveform.dtype == np.float32
    assert waveform.flags.c_contiguous
    restored = layout.restore(waveform)
    assert restored.flags.c_contiguous
    np.testing.assert_array_equal(restored, audio)


def test_two_long_axes_are_a_batch_of_mono():
    audio = noise(3, 50)
    with pytest.warns(UserWarning, match="3 mono signals"):
        layout = Layout.of(audio)
    with pytest.warns(UserWarning, match="channels_first"):
        waveform = preprocess(audio)
    assert waveform.shape == (3, 2, 50)
    np.testing.assert_array_equal(layout.restore(waveform), audio)


def test_channels_first_says_what_cannot_be_guessed():
    audio = noise(6, 50)
    for first, array in ((True, audio), (False, audio.T)):
        with pytest.warns(UserWarning, match="nb_channels=6: only the first 2"):
            waveform = preprocess(array, channels_first=first)
        np.testing.assert_array_equal(waveform, audio[None, :2])


@pytest.mark.filterwarnings("ignore:nb_channels=50")
def test_channels_first_overrides_the_guess():
    assert preprocess(noise(50, 2), channels_first=True).shape == (1, 2, 2)


def test_more_than_two_channels_keep_time():
    # Open-Unmix cuts the time axis here: (1, 6, T) becomes (1, 6, 2).
    audio = noise(1, 6, 50)
    with pytest.warns(UserWarning, match="nb_channels=6"):
        waveform = preprocess(audio)
    np.testing.assert_array_equal(waveform, audio[:, :2])
    assert Layout.of(audio).restore(waveform).shape == (1, 2, 50)


def test_model_of_one_channel():
    assert preprocess(noise(50), nb_channels=1).shape == (1, 1, 50)
    assert preprocess(noise(2, 50), nb_channels=1).shape == (1, 2, 50)
    stems = noise(1, 1, 50)
    np.testing.assert_array_equal(Layout("T", 1).restore(stems), stems[0, 0])


def test_mono_comes_back_as_the_mean():
    stems = noise(1, 2, 50)
    np.testing.assert_allclose(Layout("T", 1).restore(stems), stems[0].mean(0), atol=1e-7)
    assert Layout("TC", 1).restore(stems).shape == (50, 1)


def test_restore_checks_shapes():
    with pytest.raises(ShapeError, match="nb_samples=2 must be 1"):
        Layout("CT", 2).restore(noise(2, 2, 50))
    with pytest.raises(ShapeError, match=r"shape=\(2, 50\)"):
        Layout("CT", 2).restore(noise(2, 50))
    with pytest.raises(ShapeError, match="axes='XY'"):
        Layout("XY", 2)
    with pytest.raises(ShapeError, match="does not have the axes CT"):
        Layout("CT", 2).to_batch(noise(50))


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int8, [-128, 0, 64], [-1, 0, 0.5]),
        (np.int16, [-32768, 0, 16384, 32767], [-1, 0, 0.5, 32767 / 32768]),
        (">i2", [-32768, 16384], [-1, 0.5]),
        (np.int32, [-(2**31), 2**30], [-1, 0.5]),
        (np.uint8, [0, 128, 192], [-1, 0, 0.5]),
        (np.uint16, [0, 32768], [-1, 0]),
        (np.uint32, [0, 2**31], [-1, 0]),
        (np.float16, [-1, 0.5], [-1, 0.5]),
        (np.float64, [-1, 0.5], [-1, 0.5]),
        (">f4", [-1, 0.5], [-1, 0.5]),
    ],
)
def test_types(dtype, values, expected):
    waveform = preprocess(np.array(values, dtype))
    assert waveform.dtype == np.dtype(np.float32)
    assert waveform.dtype.isnative
    np.testing.assert_array_equal(waveform[0, 0], np.array(expected, np.float32))


def test_full_range_of_int32_stays_in_range():
    waveform = preprocess(np.array([2**31 - 1, -(2**31)], np.int32))
    assert np.abs(waveform).max() <= 1


def test_lists_are_arrays_too():
    assert preprocess([[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]).shape == (1, 2, 3)


@pytest.mark.parametrize("dtype", [bool, complex, object, "U3", np.int64, np.uint64, "M8[s]"])
def test_types_that_are_no_waveform(dtype):
    with pytest.raises(ShapeError, match="dtype="):
        preprocess(np.zeros((2, 9)).astype(dtype))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (0, 2, 50), (1, 2, 3, 4)])
def test_shapes_that_are_no_waveform(shape):
    with pytest.raises(ShapeError, match="shape="):
        preprocess(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_names_the_first_value_that_is_not_finite(value):
    audio = np.zeros((50, 2))
    audio[7, 1] = audio[9, 0] = value
    with pytest.raises(ShapeError, match="sample=0 channel=0 time=9"):
        preprocess(audio)


def test_resamples_with_the_rules_of_resample():
    audio = noise(2, 480)
    np.testing.assert_array_equal(
        preprocess(audio, rate=48000, model_rate=44100)[0], resample(audio, 48000, 44100)
    )
    # Without a rate, the array is at the model's.
    np.testing.assert_array_equal(preprocess(audio, model_rate=44100)[0], audio)
    mono = preprocess(audio[0], rate=48000, model_rate=44100.0)
    np.testing.assert_array_equal(mono[0, 0], mono[0, 1])
    with pytest.raises(ConfigError, match="rate=-1"):
        preprocess(audio, rate=-1, model_rate=44100)


@settings(deadline=None)
@given(
    st.sampled_from([shape for shape, *_ in SHAPES]),
    st.sampled_from([np.float32, np.float64, np.int16]),
    st.sampled_from(["C", "F"]),
    st.booleans(),
)
def test_input_is_never_touched(shape, dtype, order, is_reversed):
    audio = np.array(noise(*shape) * 100, dtype=dtype, order=order)
    if is_reversed:
        audio = audio[..., ::-1]
    audio.setflags(write=False)
    before = audio.copy()
    waveform = preprocess(audio)
    waveform += 1  # writable, and no view
    np.testing.assert_array_equal(audio, before)
