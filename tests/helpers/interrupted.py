"""Interrupts of work on several threads, at random moments. Run by `tests/support/test_threads.py`.

    python tests/helpers/interrupted.py {map,separate,loader,files,evaluate} COUNT [SEED]

Each attempt is interrupted by a signal, every fourth by a burst of up to three. What the handler
raised must have come to the caller, no task may be at work, nor threads be left, and the same work
done anew must give the same numbers. Prints from time to time how many interrupts there were and
after how many seconds; ends with 0 after the last.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Set
from contextlib import closing
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType

import numpy as np
import soundfile as sf

from umx_np import Separator, audio
from umx_np._support.inputs import read_json
from umx_np._support.programs import Program, run_program
from umx_np._support.threads import parallel_map
from umx_np.config import ModelConfig
from umx_np.data import Loader, UnmixDataset
from umx_np.engines.bottleneck import DiskStore
from umx_np.evaluation import evaluate
from umx_np.testing import random_bundle_of
from umx_np.weights import save_folder

THREADS = 3
# Interrupts after which it tells how far it is.
PROGRESS = 1000


class Interrupt(KeyboardInterrupt):
    """Has a number, so that none can be missed."""


# Where each one was raised.
raised: list[str] = []
left = 0  # to be raised in the present attempt


def handle(number: int, frame: FrameType | None) -> None:
    """As Python's own handler for Ctrl-C does, but only into the work."""
    global left
    if left < 1 or frame is None:
        return
    if frame.f_code in (handle.__code__, interrupted.__code__, main.__code__):
        return  # the first would take the place of one that is about to be raised
    left -= 1
    place, caller = f"{frame.f_code.co_filename}:{frame.f_lineno}", frame.f_back
    if caller is not None:
        place += f" < {caller.f_code.co_filename}:{caller.f_lineno}"
    raised.append(place)
    raise Interrupt(len(raised) - 1)


def numbers_of(error: BaseException | None) -> list[int]:
    """Numbers of an interrupt and of those in whose handling it was raised."""
    found = []
    while error is not None:
        if isinstance(error, Interrupt):
            found.append(error.args[0])
        error = error.__context__
    return found


def interrupted(work: Callable[[], object], delay: float, burst: int) -> list[int]:
    """Do something that is interrupted, and return the interrupts that came through."""
    global left
    seen: list[int] = []
    left = burst
    signal.setitimer(signal.ITIMER_REAL, delay, 2e-4)
    try:
        work()
    except Interrupt as error:
        left = 0
        seen = numbers_of(error)
    left = 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    return seen


def map_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """Short tasks that tell when they are at work."""
    at_work: set[int] = set()

    def task(item: int) -> int:
        at_work.add(item)
        time.sleep(1e-4 * (item % 3))
        at_work.discard(item)
        return item * item

    def run() -> list[int]:
        return parallel_map(THREADS, task, range(12))

    def check() -> None:
        assert not at_work, at_work
        assert run() == [k * k for k in range(12)]

    return run, check


def separate_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """A separation of a small model."""
    config = ModelConfig(nb_bins=65, hidden_size=8, nb_layers=1)
    bundle = random_bundle_of(config, ["vocals", "drums"], n_fft=128, n_hop=32)
    separator = Separator.from_bundle(bundle, threads=THREADS)
    mix = np.random.default_rng(0).standard_normal((1, 2, 4000)).astype(np.float32)
    expected = separator(mix)

    def check() -> None:
        np.testing.assert_array_equal(separator(mix), expected)

    return lambda: separator(mix), check


class Noise(UnmixDataset):
    """Eleven items of random numbers."""

    def __len__(self) -> int:
        return 11

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(1e-4)
        x = rng.standard_normal((2, 30), np.float32)
        return x, x


def loader_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """An epoch, and one that is left early."""
    loader = Loader(Noise(), 2, seed=0, shuffle=True, workers=THREADS)

    def run() -> list[np.ndarray]:
        for _batch in loader.epoch(0):
            break
        return [x for x, _ in loader.epoch(0)]

    expected = run()

    def check() -> None:
        names = [thread.name for thread in threading.enumerate()]
        assert not any(name.startswith("umx-np-loader") for name in names), names
        found = [x for x, _ in loader.epoch(0)]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)

    return run, check


