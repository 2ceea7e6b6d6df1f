"""The three-pass engine against the whole-track definition."""

from __future__ import annotations

import tempfile
import weakref

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.streaming import (
    OPTIONS,
    ListSink,
    ListSource,
    assert_shared_by_threads,
    music,
    streamed,
    tiny_bundle,
)
from tolerances import TOL

import umx_np
from umx_np.engines.bottleneck import DiskStore, MemoryStore
from umx_np.engines.sources import ArraySource, segments
from umx_np.errors import AudioError, ConfigError, ShapeError
from umx_np.framing.geometry import StftGeometry
from umx_np.separation.tracks import separate_blocks, separate_stream


def pair(bundle, **options):
    """The engine and its definition."""
    return (
        umx_np.Separator.from_bundle(bundle, device="cpu", threads=2, **options),
        umx_np.Separator.from_bundle(bundle, device="reference", **options),
    )


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(("n_fft", "n_hop"), [(16, 4), (15, 7), (8, 7)])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 100])
@pytest.mark.parametrize("block", [1, 5, 1000])
@pytest.mark.parametrize("group", [1, 4, 1000])
def test_segments_are_those_of_the_padded_signal(center, n_fft, n_hop, length, block, group):
    geometry = StftGeometry(n_fft, n_hop, center)
    x = np.random.default_rng(0).standard_normal((2, length))
    if not center and length < n_fft:
        with pytest.raises(ShapeError, match="less than one frame"):
            next(segments(ArraySource(x).blocks(block), geometry, length, group))
        return
    padded = geometry.pad_signal(x)
    next_frame = 0
    blocks = ArraySource(x).blocks(block)
    for first, count, segment in segments(blocks, geometry, length, group):
        assert first == next_frame
        next_frame += count
        start = first * n_hop
        expected = padded[:, start : start + geometry.nb_samples_of(count)]
        np.testing.assert_array_equal(segment, expected)
    assert next_frame == geometry.nb_frames(length)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("config", [{}, {"unidirectional": True}, {"nb_channels": 1}], ids=str)
def test_equals_the_whole_track(options, config):
    engine, definition = pair(tiny_bundle(**config), **options)
    audio = music(16 * 150 + 5, nb_samples=2)
    assert_close(
        engine(audio),
        definition(audio.astype(np.float64)),
        TOL["separator"]["float32"],
        dtype=np.float32,
    )


