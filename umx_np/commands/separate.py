"""``umx-np separate``: sound files to files of their stems."""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .._support.console import say, show
from .._support.keywords import pick
from .._support.option_types import natural
from ..errors import UmxError
from .frame import PROGRAM, Command, status_of, table
from .planning import check_inputs, find_inputs, plan_outputs, plan_pictures, plan_references
from .separating import (
    add_bits,
    add_computing_options,
    add_filter_options,
    add_model_options,
    settle_precision,
    settle_separation,
)

if TYPE_CHECKING:
    from ..separation.separator import Separator

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Separate sound files into their stems, each written to a file of its own:
<outdir>/<track>/<stem>.wav, or <track>_<model>/<stem>.wav without --outdir."""

_EPILOG = """\
examples:
  umx-np separate song.mp3
  umx-np separate album/ --outdir stems --ext .flac --skip-existing
  umx-np separate song.wav --targets vocals --residual accompaniment

A file that cannot be separated does not stop the others; the exit status is then 3, or 1 if none
could be."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument(
        "input", nargs="+", help="sound files, or folders, whose sound files are all separated"
    )
    add_model_options(parser)
    add_computing_options(parser, precision=None).add_argument(
        "--max-memory",
        type=_megabytes,
        metavar="MB",
        help="limit for what grows with the length of a song; more goes to a temporary file",
    )
    add_filter_options(parser, 300, "300").add_argument(
        "--filterbank",
        choices=("torch", "asteroid"),
        default="torch",
        help="FFT (torch, the default), or the same as a matrix product (asteroid)",
    )
    _add_reading_options(parser)
    _add_writing_options(parser)
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first failure")


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
    reading.add_argument("--audio-backend", help="accepted for compatibility, has no effect")


def _add_writing_options(parser: argparse.ArgumentParser) -> None:
    writing = parser.add_argument_group("writing")
    writing.add_argument("--outdir", metavar="FOLDER", help="folder for the results")
    writing.add_argument(
        "--ext", default=".wav", help="format, for instance .flac .mp3 .ogg (default: .wav)"
    )
    add_bits(writing)
    writing.add_argument(
        "--clip-mode",
        choices=("clamp", "rescale", "none"),
        default="clamp",
        help="samples beyond full scale: limit them, scale the stem, or (with --bits float) leave "
        "them (default: %(default)s)",
    )
    writing.add_argument(
        "--quality", type=float, metavar="0..1", help="of mp3, ogg and opus (1 is the best)"
    )
    writing.add_argument(
        "--rate",
        choices=("input", "model"),
        default="input",
        help="sample rate of the stems: that of the file or of the model (default: %(default)s)",
    )
    writing.add_argument(
        "--filename",
        metavar="TEMPLATE",
        help="place of a stem below the folder for the results, made of {track} {name} {parent} "
        "{model} {stem} {ext}",
    )
    writing.add_argument(
        "--plot",
        metavar="FILE.png",
        help="draw spectrograms of the song and its stems; for several songs a folder, or a name "
        "with {track}, {name} or {parent} (needs the extra plot: matplotlib)",
    )
    writing.add_argument(
        "--reference",
        metavar="FOLDER",
        help="print how well the stems agree with the true ones in this folder (vocals.wav, ...); "
        "for several songs a name with {track}, {name} or {parent}",
    )
    writing.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out files whose results are all there, and were made from the same song with "
        "the same model, options and version, as the records beside the stems say",
    )


