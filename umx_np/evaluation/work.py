"""The work on one track, in this process or in several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .. import audio
from .._support.limits import available_cores
from .._support.threads import Ahead, Stop, resolve_threads
from ..errors import ScoresError, UmxError
from .estimates import Estimates, SeparatedEstimates, Separation, StoredEstimates
from .scores import TrackScores, nb_frames, read_scores, score_track, scored_targets
from .settings import check_still_claimed, claimed, is_marked, marked, scores_path
from .tracks import Track, TrackAudio

logger = logging.getLogger(__name__)

# Seconds after which it is looked whether anybody still wants the outcomes.
_LOOK = 0.1
# Seconds that a process has to leave by itself.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Job:
    """The work on every track; can be sent to other processes.

    Attributes
    ----------
    separation : Separation or None
        How to make estimates; None reads them from `folder`.
    folder : StoredEstimates or None
        Where estimates are.
    outdir : Path or None
        Where to write estimates.
    bits : str
        Format of these files, as for `umx_np.audio.write`.
    evaldir : Path or None
        Where to write scores.
    method : str
        As for `score_track`.
    settings : mapping
        What the scores depend on, as `evaldir` has been claimed for.
    """

    separation: Separation | None
    folder: StoredEstimates | None
    outdir: Path | None
    bits: str
    evaldir: Path | None
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def estimates(self, threads: int | None) -> Estimates:
        """Make what the estimates come from; a model is loaded here."""
        if self.separation is not None:
            return SeparatedEstimates(self.separation, threads)
        assert self.folder is not None
        return self.folder

    def stems_folder(self, track: Track) -> Path:
        """Where the estimates of a track are written."""
        assert self.outdir is not None
        return self.outdir / track.subset / track.name

    def stems_settings(self, estimates: Estimates) -> dict[str, Any]:
        """Settings that the files there depend on."""
        return {**estimates.settings, "bits": self.bits}

    def has_written_stems(self, track: Track, estimates: Estimates) -> bool:
        """Tell whether the estimates of a track are where they should be, and are these."""
        folder = self.stems_folder(track)
        files = [folder / f"{name}.wav" for name in estimates.names(track)]
        settings = self.stems_settings(estimates)
        return all(file.exists() for file in files) and is_marked(folder, settings)


@dataclass(frozen=True)
class Task:
    """A track and its stems that are scored."""

    track: Track
    targets: tuple[str, ...]


@dataclass
class Outcome:
    """Outcome of a track.

    Attributes
    ----------
    name : str
        The track.
    scores : TrackScores or None
        None if it failed.
    error : str
        Why it failed.
    seconds : float
        How long it took.
    log : list of (int, str)
        Level and text of what was logged on the way in another process.
    reused : bool
        Whether another evaluation has made the scores in the meantime.
    busy : bool
        Whether another evaluation is at it; then nothing was done.
    """

    name: str
    scores: TrackScores | None = None
    error: str = ""
    seconds: float = 0.0
    log: list[tuple[int, str]] = field(default_factory=list)
    reused: bool = False
    busy: bool = False


def evaluate_track(job: Job, estimates: Estimates, task: Task) -> TrackScores:
    """Separate a track, score it and write the results.

    Parameters
    ----------
    job : Job
        What to do.
    estimates : Estimates
        From `Job.estimates`.
    task : Task
        The track.

    Returns
    -------
    TrackScores
    """
    track = task.track
    sound = TrackAudio(track)
    if job.outdir is None:
        stems = estimates.of(track, sound, task.targets)
    else:
        folder = job.stems_folder(track)
        # Around all of it: what forbids to write there should come up at once.
        with marked(folder, job.stems_settings(estimates)):
            stems = estimates.of(track, sound, None)
            for name, stem in stems.items():
                audio.write(folder / f"{name}.wav", stem, sound.rate, bits=job.bits)
    scores = score_track(
        track.name,
        {target: sound.target(target) for target in task.targets},
        stems,
        sound.rate,
        method=job.method,
    )
    if job.evaldir is not None:
        check_still_claimed(job.evaldir, track.subset, job.settings)
        scores.write(scores_path(job.evaldir, track.subset, track.name))
    return scores


def finished_scores(
    job: Job, estimates: Estimates, task: Task, *, quiet: bool = False
) -> TrackScores | None:
    """Read the scores of a track if they are there, complete, and newer than what they are of.

    Parameters
    ----------
    job, estimates, task
        As for `evaluate_track`, with a folder for scores.
    quiet : bool
        Do not log what is the matter with a file that is there.

    Returns
    -------
    TrackScores or None
        None if the track is to be evaluated, perhaps only for the sake of its stems.
    """
    assert job.evaldir is not None
    path = scores_path(job.evaldir, task.track.subset, task.track.name)
    try:
        scores = read_scores(path) if path.exists() else None
        if scores is not None:
            sound = TrackAudio(task.track)
            frames = nb_frames(sound.nb_timesteps, sound.rate)
            if not scores.is_complete(scored_targets(task.targets), frames):
                raise ScoresError(f"path={str(path)!r} is not complete")
            written = path.stat().st_mtime
            if written < estimates.changed(task.track):
                raise ScoresError(f"path={str(path)!r} is older than the estimates")
            if written < task.track.changed():
                raise ScoresError(f"path={str(path)!r} is older than the true stems")
    except (UmxError, OSError) as error:
        if not quiet:
            logger.warning("%s; it is made again", error)
        return None
    stems_lack = job.outdir is not None and not job.has_written_stems(task.track, estimates)
    return None if stems_lack else scores


def run_tasks(
    job: Job, estimates: Estimates, tasks: Sequence[Task], cores: int, threads: int | None
) -> Generator[Outcome, None, None]:
    """Work on tracks, and tell of each when it is done; closing it ends all processes.

    Tracks that another evaluation is at come last. Their scores are waited for and taken over, or
    made here if it ends without them.

    Parameters
    ----------
    job : Job
        What to do.
    estimates : Estimates
        For the work in this process.
    tasks : sequence of Task
        The tracks.
    cores : int
        Tracks at a time; each gets a process of its own if there are several.
    threads : int or None
        Threads of all processes together; None means all cores.

    Yields
    ------
    Outcome
        In the order in which they are done.
    """
    nb_processes = min(cores, len(tasks))
    if nb_processes <= 1:
        with _blas_threads(threads):
            busy = []
            for task in tasks:
                outcome = _attempt(job, estimates, task)
                if outcome.busy:
                    busy.append(task)
                else:
                    yield outcome
            _tell_of_busy(busy)
            for task in busy:
                yield _attempt(job, estimates, task, wait=True)
        return
    stop = Stop()
    outcomes = _in_processes(job, tasks, nb_processes, resolve_threads(threads), stop)

    # All that waits on conditions is done by another thread, in which no signal interrupts it.
    def following(_: object) -> Outcome | None:
        return next(outcomes, None)

    with Ahead(1, "umx-np-evaluation", following, repeat(None), 1, outcomes.close, stop) as done:
        for finished in done:
            if finished is None:
                return
            yield finished


def _tell_of_busy(tasks: Sequence[Task]) -> None:
    if tasks:
        text = "another evaluation is at %d tracks, %s for one; waiting for it"
        logger.info(text, len(tasks), tasks[0].track.name)


def _attempt(job: Job, estimates: Estimates, task: Task, *, wait: bool = False) -> Outcome:
    outcome = Outcome(task.track.name)
    begin = time.perf_counter()
    try:
        if job.evaldir is None:
            outcome.scores = evaluate_track(job, estimates, task)
        else:
            with claimed(job.evaldir, task.track.subset, task.track.name, wait=wait) as ours:
                outcome.busy = not ours
                if ours:
                    outcome.scores = finished_scores(job, estimates, task, quiet=True)
                    outcome.reused = outcome.scores is not None
                    outcome.scores = outcome.scores or evaluate_track(job, estimates, task)
    except (UmxError, OSError) as error:
        outcome.error = str(error)
    except Exception as error:
        # A mistake of ours, or no memory: the other tracks may be spared hours of computing.
        logger.exception("unexpected error with track=%r", task.track.name)
        outcome.error = f"{type(error).__name__}: {error}"
    outcome.seconds = time.perf_counter() - begin
    return outcome


# Several processes


def _in_processes(
    job: Job, tasks: Sequence[Task], nb_processes: int, threads: int, stop: Stop
) -> Generator[Outcome, None, None]:
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        nb_processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(job, max(threads // nb_processes, 1)),
    )
    try:
        for wait in (False, True):
            futures: dict[Future[Outcome], Task] = {
                executor.submit(_work, task, wait): task for task in tasks
            }
            busy = []
            for future in _as_completed(set(futures), stop):
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    outcome = Outcome(
                        futures[future].track.name,
                        error="a process ended before this track was done, perhaps for want of "
                        "memory (try again with fewer cores), or because the main program lacks an "
                        '`if __name__ == "__main__":`',
                    )
                if outcome.busy:
                    busy.append(futures[future])
                else:
                    yield outcome
            _tell_of_busy(busy)
            tasks = busy
        executor.shutdown()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        _end_children(set(multiprocessing.active_children()) - before)
        raise
    finally:
        # Forgotten in the main thread, with an error that knows of it, its callbacks would be
        # interrupted.
        del executor


def _end_children(processes: set[BaseProcess]) -> None:
    # What they are at may take minutes, and files appear only when they are complete.
    for process in processes:
        process.terminate()
    # What its handler raises is dropped if the process finishes an object just then.
    for process in processes:
        process.join(_PATIENCE)
        process.kill()


def _as_completed(
    pending: set[Future[Outcome]], stop: Stop
) -> Generator[Future[Outcome], None, None]:
    while pending:
        done, pending = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
        yield from done
        if stop.asked:
            raise UmxError("the evaluation was left before it was done")


class _Collector(logging.Handler):
    """Keeps what is logged until it can be told to the process in charge."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, self.format(record)))

    def take(self) -> list[tuple[int, str]]:
        lines, self.lines = self.lines, []
        return lines