@pytest.mark.parametrize("length", [1, 15, 31, 33, 64, 300 * 16, 300 * 16 + 31])
def test_lengths(length):
    """One sample, less than half a window, and around the filter windows of 300 frames."""
    engine, definition = pair(tiny_bundle(), niter=1)
    audio = music(length)
    expected = definition(audio.astype(np.float64))
    assert_close(engine(audio), expected, TOL["separator"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("sizes", [[1] * 200, [7, 500, 1, 2000], [4000]])
def test_block_sizes_do_not_matter(sizes):
    engine, _ = pair(tiny_bundle(), niter=1, residual="rest")
    audio = music(sum(sizes))[0]
    whole = engine(audio[None])[0]
    stems = streamed(engine, ListSource(np.split(audio, np.cumsum(sizes)[:-1], axis=1)))
    assert_close(stems, whole, TOL["blockwise"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("sizes", [[1] * 50 + [1950], [7, 500, 1, 2000]])
def test_blocks_in_eight_bits(sizes):
    """To the bit: rows are rounded one by one, whatever is computed with them."""
    engine = umx_np.Separator.from_bundle(
        tiny_bundle(), niter=1, precision="int8", device="cpu", threads=2
    )
    audio = music(sum(sizes))[0]
    stems = streamed(engine, ListSource(np.split(audio, np.cumsum(sizes)[:-1], axis=1)))
    np.testing.assert_array_equal(stems, engine(audio[None])[0])


@pytest.mark.parametrize("precision", ["full", "int8"])
def test_activations_on_disk_change_nothing(precision):
    options = {"niter": 1, "precision": precision, "device": "cpu", "threads": 2}
    engine = umx_np.Separator.from_bundle(tiny_bundle(), **options)
    audio = music(16 * 400)[0]
    results = [streamed(engine, ArraySource(audio), max_memory=most) for most in (None, 1000)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("threads", [1, 2, 4, 9])
@pytest.mark.parametrize("precision", ["full", "int8"])
def test_memory_is_counted_in_full(threads, precision, monkeypatch):
    """`max_memory` that is just enough keeps all in memory, a byte less does not."""
    options = {"niter": 0, "threads": threads, "precision": precision, "device": "cpu"}
    engine = umx_np.Separator.from_bundle(tiny_bundle(hidden=(8, 12, 16)), **options)
    audio = music(16 * 400)[0]
    kept, most = [], 0

    class Counted(MemoryStore):
        """Knows how much is kept by all that live."""

        def __init__(self, nb_frames, width, dtype):
            nonlocal most
            super().__init__(nb_frames, width, dtype)
            kept.append(weakref.ref(self, kept.remove))
            self.nb_bytes = nb_frames * width * dtype.itemsize
            most = max(most, sum(store().nb_bytes for store in kept))

    def on_disk(*arguments):
        raise AssertionError("kept on disk")

    monkeypatch.setattr("umx_np.separation.tracks.MemoryStore", Counted)
    streamed(engine, ArraySource(audio))
    monkeypatch.setattr("umx_np.separation.tracks.DiskStore", on_disk)
    streamed(engine, ArraySource(audio), max_memory=most)
    with pytest.raises(AssertionError, match="on disk"):
        streamed(engine, ArraySource(audio), max_memory=most - 1)


@pytest.mark.parametrize("precision", ["full", "fast", "int8"])
def test_thread_counts_give_the_same_samples(precision):
    audio = music(16 * 400)
    results = [
        umx_np.Separator.from_bundle(
            tiny_bundle(), niter=1, threads=threads, precision=precision, device="cpu"
        )(audio)
        for threads in (1, 2, 5)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_calls_from_several_threads():
    engine, _ = pair(tiny_bundle(), niter=1)
    assert_shared_by_threads(engine, 2000)


@pytest.mark.parametrize("nb_channels", [1, 2, 3])
@pytest.mark.parametrize("model_channels", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_channels_in_and_out(nb_channels, model_channels, device):
    """One or two channels come back as they were; of more, the first two."""
    bundle = tiny_bundle(nb_channels=model_channels)
    engine = umx_np.Separator.from_bundle(bundle, niter=1, device=device)
    audio = music(1000, nb_channels=nb_channels)[0]
    stems = streamed(engine, ArraySource(audio))
    assert stems.shape == (3, min(nb_channels, 2), 1000)


def test_more_than_two_channels_with_models_of_one():
    engine, definition = pair(tiny_bundle(nb_channels=1))
    with pytest.raises(ShapeError, match="nb_channels=3; a model of one channel separates one or"):
        engine(music(1000, nb_channels=3))
    assert definition(music(1000, nb_channels=3)).shape == (1, 3, 3, 1000)


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("filterbank", ["torch", "asteroid"])
def test_the_largest_numbers(device, filterbank):
    """What is let in comes out finite, also where all energy is in one bin."""
    options = {"niter": 1, "filterbank": filterbank, "device": device}
    engine = umx_np.Separator.from_bundle(tiny_bundle(), **options)
    largest = np.finfo(np.float32).max / 64**2
    audio = np.ones((1, 2, 1000), np.float32)
    assert np.isfinite(engine(audio * np.float32(0.99 * largest))).all()
    with pytest.raises(ShapeError, match="too large for float32"):
        engine(audio * np.float32(1.01 * largest))


def test_files_of_targets_that_are_done_are_closed(monkeypatch):
    """Else an hour on disk takes several times the space that is told."""
    opened, most = [], []

    class Counted(DiskStore):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            opened.append(self)
            most.append(sum(not store._file.closed for store in opened))

    monkeypatch.setattr("umx_np.separation.tracks.DiskStore", Counted)
    bundle = tiny_bundle()
    engine = umx_np.Separator.from_bundle(bundle, niter=1, threads=2, device="cpu")
    audio = music(16 * 300)[0]
    np.testing.assert_array_equal(
        streamed(engine, ArraySource(audio), max_memory=0), engine(audio[None])[0]
    )
    # Three encoded tracks, and of one target two layers in two directions.
    assert len(opened) == 3 + 3 * 4
    assert max(most) == 3 + 4
    assert all(store._file.closed for store in opened)


def test_models_of_many_channels_take_the_first_ones():
    engine = umx_np.Separator.from_bundle(tiny_bundle(nb_channels=4), niter=0, device="reference")
    audio = music(1000, nb_channels=6)[0]
    stems = streamed(engine, ArraySource(audio))
    assert stems.shape == (3, 4, 1000)
    with pytest.warns(UserWarning, match="only the first 4 channels"):
        found = umx_np.separate(audio, separator=engine, channels_first=True)
    np.testing.assert_allclose(list(found.values()), stems, atol=1e-6)
    with pytest.raises(ShapeError, match="nb_channels=3; this model needs 4"):
        streamed(engine, ArraySource(audio[:3]))


def test_one_target_is_refined_against_a_residual():
    bundle = tiny_bundle(targets=("a",))
    engine, definition = pair(bundle, niter=1)
    both, _ = pair(bundle, niter=1, residual=True)
    audio = music(3000)
    out = engine(audio)
    assert out.shape == (1, 1, 2, 3000)
    np.testing.assert_array_equal(out[:, 0], both(audio)[:, 0])
    expected = definition(audio.astype(np.float64))
    assert_close(out, expected, TOL["separator"]["float32"], dtype=np.float32)


def test_aggregate_sums_stems():
    engine, _ = pair(tiny_bundle(), niter=1, residual="rest")
    audio = music(2000)[0]
    stems = engine.to_dict(engine(audio[None]))
    sinks = {"a": ListSink(), "others": ListSink()}
    parts = {"a": ["a"], "others": ["b", "c", "rest"]}
    separate_stream(engine.engine(), ArraySource(audio), sinks, aggregate=parts)
    np.testing.assert_array_equal(sinks["a"].audio, stems["a"][0])
    expected = stems["b"][0] + stems["c"][0] + stems["rest"][0]
    np.testing.assert_allclose(sinks["others"].audio, expected, atol=1e-6)


@pytest.mark.parametrize("wiener_win_len", [300, None])
def test_progress_rises_to_one(wiener_win_len):
    engine, _ = pair(tiny_bundle(), niter=2, wiener_win_len=wiener_win_len)
    seen = []
    engine(music(16 * 700, nb_samples=2), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 6


def test_progress_may_be_a_bar(capsys):
    engine, _ = pair(tiny_bundle())
    for progress in (True, False, None):
        assert engine(music(500), progress=progress).shape == (1, 3, 2, 500)
        assert len(list(engine.blocks(music(500)[0], progress=progress))) > 0
    assert capsys.readouterr().err == ""  # stderr is no terminal


def test_an_error_of_the_progress_callback_ends_the_work():
    engine, _ = pair(tiny_bundle())

    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine(music(5000), progress=stop)


def test_a_source_of_another_length_is_refused():
    engine, _ = pair(tiny_bundle())
    audio = music(500)[0]
    for announced in (499, 501):
        with pytest.raises(ShapeError, match=f"nb_timesteps={announced}"):
            list(separate_blocks(engine.engine(), ListSource([audio], announced)))


def test_writers_must_be_the_stems():
    engine, _ = pair(tiny_bundle())
    source = ArraySource(music(500)[0])
    with pytest.raises(ConfigError, match="writers"):
        separate_stream(engine.engine(), source, {"a": ListSink()})
    with pytest.raises(ConfigError, match="'nobody'"):
        separate_stream(engine.engine(), source, {"x": ListSink()}, aggregate={"x": ["nobody"]})


class TestBlocks:
    """`Separator.blocks`: the same stems for callers that have no files."""

    @pytest.mark.parametrize("device", ["cpu", "reference"])
    @pytest.mark.parametrize("nb_channels", [1, 2])
    def test_are_those_of_the_whole(self, device, nb_channels):
        engine = umx_np.Separator.from_bundle(tiny_bundle(), niter=1, device=device)
        audio = music(16 * 700, nb_channels=nb_channels)[0]
        seen = []
        blocks = list(engine.blocks(audio, progress=seen.append))
        assert len(blocks) > 1 or device == "reference"
        assert [start for start, _ in blocks] == [
            sum(stems.shape[-1] for _, stems in blocks[:k]) for k in range(len(blocks))
        ]
        # Of blocks that were kept, none has been overwritten by later ones.
        np.testing.assert_array_equal(
            np.concatenate([stems for _, stems in blocks], axis=-1),
            streamed(engine, ArraySource(audio)),
        )
        assert seen[-1] == 1.0

    def test_of_a_source_in_any_real_dtype(self):
        engine, _ = pair(tiny_bundle())
        audio = np.round(1000 * music(3000)[0])
        expected = engine(audio[None])[0]
        for dtype in (np.int16, np.float64):
            source = ListSource(np.split(audio.astype(dtype), [0, 1000, 1003], axis=1))
            parts = [stems for _, stems in engine.blocks(source, max_memory=0)]
            np.testing.assert_array_equal(np.concatenate(parts, axis=-1), expected)

    def test_name_what_is_wrong(self):
        engine, _ = pair(tiny_bundle())
        audio = music(500)[0]
        with pytest.raises(ShapeError, match=r"source has shape=\(500,\)"):
            engine.blocks(audio[0])
        with pytest.raises(ShapeError, match="nothing to separate"):
            engine.blocks(audio[:, :0])
        four = umx_np.Separator.from_bundle(tiny_bundle(nb_channels=4))
        with pytest.raises(ShapeError, match="nb_channels=2; this model needs 4"):
            four.blocks(audio)
        source = ListSource([audio])
        source.rate = 44100
        with pytest.raises(ConfigError, match="rate=44100 Hz, this model 8000; open it with rate="):
            engine.blocks(source)
        for bad in (np.nan, np.inf, 1e300, 1e36):
            with pytest.raises(ShapeError, match="NaN, infinity or numbers too large"):
                list(engine.blocks(np.where(np.arange(500) == 300, bad, audio.astype(float))))
        with pytest.raises(ShapeError, match="dtype=complex64"):
            list(engine.blocks(audio * 1j))
        with pytest.raises(ShapeError, match=r"shape=\(1, 500\); it must be \(2, nb_timesteps\)"):
            list(engine.blocks(ListSource([audio[:, :100], audio[:1]])))
        with pytest.raises(ShapeError, match="announced nb_timesteps=501"):
            list(engine.blocks(ListSource([audio], 501)))


class TestStores:
    @pytest.mark.parametrize("make", [MemoryStore, DiskStore])
    def test_read_what_was_written(self, make):
        store = make(10, 3, np.dtype(np.float32))
        data = np.arange(30, dtype=np.float32).reshape(10, 3)
        store.write(6, data[6:])
        store.write(0, data[:6].copy(order="F"))
        np.testing.assert_array_equal(store.read(2, 8), data[2:8])
        np.testing.assert_array_equal(store.read(0, 10), data)
        if make is DiskStore:
            store.close()

    def test_a_short_file_is_an_error(self):
        store = DiskStore(4, 2, np.dtype(np.float32))
        with pytest.raises(AudioError, match="temporary file"):
            store.read(3, 6)
        store.close()

    def test_a_folder_that_cannot_be_used_is_an_error(self, monkeypatch, tmp_path):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        with pytest.raises(AudioError, match="TMPDIR"):
            DiskStore(4, 2, np.dtype(np.float32))
