"""``umx-np separate``: sound files to files of their stems."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .._support.console import collecting_warnings, say
from .._support.keywords import pick
from .._support.option_types import Names, add_switch, natural, positive_int
from ..errors import ConfigError, UmxError
from .frame import PROGRAM, Command, status_of
from .inputs import STANDARD, check_songs, find_songs, is_song, with_standard_input
from .outcomes import Outcome, pass_on, say_outcome, show_outcome, summary
from .planning import Task, plan_tasks
from .separating import (
    add_bits,
    add_computing_options,
    add_filter_options,
    add_model_options,
    settle_precision,
    settle_separation,
)

if TYPE_CHECKING:
    from ..evaluation.sdr import StemScore
    from ..separation.separator import Separator

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Separate sound files into their stems, each written to a file of its own:
<outdir>/<track>/<stem>.wav, or <track>_<model>/<stem>.wav without --outdir. The paths of the stems
go to standard output, everything else that is said to standard error."""

_EPILOG = f"""\
examples:
  {PROGRAM} separate song.mp3
  {PROGRAM} separate song.mp3 --two-stems vocals
  {PROGRAM} separate music/ --recursive -o stems --ext .flac --skip-existing
  {PROGRAM} separate song.wav --targets vocals,drums --residual accompaniment
  ffmpeg -i video.mp4 -f wav - | {PROGRAM} separate - --two-stems vocals -o - | ffplay -

A file that cannot be separated does not stop the others; the exit status is then 3, or 1 if none
could be. Defaults may be kept in a file, which `{PROGRAM} info` names."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument(
        "input",
        nargs="*",
        metavar="SONG",
        help="sound files, or folders, whose sound files are all separated; - is standard input",
    )
    add_switch(
        parser,
        "-r",
        "--recursive",
        help="search the folders in a folder, too, and keep their tree",
    )
    add_model_options(parser)
    _add_results_options(parser)
    _add_writing_options(parser)
    _add_reading_options(parser)
    add_filter_options(parser, 300, "300").add_argument(
        "--filterbank",
        choices=("torch", "asteroid"),
        default="torch",
        help="FFT (torch, the default), or the same as a matrix product (asteroid)",
    )
    add_computing_options(parser, precision=None).add_argument(
        "--max-memory",
        type=_megabytes,
        metavar="MB",
        help="limit for what grows with the length of a song; more goes to a temporary file",
    )
    _add_telling_options(parser)


def _add_results_options(parser: argparse.ArgumentParser) -> None:
    results = parser.add_argument_group("results")
    results.add_argument(
        "--two-stems",
        metavar="STEM",
        help="this stem, and as no_STEM all of the song but it: vocals is karaoke (all networks "
        "run, as without this option; with --niter 0 that of the stem alone)",
    )
    results.add_argument(
        "--only",
        nargs="+",
        action=Names,
        metavar="RESULT",
        help="write these results only: no_vocals (nothing else is different, while --targets runs "
        "fewer networks, which the filter has less to go by then)",
    )


def _add_reading_options(parser: argparse.ArgumentParser) -> None:
    reading = parser.add_argument_group("reading")
    reading.add_argument(
        "--start", type=_seconds, default=0.0, metavar="SECONDS", help="begin here (default: 0)"
    )
    reading.add_argument(
        "--duration",
        type=float,
        metavar="SECONDS",
        help="length of the excerpt (default: to the end, as for negative values)",
    )
    reading.add_argument(
        "--track",
        type=positive_int,
        metavar="N",
        help="stream of sound of a video or of another file with several (default: 1, the first)",
    )
    reading.add_argument(
        "--downmix",
        choices=("standard", "first"),
        default="standard",
        help="what to separate of more than two channels: their stereo by ITU-R BS.775 (standard, "
        "the default), or the first two",
    )
    reading.add_argument("--audio-backend", help="accepted for compatibility, has no effect")


def _add_format_options(writing: argparse._ArgumentGroup) -> None:
    writing.add_argument(
        "--ext",
        default=".wav",
        help="format, for instance .flac .mp3 .ogg .m4a (default: .wav); .stem.mp4: the song and "
        "its four stems in one file, for DJ programs",
    )
    add_bits(writing)
    writing.add_argument(
        "--clip-mode",
        choices=("clamp", "rescale", "none"),
        default="clamp",
        help="samples beyond full scale: limit them, scale all stems by one gain, or (with --bits "
        "float) leave them (default: %(default)s)",
    )
    writing.add_argument(
        "--quality",
        type=float,
        metavar="0..1",
        help="of mp3, ogg, opus, m4a and stem.mp4 (1 is the best, of the last two without loss)",
    )
    writing.add_argument(
        "--bitrate",
        "--mp3-bitrate",
        type=positive_int,
        metavar="KBIT/S",
        help="of mp3, ogg and opus, instead of --quality, for instance 320",
    )
    writing.add_argument(
        "--tags",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="give the stems the tags and the cover of the song, as the default (needs ffmpeg)",
    )
    writing.add_argument(
        "--rate",
        choices=("input", "model"),
        default="input",
        help="sample rate of the stems: that of the file or of the model (default: %(default)s)",
    )


def _add_writing_options(parser: argparse.ArgumentParser) -> None:
    writing = parser.add_argument_group("writing")
    writing.add_argument(
        "-o",
        "--outdir",
        metavar="FOLDER",
        help="folder for the results; - writes one result to standard output (with --two-stems "
        "the stem, else say which with --only), as a file of the type --ext",
    )
    _add_format_options(writing)
    writing.add_argument(
        "--filename",
        metavar="TEMPLATE",
        help="place of a stem below the folder for the results, made of {track} {name} {parent} "
        "{relpath} {model} {stem} {ext}; {dir}/ at its beginning is the folder of the song",
    )
    writing.add_argument(
        "--plot",
        metavar="FILE.png",
        help="draw spectrograms of the song and its stems; for several songs a folder, or a name "
        "with {track}, {name}, {parent}, {dir} or {relpath} (needs the extra plot: matplotlib)",
    )
    writing.add_argument(
        "--reference",
        metavar="FOLDER",
        help="print how well the stems agree with the true ones in this folder (vocals.wav, ...); "
        "for several songs a name with {track}, {name}, {parent}, {dir} or {relpath}",
    )
    add_switch(
        writing,
        "--skip-existing",
        help="leave out files whose results are all there, and were made from the same song with "
        "the same model, options and version, as the records beside the stems say",
    )


def _add_telling_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("telling")
    add_switch(
        group,
        "--json",
        help="describe each song in a line of JSON on standard output, see docs/guide.md",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="say what would be written, and write nothing"
    )
    add_switch(group, "--fail-fast", help="stop at the first failure")


def run(args: argparse.Namespace) -> int:
    """Separate all songs with one separator; return 3 if some could not be, 1 if none."""
    _settle(args)
    with ExitStack() as opened:
        songs = find_songs(args.input, recursive=args.recursive, outdir=args.outdir)
        check_songs(songs)  # before a model is loaded or even downloaded
        if args.to_stdout:
            _check_stdout(args, len(songs))
            args.outdir = opened.enter_context(tempfile.TemporaryDirectory(prefix="umx-np-"))
        songs = with_standard_input(songs, opened)
        separator, model = _load(args)
        tasks = plan_tasks(songs, separator, args, model)
        if args.to_stdout and len(tasks[0].plan.paths) > 1:
            names = ",".join(tasks[0].plan.paths)
            args.parser.error(f"-o - writes one result; say which with --only, of {names}")
        statuses = _separate_all(tasks, separator, args)
    if not args.quiet and len(tasks) > 1:
        say(summary(statuses, len(tasks)))
    failed = statuses.count("failed")
    return status_of(len(statuses) - failed, failed)


def _settle(args: argparse.Namespace) -> None:
    """Give what the options say the values that functions take; end the program on mistakes."""
    for dest in ("targets", "only"):
        # Songs behind such an option, which takes several words, have gone to it.
        names = getattr(args, dest) or []
        args.input += [word for word in names if is_song(word)]
        setattr(args, dest, [word for word in names if not is_song(word)] or None)
    if not args.input:
        hint = ""
        if args.targets or args.only:
            hint = "; they go before --targets vocals,drums and --only vocals,drums"
        args.parser.error(f"which songs? name files or folders, or - for standard input{hint}")
    settle_separation(args)
    args.to_stdout = args.outdir == STANDARD
    if args.two_stems is not None:
        other = "--residual" if args.residual else "--aggregate"
        if args.residual or args.aggregate is not None:
            args.parser.error(f"--two-stems already says what is written; leave out {other}")
        if args.to_stdout and args.only is None:
            args.only = [args.two_stems]
    if args.audio_backend is not None:
        logger.info("--audio-backend %s is ignored", args.audio_backend)
    if args.plot is not None:
        from ..plots import check_available

        check_available("--plot")


def _check_stdout(args: argparse.Namespace, nb_songs: int) -> None:
    """End the program where a stem on standard output makes no sense."""
    if nb_songs > 1:
        args.parser.error(f"-o - writes one stem of one song, and these are {nb_songs} songs")
    for option, is_given in (
        ("--json", args.json),
        ("--filename", args.filename is not None),
        ("--reference", args.reference is not None),
        ("--skip-existing", args.skip_existing),
        ("--dry-run", args.dry_run),
    ):
        if is_given:
            args.parser.error(f"-o - leaves standard output to the stem; leave out {option}")
    if sys.stdout is None or sys.stdout.isatty():
        raise ConfigError("outdir='-' writes to standard output, which is a terminal; redirect it")


def _load(args: argparse.Namespace) -> tuple[Separator, str]:
    """Make the separator; return it with the name of its model."""
    from .._support.folders import is_first_time
    from ..config import DEFAULT_MODEL, Computing, SeparationOptions
    from ..pretrained import default_notice, load_model
    from ..separation.options import OutputPlan
    from ..separation.plan import targets_needed
    from ..separation.separator import Separator

    notice = default_notice() if args.model is None else None
    if notice is not None and not args.quiet and is_first_time(f"default-model-{DEFAULT_MODEL}"):
        say(f"{PROGRAM}: {notice}")
    name = DEFAULT_MODEL if args.model is None else os.path.expanduser(args.model)
    settle_precision(args, name)
    how, computing = pick(SeparationOptions, vars(args)), pick(Computing, vars(args))
    bundle = load_model(
        name,
        targets_needed(args.targets, pick(OutputPlan, vars(args)), how),
        offline=args.offline,
        progress=not args.quiet,
        dtype=computing.weights_dtype,
    )
    if args.two_stems is not None:
        logger.info("--two-stems %s: networks of %s", args.two_stems, ", ".join(bundle.targets))
    return Separator.from_bundle(bundle, **vars(how), **vars(computing)), bundle.name


def _separate_all(tasks: list[Task], separator: Separator, args: argparse.Namespace) -> list[str]:
    """Separate songs, and tell what becomes of each; return how those ended that were begun."""
    statuses: list[str] = []
    for number, task in enumerate(tasks, 1):
        with collecting_warnings(args.named) as warnings:
            begin = time.perf_counter()
            outcome = _separate_one(task, separator, args)
            outcome.seconds, outcome.warnings = time.perf_counter() - begin, warnings
        statuses.append(outcome.status)
        if args.to_stdout:
            if outcome.status == "separated":
                pass_on(*task.plan.paths.values())
        else:
            show_outcome(outcome, task, as_json=args.json)
        if not args.quiet:
            say_outcome(outcome, task, f"{number}/{len(tasks)}", to_stdout=args.to_stdout)
        if outcome.status == "failed" and args.fail_fast:
            break
    return statuses


def _separate_one(task: Task, separator: Separator, args: argparse.Namespace) -> Outcome:
    """Separate a song; what goes wrong is logged, and stays among the outcome."""
    from ..separation.files import separate_as_planned

    try:
        if args.skip_existing and _is_separated(task):
            return Outcome("skipped")
        if args.dry_run:
            return Outcome("planned")
        separate_as_planned(
            task.plan, separator, progress=not args.quiet, max_memory=args.max_memory
        )
        return Outcome("separated", scores=_scores(task, args))
    except UmxError as error:
        message = str(error).replace(repr(str(task.plan.source)), repr(task.song.name))
        logger.error("error: %s", message, exc_info=args.verbose)
        return Outcome("failed", error=(type(error).__name__, args.named(message)))
    except Exception as error:
        # A mistake of ours, or no memory: the other files may be spared a night of computing.
        logger.exception("unexpected error: path=%r could not be separated", task.song.name)
        return Outcome("failed", error=(type(error).__name__, f"unexpected: {error}"))


def _scores(task: Task, args: argparse.Namespace) -> dict[str, StemScore] | None:
    """Compare the stems of a song with the true ones, where these are known."""
    if not task.references:
        return None
    from ..evaluation.sdr import score_files

    paths = task.plan.paths
    if missing := [name for name in paths if name not in task.references]:
        logger.warning("%s: there is no reference of %s", task.song.name, ", ".join(missing))
    return score_files(task.references, paths, task.plan.source, **task.plan.excerpt)


def _is_separated(task: Task) -> bool:
    """Whether the results are there, and are what would be written now."""
    differences = task.plan.differences()
    if not differences:
        logger.info("%s: skipped, its results are there", task.song.name)
    elif any(map(os.path.lexists, task.plan.results)):
        logger.warning("%s is separated again: %s", task.song.name, "; ".join(differences))
    return not differences


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} must be a number of seconds, not negative")
    return value


def _megabytes(text: str) -> int:
    return natural(text) * 1_000_000


COMMAND = Command(
    "separate",
    run,
    add_options,
    help="separate sound files into stems",
    description=_DESCRIPTION,
    epilog=_EPILOG,
    usage="%(prog)s [options] SONG [SONG ...]",
)