_collector = _Collector()
_context: tuple[Job, Estimates] | str = "not begun"


def _begin(job: Job, threads: int) -> None:
    """Prepare a process: load the model, keep to its share of the cores."""
    global _context
    # Ctrl-C reaches every process of a terminal; the one in charge ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    package = logging.getLogger("umx_np")
    package.addHandler(_collector)
    package.propagate = False
    package.setLevel(logging.WARNING)
    _blas_threads(threads)
    try:
        _context = job, job.estimates(threads)
    except (UmxError, OSError) as error:
        # Raising here would break the pool without a word about the reason.
        _context = str(error)
    # What is half-written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def _leave_with_parent() -> None:
    """End this process when the one in charge is gone; nobody else would, were it killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: Task, wait: bool) -> Outcome:
    if isinstance(_context, str):
        return Outcome(task.track.name, error=_context)
    job, estimates = _context
    try:
        outcome = _attempt(job, estimates, task, wait=wait)
    except SystemExit:
        outcome = None
    if outcome is None:
        os._exit(1)  # or the executor would go on with the next task
    outcome.log = _collector.take()
    return outcome


def _blas_threads(threads: int | None) -> AbstractContextManager[object]:
    """Limit the threads of NumPy's matrix products; None takes as many as there is CPU time for."""
    import numpy  # noqa: F401 - loads what is limited
    from threadpoolctl import threadpool_info, threadpool_limits

    if threads is None:
        # BLAS itself knows the cores of the machine, not what a container has of them.
        pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        threads = min(available_cores(), max(pools, default=1))
    limits: AbstractContextManager[object] = threadpool_limits(threads, user_api="blas")
    return limits