class Listed:
    """The files of a folder and the open handles, as they were at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = self.listed()
        self.handles = 0

    def listed(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*"))

    def check(self, known: Set[int | None] = frozenset(), last: int = 0) -> None:
        """No handle but those of the last processes may be left, no file, and no program."""
        gc.collect()
        left = [name for name in self.listed() if name not in self.names]
        assert not [name for name in left if name.endswith(".tmp")], left
        deadline = time.monotonic() + 10.0
        while True:
            handles = len(os.listdir("/proc/self/fd"))
            tasks = Path("/proc/self/task").iterdir()
            texts = [(task / "children").read_text() for task in tasks]
            children = {int(pid) for text in texts for pid in text.split()} - known
            if handles <= (self.handles or handles) + last and not children:
                break
            # Threads of the standard library close some when they end, soon after.
            assert time.monotonic() < deadline, (os.listdir("/proc/self/fd"), children)
            time.sleep(0.01)
        self.handles = self.handles or handles


def files_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """Sounds that are written, read, and read in pieces; models; stores; a program that runs."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    sound = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32) / 10
    for name in ("a.ogg", "b.flac", "c.mp3", "d.wav"):
        sf.write(folder / name, sound, 44100)
    # Two links of a chain are read in pieces.
    (folder / "a.ogg").write_bytes(2 * (folder / "a.ogg").read_bytes())
    (folder / "d.json").write_text("{}")
    command = [sys.executable, "-S", "-c", "print(1)"]
    songs = {name: audio.read(folder / name)[0] for name in ("a.ogg", "b.flac", "c.mp3", "d.wav")}
    listed = Listed(folder)

    def run() -> None:
        for name in songs:
            audio.read(folder / name)
        audio.write(folder / "d.wav", sound.T, 44100, bits="float", clip_mode="none")
        read_json(folder / "d.json")
        DiskStore(4, 5, np.dtype(np.float32)).close()
        run_program(command, 10.0)
        with closing(Program(command)) as program:
            program.read(1, 10.0)

    def check() -> None:
        for name, expected in songs.items():
            found = audio.read(folder / name)[0]
            if name != "d.wav":
                np.testing.assert_array_equal(found, expected)
            assert found.shape == expected.shape
        listed.check()

    return run, check


def evaluate_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """An evaluation in two processes, which must end with it; the scores are those of one."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    rng = np.random.default_rng(0)
    for track in ("one", "two"):
        (folder / "tracks" / "test" / track).mkdir(parents=True)
        for name in ("vocals", "drums"):
            sound = rng.standard_normal((4000, 1)) / 10
            sf.write(folder / "tracks" / "test" / track / f"{name}.wav", sound, 8000)
    config = ModelConfig(nb_bins=65, nb_channels=1, hidden_size=8)
    bundle = random_bundle_of(config, ["vocals", "drums"], n_fft=128, sample_rate=8000.0)
    save_folder(bundle, folder / "model")

    def run(cores: int = 2) -> list[str]:
        shutil.rmtree(folder / "scores", ignore_errors=True)
        done = evaluate(
            folder / "tracks",
            dataset="folder",
            model=folder / "model",
            evaldir=folder / "scores",
            cores=cores,
            threads=2,
        )
        assert not done.failed
        paths = sorted((folder / "scores" / "test").glob("*.json"))
        return [path.read_text() for path in paths]

    expected = run(1)
    run()
    listed = Listed(folder / "tracks")

    def check() -> None:
        multiprocessing.active_children()  # which waits for those that have ended
        listed.check(known=tracker(), last=2)
        assert run(1) == expected

    return run, check


def tracker() -> set[int]:
    """The process that `multiprocessing` keeps until the program ends."""
    return {resource_tracker._resource_tracker._pid}


def main(what: str, count: int, seed: int = 0) -> None:
    """Interrupt something many times."""
    works = {
        "map": map_work,
        "separate": separate_work,
        "loader": loader_work,
        "files": files_work,
        "evaluate": evaluate_work,
    }
    work, check = works[what]()
    check()
    begin = time.perf_counter()
    for _ in range(5):
        work()
    usual = (time.perf_counter() - begin) / 5
    rng = random.Random(seed)
    signal.signal(signal.SIGALRM, handle)
    nb_threads = threading.active_count()
    told, begin = 0, time.monotonic()
    while len(raised) < count:
        before = len(raised)
        burst = rng.choice([2, 3]) if rng.random() < 0.25 else 1
        if what in ("files", "evaluate"):
            # Files of Python's own that the first interrupt drops are closed by a finaliser, which
            # would swallow a second one.
            burst = 1
        seen = interrupted(work, rng.uniform(1e-6, 1.1 * usual), burst)
        lost = set(range(before, len(raised))) - set(seen)
        assert not lost, (seen, {number: raised[number] for number in lost})
        check()
        assert threading.active_count() <= max(nb_threads, 1 + THREADS), threading.enumerate()
        if len(raised) // PROGRESS > told or len(raised) >= count:
            told = len(raised) // PROGRESS
            seconds = time.monotonic() - begin
            print(f"{len(raised)} interrupts of {what}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
