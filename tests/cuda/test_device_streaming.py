"""Whole tracks on the card against the engine of the processor and the definition."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from helpers.emulated import emulated
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
from umx_np.cuda import memory
from umx_np.cuda import separation as device_streaming
from umx_np.cuda.backend import CudaBackend
from umx_np.cuda.device import get_device
from umx_np.cuda.memory import MemoryPlan
from umx_np.cuda.separation import Engine
from umx_np.engines.sources import ArraySource
from umx_np.errors import DeviceError, ShapeError
from umx_np.separation.tracks import separate_blocks, separate_stream
from umx_np.testing import random_bundle

SAME = TOL["separator"]["float32"]


@pytest.fixture(params=["emulated-shuffled", pytest.param("cuda", marks=pytest.mark.gpu)])
def on_card(request):
    """Make separators on a card; emulated in one order of threads: kernels have other tests."""
    device = get_device(0) if request.param == "cuda" else emulated("shuffled", 1)

    def make(bundle=None, **options):
        bundle = bundle or tiny_bundle()
        return umx_np.Separator.from_bundle(bundle, device=CudaBackend(device), **options)

    return make


@pytest.fixture
def on_emulator():
    device = emulated("shuffled", 1)

    def make(**options):
        return umx_np.Separator.from_bundle(tiny_bundle(), device=CudaBackend(device), **options)

    return make


def on_cpu(bundle=None, **options):
    return umx_np.Separator.from_bundle(bundle or tiny_bundle(), device="cpu", **options)


def force(monkeypatch, *, audio=True, activations=True, together=3, frames=(50, 40, 30)):
    """Let every track be separated after this plan, in many steps."""

    def plan(self, work):
        decode = frames[2]
        if work.iterations and work.window:
            decode = max(1, decode // work.window) * work.window
        return MemoryPlan(audio, activations, together, *frames[:2], decode, 0)

    monkeypatch.setattr(Engine, "plan", plan)


def tolerance_for(options):
    single = options.get("wiener_win_len") == 1
    return TOL["separator_single_frames" if single else "separator"]["float32"]


CONFIGS = [
    {},
    {"unidirectional": True},
    {"nb_channels": 1},
    {"targets": ("a",)},
    {"hidden": (8, 12, 12)},
    {"max_bin": None, "nb_layers": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_equals_the_definition(on_card, options, config):
    bundle = tiny_bundle(**config)
    audio = music(16 * 110 + 5)
    audio.flags.writeable = False
    stems = on_card(bundle, **options)(audio)
    reference = umx_np.Separator.from_bundle(bundle, device="reference", **options)
    expected = reference(audio.astype(np.float64))
    assert_close(stems, expected, tolerance_for(options), dtype=np.float32)


@pytest.mark.parametrize("options", OPTIONS[1:3] + OPTIONS[4:], ids=str)
@pytest.mark.parametrize("config", [{}, {"unidirectional": True, "hidden": (8, 12, 12)}], ids=str)
@pytest.mark.parametrize(
    "place",
    [
        {},
        {"together": 1, "frames": (7, 9, 11)},
        {"audio": False, "together": 2},
        {"audio": False, "activations": False},
        {"frames": (10_000, 1, 10_000)},
    ],
    ids=str,
)
def test_every_plan_gives_the_same(on_card, monkeypatch, options, config, place):
    bundle, audio = tiny_bundle(**config), music(16 * 100 + 5)
    force(monkeypatch, **place)
    stems = on_card(bundle, **options)(audio)
    expected = on_cpu(bundle, **options)(audio)
    assert_close(stems, expected, tolerance_for(options), dtype=np.float32)


@pytest.mark.parametrize("length", [1, 15, 31, 33, 64, 30 * 16, 30 * 16 + 31])
@pytest.mark.parametrize("niter", [0, 1])
def test_lengths(on_card, monkeypatch, length, niter):
    """One sample, less than half a window, and around the ends of blocks."""
    force(monkeypatch)
    audio = music(length)
    options = {"niter": niter, "wiener_win_len": 15}
    stems = on_card(**options)(audio)
    assert_close(stems, on_cpu(**options)(audio), SAME, dtype=np.float32)


@pytest.mark.parametrize("level", [1e-5, 30.0, 1e6])
@pytest.mark.parametrize("options", [{"niter": 1}, {"niter": 1, "wiener_win_len": None}], ids=str)
def test_levels(on_card, level, options):
    audio = (signals.gapped(1500) * level).astype(np.float32)
    reference = umx_np.Separator.from_bundle(tiny_bundle(), device="reference", **options)
    expected = reference(audio.astype(np.float64))
    assert_close(on_card(**options)(audio), expected, SAME, dtype=np.float32)


def test_silence(on_card):
    np.testing.assert_array_equal(
        on_card(niter=2)(np.zeros((1, 2, 900), np.float32)), np.zeros((1, 3, 2, 900))
    )


def test_near_mono(on_card):
    audio = signals.near_mono(1500, -60.0).astype(np.float32)
    stems, expected = on_card(niter=1)(audio), on_cpu(niter=1)(audio)
    assert_close(stems, expected, TOL["separator_near_mono"]["float32"], dtype=np.float32)


def test_several_tracks_and_again(on_card):
    """A separator keeps nothing between tracks; results repeat to the bit."""
    model, audio = on_card(niter=1), music(1200, nb_samples=2)
    first = model(audio)
    np.testing.assert_array_equal(first[1:], model(audio[1:]))
    np.testing.assert_array_equal(first, model(audio))


def test_fast_precision(emulated_device):
    bundle, audio = tiny_bundle(hidden=(32, 32, 32)), music(2000)
    full, fast = (
        umx_np.Separator.from_bundle(
            bundle, niter=1, device=CudaBackend(emulated_device, precision)
        )(audio)
        for precision in ("full", "fast")
    )
    assert_close(fast, full, TOL["separator_fast"]["tf32"], dtype=np.float32)
    assert (fast != full).any()


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["umxhq", "umxl", "umxse"])
@pytest.mark.parametrize("niter", [0, 1])
def test_published_sizes(device, model, niter):
    """On a card only: the emulator would take hours."""
    bundle = random_bundle(model)
    audio = music(15 * int(bundle.sample_rate), nb_channels=bundle.nb_channels)
    options = {"niter": niter, "residual": niter == 0}
    expected = on_cpu(bundle, **options)(audio)
    for precision, kind in (("full", "separator"), ("fast", "separator_fast")):
        separator = umx_np.Separator.from_bundle(
            bundle, device=CudaBackend(device, precision), **options
        )
        dtype = {"full": "float32", "fast": "tf32"}[precision]
        assert_close(separator(audio), expected, TOL[kind][dtype], dtype=np.float32)


class TestStreams:
    @pytest.mark.parametrize("sizes", [[1] * 100, [7, 500, 1, 900], [2000]])
    @pytest.mark.parametrize("audio_on_card", [True, False])
    def test_block_sizes_do_not_matter(self, on_card, monkeypatch, sizes, audio_on_card):
        force(monkeypatch, audio=audio_on_card)
        model = on_card(niter=1, residual="rest")
        audio = music(sum(sizes))[0]
        source = ListSource(np.split(audio, np.cumsum(sizes)[:-1], axis=1))
        stems = streamed(model, source)
        assert_close(stems, model(audio[None])[0], TOL["blockwise"]["float32"], dtype=np.float32)
        assert source.readings == (1 if audio_on_card else 2)

    @pytest.mark.parametrize("nb_channels", [1, 2, 3])
    @pytest.mark.parametrize("model_channels", [1, 2])
    def test_channels_in_and_out(self, on_card, nb_channels, model_channels):
        bundle = tiny_bundle(nb_channels=model_channels)
        source = ArraySource(music(700, nb_channels=nb_channels)[0])
        stems = streamed(on_card(bundle, niter=1), source)
        assert_close(stems, streamed(on_cpu(bundle, niter=1), source), SAME, dtype=np.float32)

    def test_more_channels_than_the_filter_takes(self, on_card):
        model = on_card(tiny_bundle(nb_channels=3))
        with pytest.raises(ShapeError, match="nb_channels=3"):
            model(music(500, nb_channels=3))

    def test_activations_that_exceed_the_card_and_max_memory(self, on_card, monkeypatch, caplog):
        model, source = on_card(niter=1), ArraySource(music(1500)[0])
        expected = streamed(model, source)
        with caplog.at_level(logging.INFO, logger="umx_np"):
            # On the card nothing of the host is taken.
            np.testing.assert_array_equal(streamed(model, source, max_memory=0), expected)
            assert "temporary file" not in caplog.text
            force(monkeypatch, audio=False, activations=False)
            stems = streamed(model, source, max_memory=0)
        assert caplog.text.count("temporary file") == 1
        assert_close(stems, expected, TOL["blockwise"]["float32"], dtype=np.float32)

    def test_aggregate(self, on_card):
        model, audio = on_card(niter=1), music(900)[0]
        sink = ListSink()
        parts = {"x": ["a", "c"]}
        separate_stream(model.engine(), ArraySource(audio), {"x": sink}, aggregate=parts)
        stems = model(audio[None])[0]
        np.testing.assert_allclose(sink.audio, stems[0] + stems[2], atol=1e-6)

    @pytest.mark.parametrize("audio_on_card", [True, False])
    def test_a_source_of_another_length_is_refused(self, on_card, monkeypatch, audio_on_card):
        force(monkeypatch, audio=audio_on_card)
        audio = music(500)[0]
        for announced in (499, 501):
            with pytest.raises(ShapeError, match=f"nb_timesteps={announced}"):
                list(separate_blocks(on_card().engine(), ListSource([audio], announced)))

    def test_blocks_stay_valid_until_the_next(self, on_card, monkeypatch):
        """The buffer in the hands of the caller is not the one that is being filled."""
        force(monkeypatch)
        model, audio = on_card(niter=1), music(2000)
        expected = model(audio)[0]
        position, before = 0, np.empty(0)
        for start, stems in separate_blocks(model.engine(), ArraySource(audio[0])):
            assert start == position
            position += stems.shape[2]
            np.testing.assert_array_equal(stems, expected[:, :, start:position])
            assert not np.shares_memory(before, stems)
            before = stems
        assert position == 2000


class TestProgress:
    @pytest.mark.parametrize("wiener_win_len", [30, None])
    @pytest.mark.parametrize("config", [{}, {"hidden": (8, 12, 12)}], ids=str)
    def test_rises_to_one(self, on_card, monkeypatch, wiener_win_len, config):
        force(monkeypatch, together=2)
        seen = []
        model = on_card(tiny_bundle(**config), niter=2, wiener_win_len=wiener_win_len)
        for _ in separate_blocks(model.engine(), ArraySource(music(2000)[0]), seen.append):
            pass
        assert seen == sorted(seen)
        assert seen[-1] == pytest.approx(1.0)
        assert len(seen) > 10

    def test_an_error_ends_the_work(self, on_card, monkeypatch):
        force(monkeypatch)
        for ticks in (1, 5, 12):
            count = itertools.count(1)

            def stop(fraction, count=count, ticks=ticks):
                if next(count) == ticks:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                on_card()(music(2000), progress=stop)
            assert next(count) == ticks + 1

    def test_a_caller_may_stop_early(self, on_card, monkeypatch):
        force(monkeypatch)
        blocks = separate_blocks(on_card().engine(), ArraySource(music(2000)[0]))
        next(blocks)
        blocks.close()


class TestSharing:
    def test_calls_from_several_threads(self, on_card):
        assert_shared_by_threads(on_card(niter=1), 900)

    def test_two_tracks_in_turns_of_one_thread(self, on_card, monkeypatch):
        force(monkeypatch)
        model = on_card(niter=1)
        tracks = [music(1500, seed=seed)[0] for seed in range(2)]
        both = [separate_blocks(model.engine(), ArraySource(track)) for track in tracks]
        parts = [([], []) for _ in tracks]
        for blocks in itertools.zip_longest(*both):
            for (_, stems), (_, out) in zip(blocks, parts, strict=True):
                out.append(stems.copy())
        for track, (_, out) in zip(tracks, parts, strict=True):
            np.testing.assert_array_equal(np.concatenate(out, axis=2), model(track[None])[0])

    def test_weights_are_packed_once_and_go_with_the_separator(self, on_card):
        model = on_card()
        model(music(300))
        engine = weakref.ref(model.engine())
        model(music(300))
        assert model.engine() is engine()
        del model
        gc.collect()
        assert engine() is None


class TestMemory:
    def test_too_little_is_an_error_that_says_how_much(self, on_card, monkeypatch):
        model = on_card(niter=1)
        monkeypatch.setattr(model.ops.device, "free_memory", lambda: 10_000_000)
        with pytest.raises(DeviceError, match=r"10 MB of memory free.* needs \d+ MB.*device='cpu'"):
            model(music(500))

    def test_a_failing_allocation_is_explained(self, on_card, monkeypatch):
        model = on_card(niter=1)
        device = model.ops.device

        def fail(*args, **options):
            raise device.out_of_memory("Out of memory allocating 5 bytes")

        model.engine()
        monkeypatch.setattr(device_streaming, "on_card", fail)
        with pytest.raises(DeviceError, match=r"too little memory for this track.*wiener_win_len"):
            model(music(500))
        monkeypatch.setattr(device_streaming, "stacks_of", fail)
        with pytest.raises(DeviceError, match="too little memory for the weights"):
            on_card()(music(500))

    def test_little_memory_is_made_do_with(self, on_card, monkeypatch):
        """Found out by the plan itself, not by a plan of the test."""
        monkeypatch.setattr(memory, "_RESERVE", 0)
        monkeypatch.setattr(memory, "_BUDGETS", (60_000, 30_000))
        model, audio = on_card(niter=1, wiener_win_len=5), music(16 * 300)
        engine = model.engine()
        work = engine.work(2, audio.shape[2])
        expected = model(audio)
        seen, most = set(), 1.1 * next(memory.candidates(work)).nb_bytes
        for free in np.linspace(memory.smallest(work), most, 7):
            monkeypatch.setattr(model.ops.device, "free_memory", lambda free=free: int(free))
            plan = engine.plan(work)
            seen.add((plan.audio_on_card, plan.activations_on_card, plan.together))
            result = model(audio)
            assert_close(result, expected, TOL["blockwise"]["float32"], dtype=np.float32)
        assert len(seen) > 2

    @pytest.mark.parametrize("options", [{"niter": 1}, {"niter": 2, "wiener_win_len": None}])
    @pytest.mark.parametrize("place", list(range(5)))
    def test_what_is_planned_is_enough(self, on_emulator, monkeypatch, options, place):
        """The arrays of a track on the card never take more than the plan says."""
        monkeypatch.setattr(memory, "_RESERVE", 1 << 10)  # states and scales
        monkeypatch.setattr(memory, "_BUDGETS", (200_000,))
        model, audio = on_emulator(**options), music(16 * 600)
        engine = model.engine()
        plans = list(memory.candidates(engine.work(2, audio.shape[2])))
        plan = plans[place * (len(plans) - 1) // 4]
        monkeypatch.setattr(Engine, "plan", lambda self, work: plan)
        gc.collect()
        pool = model.ops.device.xp.get_default_memory_pool()
        before, reserve, most = pool.used_bytes(), pool.reserve, 0

        def watched(nb_bytes):
            nonlocal most
            reserve(nb_bytes)
            most = max(most, pool.used_bytes() - before)

        monkeypatch.setattr(pool, "reserve", watched)
        model(audio)
        # Of the FFT's workspace, which the emulator does not need, comes a part.
        assert 0.4 * plan.nb_bytes <= most <= plan.nb_bytes


@pytest.mark.parametrize("options", [{"niter": 0}, {"niter": 1, "wiener_win_len": None}], ids=str)
@pytest.mark.parametrize("audio_on_card", [True, False])
def test_the_level_of_a_model(on_card, monkeypatch, options, audio_on_card):
    force(monkeypatch, audio=audio_on_card)
    bundle = replace(tiny_bundle(), input_level=-16.0)
    audio = music(16 * 110 + 5) * np.float32(0.003)
    audio[..., 900:] *= 20
    stems = on_card(bundle, **options)(audio)
    assert_close(stems, on_cpu(bundle, **options)(audio), SAME, dtype=np.float32)
    plain = on_cpu(**options)(audio)
    assert np.abs(stems - plain).max() > 1e-2 * np.abs(plain).max()
