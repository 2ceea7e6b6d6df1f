"""`Loader`: the same batches for any number of workers, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from umx_np.data import (
    DataError,
    Loader,
    UnmixDataset,
    VariableSourcesTrackFolderDataset,
    item_rng,
)
from umx_np.data.base import epoch_order
from umx_np.errors import AudioError, ConfigError

from .conftest import Tree

EVERY = [("threads", 0), ("threads", 1), ("threads", 3), ("processes", 1), ("processes", 2)]


class Noise(UnmixDataset):
    """Random numbers, with what may go wrong at chosen items."""

    def __init__(self, length: int = 11, **trouble: int) -> None:
        super().__init__()
        self.length = length
        self.trouble = trouble

    def __len__(self) -> int:
        return self.length

    def describe(self, index: int) -> str:
        return f"track {index}"

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        y = rng.standard_normal((2, 30), np.float32)
        x = y + np.float32(index)
        for name, where in self.trouble.items():
            if where == index:
                if name == "unreadable":
                    raise AudioError("path='a/b.wav' is damaged")
                if name == "bug":
                    raise ZeroDivisionError("a bug")
                if name == "dies":
                    os._exit(7)
                if name == "nan":
                    x[0, 3] = np.nan
                if name == "long":
                    x, y = np.tile(x, 2), np.tile(y, 2)
                if name == "double":
                    x = x.astype(np.float64)
                if name == "uneven":
                    y = y[:, :20]
                if name == "skips":
                    self.skip("c.wav", "path='c.wav' is damaged")
        return x, y


def make(
    dataset: UnmixDataset, workers: int = 0, mode: str = "threads", **options: object
) -> Loader:
    settings: dict = {"batch_size": 3, "seed": 5, "shuffle": True} | options
    return Loader(dataset, workers=workers, mode=mode, **settings)


def batches(loader: Loader, epoch: int, start: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    with loader:
        return list(loader.epoch(epoch, start))


def assert_same(a: list, b: list) -> None:
    assert len(a) == len(b)
    for (xa, ya), (xb, yb) in zip(a, b, strict=True):
        np.testing.assert_array_equal(xa, xb)
        np.testing.assert_array_equal(ya, yb)


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("umx-np-loader")]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> object:
    yield
    assert not loader_threads()
    assert not multiprocessing.active_children()


def test_batches_hold_the_items_that_are_announced() -> None:
    dataset = Noise()
    loader = make(dataset)
    assert len(loader) == 4
    for indices, (x, y) in zip(loader.indices(2), loader.epoch(2), strict=True):
        assert x.dtype == y.dtype == np.float32
        assert x.shape == y.shape == (len(indices), 2, 30)
        for k, index in enumerate(indices):
            expected = dataset.sample(int(index), item_rng(5, 2, int(index)))
            np.testing.assert_array_equal(x[k], expected[0])
            np.testing.assert_array_equal(y[k], expected[1])


@pytest.mark.parametrize(("mode", "workers"), EVERY)
def test_batches_do_not_depend_on_the_workers(mode: str, workers: int) -> None:
    reference = batches(make(Noise()), 3)
    with make(Noise(), workers, mode) as loader:
        assert_same(list(loader.epoch(3)), reference)
        # A second epoch uses the same processes, and an epoch can be repeated.
        assert_same(list(loader.epoch(4)), batches(make(Noise()), 4))
        assert_same(list(loader.epoch(3)), reference)
        # Resuming makes the rest and nothing else.
        assert_same(list(loader.epoch(3, 2)), reference[2:])
        assert_same(list(loader.epoch(3, 4)), [])


@pytest.mark.parametrize("prefetch", [1, 2, 50])
def test_batches_do_not_depend_on_prefetching(prefetch: int) -> None:
    assert_same(batches(make(Noise(), 2, prefetch=prefetch), 0), batches(make(Noise()), 0))


def test_orders_are_permutations_that_change() -> None:
    orders = {tuple(epoch_order(1, epoch, 50)) for epoch in range(20)}
    assert len(orders) == 20
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert tuple(epoch_order(2, 0, 50)) not in orders
    # The numbers of items do not repeat those of the order or of each other.
    draws = {item_rng(1, e, k).random() for e in range(20) for k in range(20)}
    assert len(draws) == 400


def test_without_shuffling_items_come_in_order() -> None:
    x = np.concatenate([x for x, _ in batches(make(Noise(), 2, shuffle=False), 0)])
    y = np.concatenate([y for _, y in batches(make(Noise(), 2, shuffle=False), 0)])
    np.testing.assert_allclose((x - y)[:, 0, 0], np.arange(11), atol=1e-5)


def test_the_last_batch_may_be_dropped() -> None:
    loader = make(Noise(), drop_last=True)
    assert len(loader) == 3
    assert [len(x) for x, _ in loader.epoch(0)] == [3, 3, 3]
    assert len(make(Noise(12), drop_last=True)) == len(make(Noise(12))) == 4


def test_whole_tracks_of_different_lengths_come_one_by_one() -> None:
    got = batches(make(Noise(4, long=2), 2, batch_size=1, shuffle=False), 0)
    assert [x.shape for x, _ in got] == [(1, 2, 30), (1, 2, 30), (1, 2, 60), (1, 2, 30)]


@pytest.mark.parametrize(("mode", "workers"), [("threads", 0), ("threads", 2), ("processes", 1)])
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("unreadable", r"item 4 \(track 4\): AudioError: path='a/b.wav' is damaged"),
        ("bug", r"item 4 \(track 4\): ZeroDivisionError: a bug"),
        ("nan", r"item 4 \(track 4\): it holds NaN"),
        ("long", r"\(nb_channels, nb_timesteps\)=\(2, (60|30)\) differs .* use batch_size=1"),
        ("double", r"item 4 \(track 4\): x must be a float32 array"),
        ("uneven", r"item 4 .* x has shape=\(2, 30\) and y has shape=\(2, 20\)"),
    ],
)
def test_errors_name_the_item(mode: str, workers: int, trouble: str, message: str) -> None:
    with (
        make(Noise(**{trouble: 4}), workers, mode) as loader,
        pytest.raises(DataError, match=message) as caught,
    ):
        list(loader.epoch(0))
    if trouble != "long":
        assert caught.value.index == 4


def test_a_loader_goes_on_after_an_error() -> None:
    with make(Noise(bug=4), 2, "processes") as loader:
        for _ in range(2):
            with pytest.raises(DataError):
                list(loader.epoch(0))
        assert len(next(loader.epoch(0, 3))[0]) == 2 or 4 in loader.indices(0)[3]


def test_batches_before_the_error_still_come() -> None:
    loader = make(Noise(bug=4), 2, shuffle=False)
    iterator = loader.epoch(0)
    next(iterator)
    with pytest.raises(DataError):
        next(iterator)


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_files_that_are_passed_over_are_reported_here(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Noise(skips=4)
    batches(make(dataset, 2, mode), 0)
    assert dataset.skipped == {"c.wav": "path='c.wav' is damaged"}
    assert caplog.text.count("passed over (1 so far): path='c.wav'") == 1


@pytest.mark.parametrize(("mode", "workers"), EVERY)
def test_leaving_early(mode: str, workers: int) -> None:
    with make(Noise(100), workers, mode) as loader:
        for _ in range(3):
            for _batch in loader.epoch(0):
                break
            assert not loader_threads()
        assert_same(list(loader.epoch(1)), batches(make(Noise(100)), 1))


def test_closing_in_the_middle_of_an_epoch() -> None:
    loader = make(Noise(100), 2, "processes")
    iterator = loader.epoch(0)
    next(iterator)
    loader.close()
    assert not multiprocessing.active_children()
    iterator.close()


def test_a_forgotten_loader_ends_its_processes() -> None:
    loader = make(Noise(), 2, "processes")
    list(loader.epoch(0))
    assert len(multiprocessing.active_children()) == 2
    del loader
    assert not multiprocessing.active_children()


def test_only_as_many_batches_as_asked_for_are_made_ahead() -> None:
    made: list[int] = []

    class Counting(Noise):
        def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            made.append(index)
            return super().sample(index, rng)

    iterator = make(Counting(300), 2, prefetch=4).epoch(0)
    next(iterator)
    time.sleep(0.2)
    assert len(made) <= 3 * (1 + 4)
    iterator.close()


def test_a_process_that_dies_is_an_error() -> None:
    with make(Noise(dies=4), 2, "processes") as loader:
        with pytest.raises(DataError, match=r"ended with exitcode=7"):
            list(loader.epoch(0))
        # The others are ended too; the next epoch begins with new ones.
        assert not multiprocessing.active_children()
        assert len(next(loader.epoch(0, 3 if 4 not in loader.indices(0)[3] else 2))) == 2


def test_datasets_that_cannot_be_sent_are_refused() -> None:
    dataset = Noise()
    dataset.trouble = lambda: None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"cannot be sent to other processes .* mode='threads'"):
        next(make(dataset, 1, "processes").epoch(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"workers": -1}, "workers=-1"),
        ({"prefetch": 0}, "prefetch=0"),
        ({"mode": "fork"}, "mode='fork' must be one of threads, processes"),
    ],
)
def test_arguments_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(Noise(), **options)


def test_positions_are_checked_when_the_epoch_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="start_batch=5 is beyond the 4 batches"):
        make(Noise()).epoch(0, 5)
    with pytest.raises(ConfigError, match="epoch=-1"):
        make(Noise()).epoch(-1)


@pytest.mark.parametrize(("mode", "workers"), [("threads", 2), ("processes", 2)])
def test_a_file_that_breaks_in_the_middle_of_an_epoch(tree: Tree, mode: str, workers: int) -> None:
    tree.tracks(["train"], [str(k) for k in range(8)], ["vocals.wav", "bass.wav"])
    dataset = VariableSourcesTrackFolderDataset(tree.root, seq_duration=1.0, random_chunks=True)
    with make(dataset, workers, mode, batch_size=2) as loader:
        whole = list(loader.epoch(0))
        iterator = loader.epoch(0)
        next(iterator)
        (tree.root / "train/5/bass.wav").write_bytes(b"RIFF")
        assert len(list(iterator)) == 3
        after = list(loader.epoch(0))
    assert len(dataset.skipped) == 1
    assert "train/5/bass.wav" in next(iter(dataset.skipped))
    # The other items of the epoch are what they were.
    order = epoch_order(5, 0, 8)
    x, y = (np.concatenate([batch[0] for batch in run]) for run in (whole, after))
    for position, index in enumerate(order):
        assert np.array_equal(x[position], y[position]) == (index != 5)


SCRIPT = """
    import multiprocessing, os, sys, time
    import numpy as np
    from umx_np.data import Loader, UnmixDataset

    class Slow(UnmixDataset):
        def __len__(self):
            return 10000
        def sample(self, index, rng):
            time.sleep(0.02)
            x = np.zeros((1, 10), np.float32)
            return x, x

    if __name__ == "__main__":
        loader = Loader(Slow(), 2, seed=0, shuffle=True, workers=2, mode=sys.argv[1])
        batches = loader.epoch(0)
        next(batches)
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
        for _ in batches:
            pass
"""


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("mode", ["threads", "processes"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_survives_the_program(tmp_path: Path, mode: str, number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    program = subprocess.Popen(
        [sys.executable, str(script), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    children = [int(pid) for pid in program.stdout.readline().split()]
    assert len(children) == (2 if mode == "processes" else 0)
    time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(program.pid, number)  # as a terminal does
    else:
        program.kill()
    _, errors = program.communicate(timeout=20)
    assert program.returncode in (-number, 130, 1)
    if number == signal.SIGINT:
        assert errors.count("Traceback") == 1, errors
        assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
