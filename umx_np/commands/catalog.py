"""``umx-np catalog``: many songs on many processes and machines."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .._support.console import say, show
from .._support.keywords import pick
from .._support.option_types import positive_int
from ..errors import CatalogError
from .frame import Command, status_of
from .separating import (
    add_bits,
    add_computing_options,
    add_filter_options,
    add_model_options,
    settle_separation,
)

if TYPE_CHECKING:
    from ..catalog import Item, Status

_DESCRIPTION = """\
Separate or score a whole catalogue, on all cores of this machine, on a cluster, or piece by piece
by any queue of jobs. Each song is published exactly once; to go on is to run the plan again."""

_EPILOG = """\
examples:
  umx-np catalog plan music/ stems/ plan/ --ext .flac
  umx-np catalog run plan/                              all cores of this machine
  umx-np catalog run plan/ --scheduler tcp://host:8786  a cluster of Dask
  umx-np catalog run plan/ --worker 3/40                a job of an array
  umx-np catalog status plan/

Places are folders, or addresses of object stores such as s3://bucket/prefix."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    steps = parser.add_subparsers(title="steps", metavar="STEP", dest="step", required=True)
    plan = steps.add_parser("plan", help="list the songs, and fix how they are separated")
    plan.add_argument("source", metavar="SRC", help="where the songs are, with all below it")
    plan.add_argument("destination", metavar="DST", help="where the results go")
    plan.add_argument("plan", metavar="PLAN", help="a new place for the plan and its ledger")
    plan.add_argument(
        "--evaluate",
        action="store_true",
        help="score the model on folders of tracks, in place of separating songs",
    )
    plan.add_argument(
        "--nothing", action="store_true", help="do nothing with each file, to measure stores"
    )
    add_model_options(plan)
    add_computing_options(plan)
    add_filter_options(plan, 300, "300")
    writing = plan.add_argument_group("writing")
    add_bits(writing)
    writing.add_argument("--ext", default=".wav", help="format of the stems (default: .wav)")
    run = steps.add_parser("run", help="work on a plan, or go on with it")
    run.add_argument("plan", metavar="PLAN", help="place of the plan")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--workers", type=positive_int, help="processes (default: one a core)")
    how.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="a scheduler of Dask")
    how.add_argument("--worker", metavar="I/N", type=_part, help="only part I of N, here")
    run.add_argument("--worker-threads", type=positive_int, help="threads of each process")
    status = steps.add_parser("status", help="say how far a plan is")
    status.add_argument("plan", metavar="PLAN", help="place of the plan")
    status.add_argument("--json", action="store_true", help="as JSON")
    retry = steps.add_parser("retry", help="let songs that were given up be tried again")
    retry.add_argument("plan", metavar="PLAN", help="place of the plan")
    retry.add_argument(
        "--class", dest="names", nargs="+", default=[], metavar="NAME", help="only these errors"
    )
    for step in (plan, run, status, retry):
        # As of the command, whose own defaults stay.
        step.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS)
        step.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Do one of the steps."""
    steps = {"plan": _plan, "run": _run, "status": _status, "retry": _retry}
    return steps[args.step](args)


def _plan(args: argparse.Namespace) -> int:
    from ..catalog import make_plan
    from ..config import Computing, SeparationOptions

    if args.evaluate and args.nothing:
        raise CatalogError("--evaluate contradicts --nothing; leave one out")
    settle_separation(args)
    settings: dict[str, Any] = {
        **vars(pick(SeparationOptions, vars(args))),
        **vars(pick(Computing, vars(args))),
        "targets": args.targets,
        "aggregate": args.aggregate,
        "bits": args.bits,
    }
    del settings["threads"]  # of the machine, and not of the results
    if args.evaluate:
        work = "evaluation"
        del settings["filterbank"]
    else:
        work = "nothing" if args.nothing else "separation"
        settings["ext"] = args.ext
    plan = make_plan(
        args.source, args.destination, args.plan, work=work, settings=settings, model=args.model
    )
    what = "tracks" if args.evaluate else "songs"
    if not args.quiet:
        say(f"{plan.nb_items} {what}; work on them with: umx-np catalog run {args.plan}")
    return 0


def _run(args: argparse.Namespace) -> int:
    from ..catalog import read_plan, run, run_shard

    plan = read_plan(args.plan)
    if args.worker is not None:
        index, count = args.worker

        def told(item: Item, outcome: str) -> None:
            if not args.quiet:
                say(f"{item.path}: {outcome}")

        status = run_shard(plan, index, count, threads=args.worker_threads, on_item=told)
    else:
        ends: dict[str, int] = {}

        def counted(batch: dict[str, int]) -> None:
            for name, count in batch.items():
                ends[name] = ends.get(name, 0) + count
            if not args.quiet:
                say(", ".join(f"{count} {name}" for name, count in ends.items()))

        status = run(
            plan,
            scheduler=args.scheduler,
            workers=args.workers,
            threads=args.worker_threads,
            on_batch=counted,
        )
    if not args.quiet:
        say(_text(status))
    return status_of(status.done, status.failed)


def _status(args: argparse.Namespace) -> int:
    from ..catalog import Ledger, read_plan

    status = Ledger(read_plan(args.plan)).status()
    show(json.dumps(asdict(status)) if args.json else _text(status))
    return 0


def _retry(args: argparse.Namespace) -> int:
    from ..catalog import Ledger, read_plan

    count = Ledger(read_plan(args.plan)).retry(args.names)
    if not args.quiet:
        say(f"{count} songs are to be tried again: umx-np catalog run {args.plan}")
    return 0


def _text(status: Status) -> str:
    lines = [f"{status.done} of {status.total} done, {status.failed} given up"]
    if status.running:
        lines[0] += f", {status.running} being worked on"
    if status.songs_an_hour is not None and status.done + status.failed < status.total:
        lines.append(
            f"{status.songs_an_hour:,.0f} songs an hour, {status.seconds_left or 0:,.0f} s left"
        )
    lines += [f"{count} by {name}" for name, count in status.classes.items()]
    lines += [f"  {path}: {message}" for path, message in status.errors.items()]
    return "\n".join(lines)


def _part(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text} must be I/N, from 1/N to N/N")
    return int(index), int(count)


COMMAND = Command(
    "catalog",
    run,
    add_options,
    help="separate or score a whole catalogue on many processes",
    description=_DESCRIPTION,
    epilog=_EPILOG,
)
