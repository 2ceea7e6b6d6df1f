"""`evaluate`: score a model, or stems that are there, on a whole data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.keywords import check_keywords, pick, shows
from .._support.progress import Progress, reporting
from ..config import DEFAULT_MODEL, Computing, SeparationOptions, check_int
from ..errors import ConfigError, ScoresError, UmxError
from ..pretrained import default_model
from ..separation.options import ComputingKeywords
from .bss import METRICS
from .estimates import Estimates, SeparatedEstimates, Separation, StoredEstimates
from .scores import TrackScores, check_method, scored_targets
from .settings import claim_folder, clear_claim
from .summary import Summary, write_summary
from .tracks import Track, find_tracks
from .work import Job, Task, finished_scores, run_tasks

if TYPE_CHECKING:
    from typing import Unpack

logger = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """Results of `evaluate`.

    Attributes
    ----------
    scores : dict of str to TrackScores
        By the names of the tracks, in their order.
    failed : dict of str to str
        Tracks without scores, and why.
    reused : list of str
        Tracks whose scores were there already.
    settings : dict
        What the scores were made with.
    name : str
        Of the model, or of the folder of the estimates.
    """

    scores: dict[str, TrackScores] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def summary(self) -> Summary:
        """Sum up the scores of all tracks."""
        return Summary.of(self.scores)


@dataclass(frozen=True)
class Data:
    """Which data set is evaluated on; as for `find_tracks`."""

    dataset: str = "musdb"
    subset: str = "test"
    is_wav: bool = False
    download: bool = False


@dataclass(frozen=True)
class Results:
    """Where stems and scores are written, and how they are made; as for `evaluate`."""

    outdir: str | os.PathLike[str] | None = None
    bits: str = "16"
    evaldir: str | os.PathLike[str] | None = None
    overwrite: bool = False
    method: str = "builtin"


class EvaluationKeywords(ComputingKeywords, total=False):
    """Keywords of `evaluate` that records hold, for type checkers."""

    dataset: str
    subset: str
    is_wav: bool
    download: bool
    niter: int
    softmask: bool
    residual: bool | str
    outdir: str | os.PathLike[str] | None
    bits: str
    evaldir: str | os.PathLike[str] | None
    overwrite: bool
    method: str


_KINDS = (Data, SeparationOptions, Computing, Results)


@shows(*_KINDS, hiding=("filterbank",))
def evaluate(
    root: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    targets: Sequence[str] | None = None,
    wiener_win_len: int | None = None,
    aggregate: Mapping[str, Sequence[str]] | None = None,
    estimates: str | os.PathLike[str] | None = None,
    cores: int = 1,
    offline: bool = False,
    progress: bool | Progress | None = None,
    **options: Unpack[EvaluationKeywords],
) -> Evaluation:
    """Separate the tracks of a data set and score the stems with BSS Eval version 4.

    A track that fails is reported in the result and does not stop the others. With `evaldir`, an
    evaluation that was interrupted goes on where it was when it is called again, and several that
    run at the same time share the tracks.

    Parameters
    ----------
    root : str, path-like or None
        Folder of the data set. For MUSDB18, None means ``MUSDB_PATH``, if that is set, or the seven
        second excerpts in ``~/MUSDB18/MUSDB18-7``.
    dataset : {'musdb', 'folder'}
        MUSDB18, or a folder ``<root>/<subset>`` (or `root` itself) with a folder for each track,
        in which the stems are sound files like ``vocals.wav``. The mixture may be there as
        ``mixture.wav``; otherwise it is the sum of the stems.
    subset : str
        ``"train"`` or ``"test"`` of MUSDB18, or the name of a folder.
    is_wav : bool
        MUSDB18 as folders of wav files (MUSDB18-HQ), not ``.stem.mp4`` files.
    download : bool
        Download the seven second excerpts if they are not there.
    model : str, path-like or None
        Published model or model folder; None means the one that `umx_np.separate` uses.
    targets : sequence of str or None
        Targets to estimate; None takes all of the model. With `estimates`, the stems to score.
    niter, softmask, residual, device, precision
        As for `umx_np.Separator`.
    wiener_win_len : int or None
        Frames that are filtered together; None or 0 filters the whole track, by which published
        scores of Open-Unmix were made.
    aggregate : mapping of str to sequence of str, or None
        Names of results and the stems that are summed in them; only these are scored.
    estimates : str, path-like or None
        Score the files ``<estimates>/<subset>/<track>/<stem>.wav``, or the same without the subset;
        nothing is separated then.
    outdir : str, path-like or None
        Write the stems to ``<outdir>/<subset>/<track>/<stem>.wav``, and what they were
        made with to ``<outdir>/<subset>/<track>.settings``.
    bits : {'16', '24', 'float'}
        Format of these files.
    evaldir : str, path-like or None
        Write the scores of each track to ``<evaldir>/<subset>/<track>.json``, in museval's format,
        and tables beside that folder. Tracks whose file is complete are not evaluated again.
    overwrite : bool
        Evaluate them again.
    cores : int
        Tracks at a time, each in a process of its own. Each needs memory of its own.
    threads : int or None
        Threads of all processes together; None means all cores.
    method : {'builtin', 'museval'}
        What computes the scores, see `score_track`.
    offline : bool
        Never download a model.
    progress : bool, callable or None
        True shows a bar; a callable gets the fraction that is done, from 0 to 1.

    Returns
    -------
    Evaluation

    Raises
    ------
    ConfigError
        If an argument is not usable, there are no tracks, `outdir` is the folder of the data set,
        or `evaldir` has scores that were made with other settings.
    DownloadError, ModelNotFoundError, WeightsError, DeviceError
        If the data set or the model cannot be loaded.

    Notes
    -----
    Vocals and accompaniment are compared as a pair of their own if there are estimates of both.
    """
    check_keywords("evaluate", options, *_KINDS, hiding=("filterbank",))
    data, results = pick(Data, options), pick(Results, options)
    how = replace(pick(SeparationOptions, options), wiener_win_len=wiener_win_len)
    computing = pick(Computing, options)
    cores = check_int("cores", cores, 1)
    if computing.threads is not None:
        computing = replace(computing, threads=check_int("threads", computing.threads, 1))
    check_method(results.method)
    if model is None:
        # With estimates, none is used that would be worth a word in the log.
        model_name = DEFAULT_MODEL if estimates is not None else default_model()
    else:
        model_name = os.fspath(model)
    chosen = None if targets is None else tuple(targets)
    separation = Separation(model_name, chosen, aggregate, offline, how, computing)
    folder = None
    if estimates is not None:
        _check_without_model(model, results, how, computing)
        folder = StoredEstimates(estimates, chosen, aggregate)
    # Before a model is loaded or even downloaded.
    tracks = find_tracks(root, **vars(data))
    if all(track.fault for track in tracks):
        raise ConfigError(f"no track can be scored: {tracks[0].fault}")
    job = Job(
        None if folder is not None else separation,
        folder,
        None if results.outdir is None else Path(os.path.expanduser(results.outdir)),
        results.bits,
        None if results.evaldir is None else Path(os.path.expanduser(results.evaldir)),
        results.method,
    )
    if job.outdir is not None:
        _check_apart(job.outdir, tracks)
    source: SeparatedEstimates | StoredEstimates = folder or SeparatedEstimates(
        separation, computing.threads, progress=progress is True
    )
    return _evaluated(
        tracks, data, job, source, (cores, computing.threads), results.overwrite, progress
    )


def _evaluated(
    tracks: Sequence[Track],
    data: Data,
    job: Job,
    source: SeparatedEstimates | StoredEstimates,
    workers: tuple[int, int | None],
    overwrite: bool,
    progress: bool | Progress | None,
) -> Evaluation:
    """Score what has no scores, and write the tables; `workers` are processes and threads."""
    result = Evaluation(name=source.model_name)
    result.settings = {
        "scores": "BSS Eval 4, frames of 1 s",
        "dataset": f"{data.dataset}, wav" if data.is_wav else data.dataset,
        **source.settings,
    }
    tasks = _plan(tracks, source, result)
    if not tasks:
        # The same is the matter with all of them.
        raise ScoresError(f"no track can be scored: {next(iter(result.failed.values()))}")
    if job.evaldir is not None:
        names = [task.track.name for task in tasks]
        claim_folder(job.evaldir, data.subset, names, result.settings, overwrite=overwrite)
        job = replace(job, settings=result.settings)
        tasks = _left_to_do(tasks, job, source, result)

    _run(job, source, tasks, result, workers, progress)

    order = {track.name: number for number, track in enumerate(tracks)}
    result.scores = dict(sorted(result.scores.items(), key=lambda item: order[item[0]]))
    if job.evaldir is not None and result.scores:
        write_summary(result.summary(), job.evaldir, data.subset, result.settings)
    return result


def _check_without_model(
    model: str | os.PathLike[str] | None,
    results: Results,
    how: SeparationOptions,
    computing: Computing,
) -> None:
    """Raise `ConfigError` if something is given that has no effect on existing estimates."""
    usual = {**vars(SeparationOptions(wiener_win_len=None)), "model": None, "outdir": None}
    given = {**vars(how), "model": model, "outdir": results.outdir}
    usual["precision"], given["precision"] = Computing().precision, computing.precision
    for name in ("model", "outdir", *vars(how), "precision"):
        if given[name] != usual[name]:
            raise ConfigError(
                f"{name}={str(given[name])!r} has no effect with estimates, which are scored as "
                "they are; leave one of them out"
            )


def _check_apart(outdir: Path, tracks: Iterable[Track]) -> None:
    """Raise `ConfigError` if stems would replace the true ones, or be taken for them next time."""
    for track in tracks:
        place = (outdir / track.subset / track.name).resolve()
        for clip in track.sources.values():
            true = clip.path.parent.resolve()
            if place == true or outdir.resolve() == true.parent:
                raise ConfigError(
                    f"outdir={str(outdir)!r} is the folder of the data set, whose true stems are "
                    f"in {true}; use another folder"
                )


def _plan(tracks: Iterable[Track], source: Estimates, result: Evaluation) -> list[Task]:
    """Say which stems of which tracks are scored; the rest is reported."""
    tasks = []
    known = {target for track in tracks for target in track.targets}
    unknown: dict[str, None] = {}
    for track in tracks:
        if track.fault:
            _fail(result, track.name, track.fault)
            continue
        try:
            names = source.names(track)
            common = [target for target in track.targets if target in names]
            scored = scored_targets(common)
            if not scored:
                raise ScoresError(
                    f"track={track.name!r} has estimates of {', '.join(names)} and references of "
                    f"{', '.join(track.targets)}; scores need at least two stems that have both, "
                    "for instance vocals and the residual under the name accompaniment"
                )
        except (UmxError, OSError) as error:
            _fail(result, track.name, str(error))
            continue
        unknown.update(dict.fromkeys(name for name in names if name not in known))
        missing = [name for name in names if name in known and name not in track.targets]
        if missing:
            logger.warning(
                "%s: no reference for %s, which is not scored", track.name, ", ".join(missing)
            )
        # All that are compared: vocals may be scored against the accompaniment only.
        tasks.append(Task(track, tuple(common)))
    if unknown:
        logger.warning("no references for %s: not scored", ", ".join(unknown))
    return tasks


def _left_to_do(
    tasks: Sequence[Task], job: Job, source: Estimates, result: Evaluation
) -> list[Task]:
    """Take over the scores that are complete; return the tracks that have none."""
    left = []
    for task in tasks:
        scores = finished_scores(job, source, task)
        if scores is None:
            left.append(task)
        else:
            result.scores[task.track.name] = scores
            result.reused.append(task.track.name)
            assert job.evaldir is not None  # where the scores are
            clear_claim(job.evaldir, task.track.subset, task.track.name)
    if result.reused:
        logger.info("%d tracks have scores already", len(result.reused))
    return left


def _run(
    job: Job,
    source: Estimates,
    tasks: Sequence[Task],
    result: Evaluation,
    workers: tuple[int, int | None],
    progress: bool | Progress | None,
) -> None:
    with (
        reporting(progress, label="evaluating") as report,
        closing(run_tasks(job, source, tasks, *workers)) as outcomes,
    ):
        for done, outcome in enumerate(outcomes, start=1):
            for level, line in outcome.log:
                logger.log(level, "%s", line)
            if outcome.scores is None:
                _fail(result, outcome.name, outcome.error)
            else:
                result.scores[outcome.name] = outcome.scores
                if outcome.reused:
                    result.reused.append(outcome.name)
                logger.info(
                    "[%d/%d] %s: %s (%.1f s)",
                    done,
                    len(tasks),
                    outcome.name,
                    _line(outcome.scores),
                    outcome.seconds,
                )
            if report is not None:
                report(done / len(tasks))


def _fail(result: Evaluation, name: str, why: str) -> None:
    result.failed[name] = why
    logger.error("error: %s: %s", name, why)


def _line(scores: TrackScores) -> str:
    metric = METRICS[0]
    return f"{metric} " + ", ".join(
        f"{target} {values[metric]:.2f}" for target, values in scores.medians().items()
    )
