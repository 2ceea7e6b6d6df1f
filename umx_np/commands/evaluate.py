"""``python -m umx_np.evaluate``: score a model, with the options of Open-Unmix's evaluation."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from .._support.console import (
    cleaning_up_when_terminated,
    exit_status,
    logging_to_stderr,
    print_any_name,
    say,
    show,
)
from ..errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    int
        Exit status: 0 when all tracks have scores, 1 after an error in some or all of them, 130
        after an interruption. Mistakes in the arguments raise `SystemExit` with 2.
    """
    return exit_status("umx_np.evaluate", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    from ..evaluation.options import parse_options

    args = parse_options(argv)
    print_any_name()
    level = logging.WARNING if args.quiet else logging.INFO
    with logging_to_stderr(level), cleaning_up_when_terminated():
        return _evaluate(args)


def _evaluate(args: argparse.Namespace) -> int:
    from ..evaluation.options import evaluate_arguments
    from ..evaluation.plot import draw_boxes
    from ..evaluation.runner import evaluate
    from ..evaluation.summary import import_pandas, write_pandas
    from ..plots import check_available

    # Not after hours of computing.
    if args.plot is not None:
        check_available("--plot")
        if Path(args.plot).suffix.lower() != ".png":
            raise ConfigError(f"--plot {args.plot}: the name must end in .png")
    if args.pandas is not None:
        import_pandas()
    result = evaluate(**evaluate_arguments(args))
    if result.scores:
        summary = result.summary()
        show(f"{result.name}: {_described(result.settings)}")
        show(summary.table())
        if args.plot is not None:
            draw_boxes(summary, result.name, args.plot)
        if args.pandas is not None:
            write_pandas(result.scores, args.pandas, result.name)
    if result.failed:
        say(
            f"umx_np.evaluate: {len(result.failed)} of "
            f"{len(result.failed) + len(result.scores)} tracks could not be evaluated"
        )
    return 1 if result.failed else 0


def _described(settings: dict) -> str:
    """The settings that matter to who compares numbers."""
    if "niter" not in settings:
        return "existing estimates"
    length = settings["wiener_win_len"]
    return f"niter {settings['niter']}, wiener_win_len {length or 'whole track'}" + (
        ", softmask" if settings["softmask"] else ""
    )
