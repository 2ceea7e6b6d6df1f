"""The section ``data``: batches that the card mixes, beside batches that are copied to it."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.environment import available_cores
from benchmarks.harness.timing import Timing

from . import material
from .check_training import training_backend
from .context import Context
from .record import Case, Recorder, Skip

_STEMS = ("vocals.wav", "bass.wav", "drums.wav", "other.wav")
_NB_TRACKS, _TRACK_SECONDS = 6, 30.0
_BATCH, _SECONDS = 16, 6.0
_NB_BATCHES = 12
# Of the mixtures, which are added up in another order.
_SAME = 1e-6


def cases(context: Context) -> list[Case]:
    """One: the same batches both ways."""
    return [Case("batches", partial(_batches, context), 90.0)]


def _write_tracks(context: Context, root: Path) -> float:
    """Write random tracks as 16-bit files; return the length of an excerpt in seconds."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise Skip(f"soundfile cannot be imported ({error}): python -m pip install -e .") from error
    rng = context.rng("data")
    seconds = context.size(_TRACK_SECONDS, 0.05)
    for track in range(context.size(_NB_TRACKS, 2)):
        folder = root / "train" / str(track)
        folder.mkdir(parents=True)
        for stem in _STEMS:
            sound = material.song(rng, round(seconds * material.RATE))
            soundfile.write(folder / stem, sound.T, material.RATE, subtype="PCM_16")
    return context.size(_SECONDS, 0.02)


def _batches(context: Context, recorder: Recorder) -> None:
    try:
        from umx_np.data import FixedSourcesTrackFolderDataset, Loader
        from umx_np.training.batches import ResidentBatches, UploadedBatches
    except ImportError as error:
        raise Skip(f"{error}: python -m pip install -e .") from error
    backend = training_backend(context)
    workers = min(8, available_cores())
    nb_batches, nb_samples = context.size((_NB_BATCHES, _BATCH), (2, 3))
    with tempfile.TemporaryDirectory() as folder:
        seconds = _write_tracks(context, Path(folder))
        dataset = FixedSourcesTrackFolderDataset(
            folder,
            target_file=_STEMS[0],
            interferer_files=_STEMS[1:],
            seq_duration=seconds,
            random_chunks=True,
            random_track_mix=True,
            samples_per_track=-(-nb_batches * nb_samples // context.size(_NB_TRACKS, 2)),
        )
        with Loader(dataset, nb_samples, seed=1, shuffle=True, workers=workers) as loader:
            start = time.perf_counter()
            resident = ResidentBatches(loader, dataset, backend)
            context.device.synchronize()
            filled = time.perf_counter() - start
            sources = {"mixed on the card": resident, "copied": UploadedBatches(loader, backend)}
            firsts, times = {}, {}
            for name, source in sources.items():
                firsts[name], times[name] = _epoch(context, source, nb_batches)
    for part, expected, actual in zip(("mixtures", "targets"), *firsts.values(), strict=True):
        recorder.check(f"{part} of both", expected, actual, bound=_SAME)
    recorder.timings(times)
    recorder.detail(
        "settings",
        {"workers": workers, "seconds_to_fill": filled, "bytes": resident.nb_bytes},
    )
    recorder.row(
        f"batch of {nb_samples} x {seconds:g} s, mixed on the card",
        "ms",
        times["mixed on the card"],
        peer=f"mixed by {workers} threads and copied",
        theirs=times["copied"],
    )


def _epoch(
    context: Context, source: Any, nb_batches: int
) -> tuple[tuple[np.ndarray, np.ndarray], Timing]:
    """The first batch of an epoch, and how long each of the next ones takes."""
    first: Any = None
    with closing(source.epoch(0)) as batches:
        seconds = []
        begin = time.perf_counter()
        for _ in range(nb_batches):
            x, y = next(batches)
            context.device.synchronize()
            seconds.append(time.perf_counter() - begin)
            if first is None:
                first = context.xp.asnumpy(x), context.xp.asnumpy(y)
            del x, y
            begin = time.perf_counter()
    # The first ones wait for compiling, and for threads to begin.
    return first, Timing(tuple(seconds[2:] or seconds))
