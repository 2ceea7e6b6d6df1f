"""What items are planned to be made of is what they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umx_np.data import (
    FixedSourcesTrackFolderDataset,
    MUSDBDataset,
    VariableSourcesTrackFolderDataset,
    aug_from_str,
    gain,
    item_rng,
)
from umx_np.data.files import Clip
from umx_np.data.musdb18 import MUSDBFolder, MUSDBTrack
from umx_np.data.plans import PlannedItem, PlanningDataset

from .conftest import RATE, Tree

FILES = ("vocals.wav", "bass.wav", "drums.wav")
AUGMENTED = aug_from_str(["gain", "channelswap", "polarity", "width"])


def carried_out(dataset: PlanningDataset, item: PlannedItem) -> tuple[np.ndarray, np.ndarray]:
    count = dataset.nb_timesteps
    sources = [s.channels @ dataset.files.read(s.clip, s.first, count) for s in item.sources]
    return sum(sources), sum(sources[position] for position in item.target)


def check(dataset: Any) -> None:
    assert isinstance(dataset, PlanningDataset)
    assert not dataset.why_no_plans
    for index in range(len(dataset)):
        item = dataset.plan(index, item_rng(3, 1, index))
        assert {source.clip for source in item.sources} <= set(dataset.clips)
        x, y = carried_out(dataset, item)
        expected_x, expected_y = dataset.sample(index, item_rng(3, 1, index))
        if item.level is not None:
            factor = 10.0 ** (item.level / 20.0) / np.sqrt(np.mean(x**2))
            x, y = factor * x, factor * y
        np.testing.assert_allclose(x, expected_x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"source_augmentations": AUGMENTED},
        {"random_track_mix": True, "samples_per_track": 3, "source_augmentations": AUGMENTED},
        {"random_track_mix": True, "coherent_share": 0.5, "mix_level": (-30.0, -10.0)},
    ],
    ids=["plain", "augmented", "mixed", "partly mixed, brought to a level"],
)
def test_fixed_sources(tree: Tree, settings: dict[str, Any]) -> None:
    tree.tracks(["train"], ["1", "2", "3"], FILES)
    check(
        FixedSourcesTrackFolderDataset(tree.root, seq_duration=1.0, random_chunks=True, **settings)
    )


def test_mono_made_stereo(tree: Tree) -> None:
    for name in FILES:
        tree.add(f"train/1/{name}", nb_channels=1)
    augmentations = aug_from_str(["force_stereo", "gain", "channelswap"])
    dataset = FixedSourcesTrackFolderDataset(
        tree.root, seq_duration=1.0, source_augmentations=augmentations
    )
    assert dataset.plan(0, item_rng(0, 0, 0)).sources[0].channels.shape == (2, 1)
    check(dataset)


@pytest.mark.parametrize("target", ["bass", "accompaniment"])
def test_musdb(tree: Tree, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    sources = ("drums", "bass", "other", "vocals")
    tracks = []
    for name in ("one", "two"):
        clips = {s: Clip(tree.add(f"train/{name}/{s}.wav")) for s in ("mixture", *sources)}
        tracks.append(MUSDBTrack(name, clips.pop("mixture"), clips))
    targets = {source: {source: 1} for source in sources}
    targets["accompaniment"] = dict.fromkeys(sources[:3], 1)
    setup = {"sample_rate": RATE, "sources": sources, "targets": targets}
    database = MUSDBFolder(str(tree.root), setup, tracks)
    monkeypatch.setattr("umx_np.data.musdb18.open_database", lambda *arguments: database)
    dataset = MUSDBDataset(
        target,
        tree.root,
        is_wav=True,
        seq_duration=1.0,
        samples_per_track=2,
        source_augmentations=AUGMENTED,
        random_track_mix=True,
    )
    check(dataset)
    whole = MUSDBDataset(target, tree.root, is_wav=True, split="valid", seq_duration=1.0)
    assert whole.why_no_plans == "its items are whole tracks"


def test_why_not(tree: Tree) -> None:
    tree.tracks(["train"], ["1"], FILES)

    def made(**settings: Any) -> FixedSourcesTrackFolderDataset:
        return FixedSourcesTrackFolderDataset(tree.root, **settings)

    assert made().why_no_plans == "its items are whole tracks"
    own = made(seq_duration=1.0, source_augmentations=lambda audio, rng: audio[::-1])
    assert own.why_no_plans == "it has augmentations of its own"
    assert made(seq_duration=1.0, source_augmentations=gain).why_no_plans == ""
    filtered = made(seq_duration=1.0, source_augmentations=aug_from_str(["gain", "tilt"]))
    assert filtered.why_no_plans == "its sources are filtered (tilt)"
    assert made(seq_duration=1.0, speed=(0.9, 1.1)).why_no_plans == "its tracks change their speed"
    assert not isinstance(
        VariableSourcesTrackFolderDataset(tree.root, seq_duration=1.0), PlanningDataset
    )
