"""``python -m umx_np.train``: train a model, with the options of Open-Unmix's trainer."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .._support.console import exit_status, logging_to_stderr, say


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    int
        Exit status: 0 when the training is done, 1 after an error, 128 plus the number of the
        signal when it was stopped by one. Mistakes in the arguments raise `SystemExit` with 2.
    """
    return exit_status("umx_np.train", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    from ..training.options import given_settings, parse_options

    args = parse_options(argv)
    with logging_to_stderr(logging.WARNING if args.quiet else logging.INFO):
        return _train(vars(args), given_settings(argv))


def _train(arguments: dict, given: frozenset[str]) -> int:
    from ..data import load_datasets
    from ..training.config import TrainConfig
    from ..training.files import RunFiles
    from ..training.interrupts import stopping_on_signals

    config = TrainConfig.from_arguments(arguments)
    # Before the data is looked at, which may take long.
    RunFiles(config).check()

    from ..training.trainer import Trainer

    received: list[int] = []
    trainers: list[Trainer] = []

    def stop(number: int) -> bool:
        """Stop in good order once there is something to save."""
        received.append(number)
        if not trainers or not trainers[0].is_running:
            return False
        trainers[0].stop()
        say("stopping after this batch; once more to stop at once")
        return True

    with stopping_on_signals(stop):
        datasets = load_datasets({**arguments, "seq_dur": config.seq_duration})
        trainers.append(
            Trainer(
                config,
                *datasets,
                arguments=arguments,
                progress=not arguments["quiet"],
                loader_mode=arguments["loader"],
                given=given,
            )
        )
        result = trainers[0].fit()
    return 128 + received[-1] if result.reason == "stopped" and received else 0