def run(args: argparse.Namespace) -> int:
    """Separate all files with one separator; return 1 if some could not be."""
    from ..separation.naming import output_names

    settle_separation(args)
    if args.audio_backend is not None:
        logger.info("--audio-backend %s is ignored", args.audio_backend)
    if args.plot is not None:
        from ..plots import check_available

        check_available("--plot")
    inputs = find_inputs(args.input)
    check_inputs(inputs)  # before a model is loaded or even downloaded
    separator, model = _load(args)
    names = output_names(separator.stem_names, args.aggregate)
    outputs = plan_outputs(inputs, names, args, model)
    pictures = plan_pictures(inputs, args.plot, model)
    references = plan_references(inputs, names, args.reference, model)

    done, skipped, failed = 0, 0, 0
    for number, (path, targets) in enumerate(outputs.items(), 1):
        if args.skip_existing and _is_separated(path, separator, model, args):
            skipped += 1
            continue
        begin = time.perf_counter()
        try:
            _separate_one(path, separator, model, args)
            if not args.quiet:
                places = sorted({str(target.parent) for target in targets.values()})
                if pictures:
                    places.append(str(pictures[path]))
                seconds = time.perf_counter() - begin
                say(f"[{number}/{len(outputs)}] {path} -> {', '.join(places)} ({seconds:.1f} s)")
            if references:
                show(_scores(path, targets, references[path], args))
            done += 1
        except UmxError as error:
            logger.error("error: %s", error, exc_info=args.verbose)
            failed += 1
        except Exception:
            # A mistake of ours, or no memory: the other files may be spared a night of computing.
            logger.exception("unexpected error: path=%r could not be separated", str(path))
            failed += 1
        if failed and args.fail_fast:
            break
    if not args.quiet and len(outputs) > 1:
        left = len(outputs) - done - skipped - failed
        counts = ((done, "separated"), (skipped, "skipped"), (failed, "failed"), (left, "left out"))
        summary = ", ".join(f"{count} {what}" for count, what in counts if count)
        say(f"{summary} of {len(outputs)} files")
    return status_of(done + skipped, failed)


def _scores(
    path: Path, targets: dict[str, Path], references: dict[str, Path], args: argparse.Namespace
) -> str:
    """Compare the stems of a song with the true ones, as a table."""
    from ..evaluation.sdr import score_files

    scores = score_files(references, targets, path, start=args.start, duration=args.duration)
    rows = [[f"SDR of {path.name} in dB", "stem", "mixture", "gain"]]
    for name, score in scores.items():
        numbers = (score.sdr, score.sdr_of_mixture, score.sdr - score.sdr_of_mixture)
        rows.append([name, *(f"{number:.2f}" for number in numbers)])
    if missing := [name for name in targets if name not in references]:
        logger.warning("%s: there is no reference of %s", path, ", ".join(missing))
    return table(rows)


def _load(args: argparse.Namespace) -> tuple[Separator, str]:
    """Make the separator; return it with the name of its model."""
    from ..config import DEFAULT_MODEL, Computing, SeparationOptions
    from ..pretrained import default_notice, load_model
    from ..separation.separator import Separator

    notice = default_notice() if args.model is None else None
    if notice is not None and not args.quiet:
        say(f"{PROGRAM}: {notice}")
    name = DEFAULT_MODEL if args.model is None else os.path.expanduser(args.model)
    settle_precision(args, name)
    how, computing = pick(SeparationOptions, vars(args)), pick(Computing, vars(args))
    bundle = load_model(
        name,
        args.targets,
        offline=args.offline,
        progress=not args.quiet,
        dtype=computing.weights_dtype,
    )
    return Separator.from_bundle(bundle, **vars(how), **vars(computing)), bundle.name


def _separate_one(path: Path, separator: Separator, model: str, args: argparse.Namespace) -> None:
    from ..separation.files import separate_file
    from ..separation.options import Excerpt, OutputPlan

    separate_file(
        path,
        separator=separator,
        model=model,
        progress=not args.quiet,
        max_memory=args.max_memory,
        **vars(pick(OutputPlan, vars(args))),
        **vars(pick(Excerpt, vars(args))),
    )


def _is_separated(path: Path, separator: Separator, model: str, args: argparse.Namespace) -> bool:
    """Whether the results are there, and are what would be written now."""
    from ..separation.options import Excerpt, OutputPlan
    from ..separation.plan import plan_separation

    output, excerpt = pick(OutputPlan, vars(args)), pick(Excerpt, vars(args))
    plan = plan_separation(path, separator, output, excerpt, model=model)
    differences = plan.differences()
    if not differences:
        logger.info("%s: skipped, its results are there", path)
    elif any(map(os.path.lexists, plan.results)):
        logger.warning("%s is separated again: %s", path, "; ".join(differences))
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
)
