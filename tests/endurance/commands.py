"""Commands that are disturbed at random moments, and what has to be true afterwards.

A `Scenario` is a command and what it works on. `disturb` runs it undisturbed, from nothing and over
older results. Then, again and again, it sends a signal at a random moment of the run and looks:

* a file under a final name has the bytes that it had before or those of the undisturbed run (or,
  where a file is written several times on the way, is one that can be read);
* no older file is gone that the undisturbed run keeps;
* no process is left, nor, after a signal that can be caught, a temporary file or a traceback;
* the next run succeeds, and then there are the same files with the same content as after the
  undisturbed run: neither a temporary file more nor a result less.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import umx_np

ZYGOTE = Path(__file__).with_name("zygote.py")
TESTS = Path(__file__).parents[1]
# Seconds after which a command that should end counts as hanging.
PATIENCE = 60.0
# Every so many runs begin with a fresh interpreter, so that imports are met as well.
FRESH_EVERY = 10


class Process:
    """A command that runs."""

    def __init__(self, pid: int, folder: Path, wait: Callable[[], int]) -> None:
        self.pid = pid
        self._folder = folder
        self._wait = wait

    def signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> tuple[int, str]:
        """Wait for the end; return the status, negative for a signal, and what was said."""
        deadline = time.monotonic() + PATIENCE
        while not has_ended(self.pid):
            if time.monotonic() > deadline:
                self.signal(signal.SIGUSR1)
                time.sleep(0.5)
                self.signal(signal.SIGKILL)
                self._wait()
                raise AssertionError(f"hangs:\n{self.errors()}")
            time.sleep(0.002)
        status = self._wait()
        while is_group_there(self.pid):
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                raise AssertionError("processes were left behind")
            time.sleep(0.002)
        return status, self.errors()

    def errors(self) -> str:
        return (self._folder.with_name("stderr")).read_text(errors="replace")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for its parent to take note of its end."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


def is_group_there(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class Zygote:
    """Starts one command many times; see zygote.py."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (Path(umx_np.__file__).parents[1], TESTS))),
            # Threads do not survive the fork.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = self._popen(scenario.main, *scenario.preload)

    def await_imports(self) -> None:
        assert self._read() == "ready", "the command cannot be imported"

    def _popen(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, str(ZYGOTE), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=self._environment)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, folder: Path, argv: list[str], *, fresh: bool = False) -> Process:
        """Run the command in a folder, with its temporary files and its cache there."""
        request = {
            "main": self._scenario.main,
            "argv": argv,
            "folder": str(folder),
            "environment": {
                **self._scenario.environment,
                "TMPDIR": str(folder / "tmp"),
                "UMX_NP_HOME": str(folder / "home"),
                "TORCH_HOME": str(folder / "torch"),
            },
            "stdout": str(folder.with_name("stdout")),
            "stderr": str(folder.with_name("stderr")),
            **({"model": self._scenario.model} if self._scenario.model else {}),
        }
        folder.with_name("stderr").touch()
        line = json.dumps(request) + "\n"
        if fresh:
            process = self._popen("--fresh")
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
            return Process(process.pid, folder, lambda: end_of(process))
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return Process(int(self._read()), folder, lambda: int(self._read()))

    def run(self, folder: Path, argv: list[str]) -> float:
        """Run the command undisturbed; return the seconds it took."""
        begin = time.monotonic()
        status, errors = self.start(folder, argv).wait()
        assert status == 0, errors
        return time.monotonic() - begin

    def close(self) -> None:
        end_of(self._process)


def end_of(process: subprocess.Popen) -> int:
    """Wait for a process whose input ends; return its status."""
    process.communicate()
    return process.returncode


@contextmanager
def zygote(scenario: Scenario) -> Iterator[Zygote]:
    """Start a `Zygote` that ends with the block."""
    starter = Zygote(scenario)
    try:
        starter.await_imports()
        yield starter
    finally:
        starter.close()


def unreadable(path: Path) -> str | None:
    """For files that hold no times nothing is known but their bytes."""
    return f"{path} is neither what it was nor what it becomes"


@dataclass
class Scenario:
    """A command with what it works on. Its paths are relative, to the folder where it runs.

    Attributes
    ----------
    main : str
        Module of the command's ``main``.
    argv : list of str
        Its arguments.
    older : callable
        Puts results of an earlier run into a folder.
    again : callable
        Arguments of the run after a signal, for the folder as it is then.
    problem : callable
        What is wrong with a file that has neither the old nor the new bytes, or None.
    same : callable
        Compares a file that may differ in times; returns whether it is the same otherwise.
    passing : tuple of str
        Names that the command takes away before it writes them again.
    kept : tuple of str
        Ends of names of temporary files that an interrupted command keeps in order to continue.
    """

    main: str
    argv: list[str]
    older: Callable[[Zygote, Path], object]
    again: Callable[[Path], list[str]] | None = None
    problem: Callable[[Path], str | None] = unreadable
    same: Callable[[Path, Path], bool] = lambda one, other: False
    passing: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    model: dict[str, Any] | None = None


