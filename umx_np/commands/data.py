"""``umx-np data``: look at a dataset the way training will see it."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .frame import Command

if TYPE_CHECKING:
    import numpy as np

    from ..data.base import UnmixDataset
    from ..data.loader import Batch, Loader

# Frequencies at which the statistics are shown, in Hz.
_SHOWN = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 15000)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    from ..data.options import add_dataset_options

    add_dataset_options(parser)
    parser.add_argument(
        "--save",
        metavar="DIR",
        nargs="?",
        const="test",
        help="write mixtures and targets of all training items to DIR/<k>x.wav and DIR/<k>y.wav "
        "(default DIR: test)",
    )
    parser.add_argument("--seed", type=int, default=42, help="(default: 42)")
    parser.add_argument("--audio-backend", help="accepted and not used")
    parser.add_argument(
        "--seq-dur",
        type=float,
        default=5.0,
        help="length of the excerpts in seconds, 0 or less for whole tracks (default: 5.0)",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="(default: 16)")
    parser.add_argument("--nb-workers", type=int, default=4, help="loaders (default: 4)")
    parser.add_argument(
        "--workers-mode",
        choices=("threads", "processes"),
        default="threads",
        help="what the workers are (default: threads)",
    )
    parser.add_argument("--nfft", type=int, default=4096, help="(default: 4096)")
    parser.add_argument("--nhop", type=int, default=1024, help="(default: 1024)")
    parser.add_argument("--no-statistics", action="store_true", help="only load the items")


def run(args: argparse.Namespace) -> int:
    """Load one epoch, and print what it was and the statistics."""
    from ..data import load_datasets, parse_dataset_options

    args = parse_dataset_options(args.parser, args.words)
    train, valid = load_datasets(args)
    _load_all(train, args)
    print(f"Number of training samples: {len(train)}")
    print(f"Number of validation samples: {len(valid)}")
    if not args.no_statistics:
        _show_statistics(train, args)
    return 0


def _load_all(dataset: UnmixDataset, args: argparse.Namespace) -> None:
    """Load, and perhaps save, one epoch, and print what it is and how long it took."""
    from ..data.loader import Loader

    # Whole tracks have different lengths and cannot share a batch.
    batch_size = args.batch_size if args.seq_dur > 0 else 1
    nb_timesteps = nb_items = 0
    with Loader(
        dataset,
        batch_size,
        seed=args.seed,
        shuffle=False,
        workers=args.nb_workers,
        mode=args.workers_mode,
    ) as loader:
        begin = time.perf_counter()
        for x, y in _with_bar(loader, args.quiet):
            if args.save:
                _save(Path(args.save), nb_items, x, y, dataset.sample_rate)
            nb_timesteps += x.shape[0] * x.shape[2]
            nb_items += len(x)
        elapsed = time.perf_counter() - begin
    seconds = nb_timesteps / dataset.sample_rate
    print(f"Target: {dataset.target}")
    print(f"Rate: {dataset.sample_rate:g} Hz, {dataset.nb_channels or 'unknown'} channels")
    print(f"Total training duration (h): {seconds / 3600:.4f}")
    print(
        f"Loaded {nb_items / elapsed:.1f} items a second, {seconds / elapsed:.0f} times real time"
        + (" (with saving)" if args.save else "")
    )


def _with_bar(loader: Loader, quiet: bool) -> Iterator[Batch]:
    """One epoch with a progress bar; disabled where there is no terminal."""
    from tqdm import tqdm

    yield from tqdm(
        loader.epoch(0), total=len(loader), desc="loading", disable=quiet or None, leave=False
    )


def _save(folder: Path, first: int, x: np.ndarray, y: np.ndarray, rate: float) -> None:
    from .. import audio

    for k in range(len(x)):
        # Sums of sources may exceed full scale, which 32-bit floats can hold.
        for name, waveform in (("x", x[k]), ("y", y[k])):
            path = folder / f"{first + k}{name}.wav"
            audio.write(path, waveform, rate, bits="float", clip_mode="none")


def _show_statistics(dataset: UnmixDataset, args: argparse.Namespace) -> None:
    import numpy as np

    from ..data.statistics import get_statistics

    mean, std = get_statistics(
        dataset, args.nfft, args.nhop, seed=args.seed, progress=not args.quiet
    )
    print(f"Magnitude, n_fft={args.nfft}, n_hop={args.nhop}:")
    print(f"{'Hz':>8} {'mean':>12} {'std':>12}")
    frequencies = np.linspace(0.0, dataset.sample_rate / 2, len(mean))
    for frequency in _SHOWN:
        if frequency <= frequencies[-1]:
            k = int(np.argmin(np.abs(frequencies - frequency)))
            print(f"{frequencies[k]:8.0f} {mean[k]:12.5g} {std[k]:12.5g}")


COMMAND = Command(
    "data",
    run,
    add_options,
    help="look at a dataset the way training will see it",
    description="Load every training item once: total duration, loading speed, statistics of the "
    "spectrograms.",
    quiet=logging.WARNING,
    quiet_help="no progress bars",
)
