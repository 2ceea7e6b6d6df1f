"""Where a separation puts what: pure arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from umx_np.cuda.memory import StackSize, Work, candidates, plan_memory, smallest

GB = 1000**3
HOUR = 3600 * 44100


def work(model: str = "umxhq", nb_timesteps: int = HOUR, **changes) -> Work:
    hidden = {"umxhq": 512, "umxl": 1024}[model]
    return Work(
        **{
            "nb_timesteps": nb_timesteps,
            "nb_frames": nb_timesteps // 1024 + 1,
            "nb_channels": 2,
            "mag_channels": 2,
            "n_fft": 4096,
            "n_hop": 1024,
            "nb_sources": 4,
            "nb_stems": 4,
            "iterations": 1,
            "window": 300,
            "stacks": (StackSize(4, hidden, hidden // 2, 2, 1487),),
            **changes,
        }
    )


def free(total: float, model: str) -> int:
    """What is free on a card: without the weights, what a desktop shows, and CUDA itself."""
    weights = {"umxhq": 0.15, "umxl": 0.5}[model]
    return int((total - weights - 0.8) * GB)


@pytest.mark.parametrize("window", [300, None])
@pytest.mark.parametrize("model", ["umxhq", "umxl"])
def test_an_hour_fits_a_card_of_8_gb(model, window):
    plan = plan_memory(work(model, window=window), free(8, model))
    assert (plan.audio_on_card, plan.activations_on_card) == (True, True)
    assert plan.nb_bytes <= free(8, model)
    # Two layers' outputs of four targets of umxl would take 5 GB more.
    assert plan.together == {"umxhq": 4, "umxl": 1}[model]


def test_three_minutes_fit_a_card_of_4_gb_at_full_size():
    plan = plan_memory(work(nb_timesteps=180 * 44100), free(4, "umxhq"))
    assert (plan.audio_on_card, plan.activations_on_card, plan.together) == (True, True, 4)
    assert plan.decode_frames % 300 == 0
    assert plan.scan_frames > 4000


@pytest.mark.parametrize("model", ["umxhq", "umxl"])
@pytest.mark.parametrize("hours", [2, 10, 100])
def test_any_length_fits_2_gb(model, hours):
    plan = plan_memory(work(model, hours * HOUR), 2 * GB)
    assert not plan.activations_on_card
    assert plan.nb_bytes <= 2 * GB


@pytest.mark.parametrize("window", [300, 4000, 20000, None])
@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("seconds", [0.01, 10, 1000])
def test_plans_keep_to_the_memory(window, iterations, seconds):
    job = work(nb_timesteps=int(seconds * 44100), window=window, iterations=iterations)
    least = smallest(job)
    assert plan_memory(job, least - least // 50) is None
    needs = []
    for available in (least, 2 * least, 4 * least, 100 * GB):
        plan = plan_memory(job, available)
        assert plan.nb_bytes <= available
        assert min(plan.encode_frames, plan.scan_frames, plan.decode_frames) >= 1
        if iterations and window is not None:
            assert plan.decode_frames % window == 0
        needs.append(plan.nb_bytes)
    # More memory is made use of.
    assert needs[0] <= needs[-1]
    best = plan_memory(job, 100 * GB)
    assert (best.audio_on_card, best.activations_on_card, best.together) == (True, True, 4)


def test_a_window_too_long_does_not_fit():
    assert plan_memory(work(window=100_000), 8 * GB) is None
    assert smallest(work(window=100_000)) > 8 * GB
    assert plan_memory(work(window=None), 8 * GB) is not None


def test_networks_of_several_kinds():
    stacks = (StackSize(1, 1024, 512, 2, 1487), StackSize(3, 512, 512, 1, 2049))
    one, two = (plan_memory(work(stacks=stacks[:count]), 100 * GB) for count in (1, 2))
    assert two.nb_bytes > one.nb_bytes
    assert two.together == 3


def test_candidates_begin_with_everything_on_the_card():
    plans = list(candidates(work()))
    assert plans[0].together == 4
    assert plans[0].audio_on_card
    assert not plans[-1].activations_on_card
    needs = [plan.nb_bytes for plan in plans]
    assert needs[0] == max(needs)
    assert needs[-1] == min(needs)


def test_longer_tracks_need_more():
    short, long = (replace(work(), nb_frames=n, nb_timesteps=n * 1024) for n in (10_000, 20_000))
    for one, other in zip(candidates(short), candidates(long), strict=True):
        assert one.nb_bytes <= other.nb_bytes