@dataclass
class Report:
    """How many runs were disturbed, and how many had ended before."""

    signals: int = 0
    ended: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    # Of those, the runs that left something to clear away.
    with_leftovers: int = 0


def files_of(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their names."""
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


def folders_of(folder: Path) -> set[str]:
    """All folders below a folder."""
    found = (Path(root, name) for root, names, _ in os.walk(folder) for name in names)
    return {path.relative_to(folder).as_posix() for path in found}


def fresh_folder(path: Path, source: Path) -> Path:
    """Copy a folder with the times of its files to a place where nothing is left."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path)
    (path / "tmp").mkdir(exist_ok=True)
    return path


def damage(scenario: Scenario, folder: Path, before: Path, after: Path) -> list[str]:
    """What is wrong with the files under their final names."""
    old, new, found = files_of(before), files_of(after), files_of(folder)
    problems = []
    for name in [name for name in found if name in old or name in new]:
        content = found[name].read_bytes()
        known = [files[name].read_bytes() for files in (old, new) if name in files]
        if content not in known and (problem := scenario.problem(found[name])):
            problems.append(f"{name} ({len(content)} bytes): {problem}")
    kept = [name for name in old if name in new and not name.endswith(scenario.passing or "\0")]
    problems += [f"{name} is gone" for name in kept if name not in found]
    return problems


def leftovers(folder: Path, *known: Path) -> list[str]:
    """Files and folders that are in none of the known states."""
    names = {*files_of(folder), *folders_of(folder)}
    for other in known:
        names -= {*files_of(other), *folders_of(other)}
    return sorted(names)


def differences(scenario: Scenario, folder: Path, desired: Path) -> list[str]:
    """How the files of a folder differ from those of an undisturbed run."""
    found, wanted = files_of(folder), files_of(desired)
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is left behind" for name in leftovers(folder, desired)]
    for name in [name for name in wanted if name in found]:
        equal = found[name].read_bytes() == wanted[name].read_bytes()
        if not equal and not scenario.same(found[name], wanted[name]):
            problems.append(f"{name} differs from that of an undisturbed run")
    return problems


def expected_statuses(number: int) -> tuple[int, ...]:
    """How a command may end after a signal."""
    if number == signal.SIGINT:
        return (128 + number,)
    # Before a command has begun, the system ends it, as it always does in case of SIGKILL.
    return (128 + number, -number)


def disturb(
    scenario: Scenario,
    base: Path,
    count: int,
    *,
    numbers: Sequence[int] = (signal.SIGKILL,),
    seed: int = 0,
) -> Report:
    """Send signals to a command, in turns, at `count` random moments, and look at what is left.

    Raises
    ------
    AssertionError
        At the first fault, with the moment and what the command said.
    """
    begin = time.monotonic()
    moments = random.Random(seed)
    report = Report()
    with zygote(scenario) as starter:
        states = []
        for name, older in (("nothing", None), ("older", scenario.older)):
            before, after = base / name / "before", base / name / "after"
            (before / "tmp").mkdir(parents=True)
            if older is not None:
                older(starter, before)
            fresh_folder(after, before)
            states.append((before, after, starter.run(after, scenario.argv)))
        attempt = 0
        while report.signals < count:
            before, after, seconds = states[attempt % len(states)]
            number = numbers[report.signals % len(numbers)]
            fresh = attempt % FRESH_EVERY == FRESH_EVERY - 1 and number == signal.SIGKILL
            attempt += 1
            assert attempt < 5 * count + 20, "nearly all runs end before the signal"
            folder = fresh_folder(base / "run" / "work", before)
            process = starter.start(folder, scenario.argv, fresh=fresh)
            moment = moments.uniform(0.0, seconds * 1.05 + 1.5 * fresh)
            time.sleep(moment)
            process.signal(number)
            status, errors = process.wait()
            context = (
                f"attempt {attempt}, after {moment:.4f} of {seconds:.4f} s: {status}\n{errors}"
            )
            if status == 0:
                report.ended += 1
            else:
                report.signals += 1
                assert status in expected_statuses(number), context
                assert number == signal.SIGKILL or "Traceback" not in errors, context
            report.statuses[status] += 1
            problems = damage(scenario, folder, before, after)
            left = leftovers(folder, before, after)
            report.with_leftovers += bool(left)
            if number != signal.SIGKILL:
                kept = scenario.kept or "\0"
                problems += [f"{name} is left behind" for name in left if not name.endswith(kept)]
            assert not problems, f"{problems}\n{context}"
            starter.run(folder, scenario.again(folder) if scenario.again else scenario.argv)
            problems = differences(scenario, folder, after)
            assert not problems, f"after the next run: {problems}\n{context}"
    report.seconds = time.monotonic() - begin
    return report
