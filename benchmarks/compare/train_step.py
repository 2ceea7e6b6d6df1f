"""One step of training: waveforms to updated weights, in umx_np and in PyTorch's Open-Unmix.

A step is the STFT of mixture and target (not centred), the network forward with dropout, the mean
squared error, the network backward, and Adam with weight decay: the loop of Open-Unmix's
``scripts/train.py`` without its data loading. In umx_np it is the step of the trainer.
First both train for some steps from the same weights on the same batches, dropout off, and their
losses are compared; then they are timed in turn. Peak memory is that of processes of their own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import results
from benchmarks.harness.agreement import OutputsDiffer
from benchmarks.harness.process import measure
from benchmarks.harness.threads import child_environment, limited
from benchmarks.harness.timing import Case, Timing, interleave

_RATE, _N_FFT, _N_HOP, _BANDWIDTH = 44100.0, 4096, 1024, 16000.0
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 1e-5
# Relative difference of the losses; measured 2e-7.
_LOSSES_WITHIN = 1e-4
_COMPARED_STEPS = 4


def options() -> argparse.Namespace:
    """Command line."""
    parser = results.parser(__doc__, repeats=7)
    parser.add_argument("--batch-size", type=results.positive, default=16, help="(default: 16)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each sample (default: 6)")
    parser.add_argument("--hidden-size", type=results.positive, default=512, help="(default: 512)")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--child", choices=("umx_np", "torch"), help=argparse.SUPPRESS)
    return parser.parse_args()


def batch(args: argparse.Namespace, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mixture and target [shape=(nb_samples, 2, nb_timesteps)]."""
    rng = np.random.default_rng(seed)
    shape = (args.batch_size, 2, int(args.seconds * _RATE))
    target = 0.1 * rng.standard_normal(shape, np.float32)
    return target + 0.1 * rng.standard_normal(shape, np.float32), target


def weights(args: argparse.Namespace) -> Any:
    """Random weights in the architecture that Open-Unmix trains by default."""
    from umx_np.config import ModelConfig, bandwidth_to_max_bin
    from umx_np.testing import random_state
    from umx_np.weights.bundle import TargetWeights

    max_bin = bandwidth_to_max_bin(_RATE, _N_FFT, _BANDWIDTH)
    config = ModelConfig(_N_FFT // 2 + 1, 2, args.hidden_size, max_bin=max_bin)
    return TargetWeights(config, random_state(config, seed=1))


class Ours:
    """Training in umx_np: the step that `umx_np.training.Trainer` makes of each batch."""

    def __init__(self, args: argparse.Namespace, dropout: float = 0.4) -> None:
        from umx_np.data import UnmixDataset
        from umx_np.training import TrainConfig, Trainer
        from umx_np.training.records import RunRecord
        from umx_np.training.schedule import Cosine
        from umx_np.training.start import Start
        from umx_np.weights import ModelBundle

        class NoItems(UnmixDataset):
            """The batches are not loaded but given."""

            sample_rate, target = _RATE, "noise"

            def __len__(self) -> int:
                return 1

            def sample(self, index: int, rng: np.random.Generator) -> tuple[Any, Any]:
                raise NotImplementedError

        start = weights(args)
        config = TrainConfig(
            target="noise",
            output="nowhere",  # nothing is written
            hidden_size=args.hidden_size,
            n_fft=_N_FFT,
            n_hop=_N_HOP,
            bandwidth=_BANDWIDTH,
            lr=_LEARNING_RATE,
            weight_decay=_WEIGHT_DECAY,
            device="cpu",
            threads=args.threads,
        )
        self.trainer = Trainer(config, NoItems(), NoItems())
        bundle = ModelBundle("noise", {"noise": start}, _RATE, _N_FFT, _N_HOP)
        self.trainer._prepare(Start(config, bundle, RunRecord(), cosine=Cosine(_LEARNING_RATE)))
        self.trainer.network.dropout = dropout

    def step(self, mixture: np.ndarray, target: np.ndarray) -> float:
        """Train on a batch; return its loss."""
        return self.trainer._train_batch(mixture, target)


class Theirs:
    """Training with openunmix, as in its own script."""

    def __init__(self, args: argparse.Namespace, dropout: float = 0.4) -> None:
        from benchmarks.harness import upstream

        up = upstream.load("model", "transforms")
        self.torch = up.torch
        self.network = upstream.network(up, weights(args))
        for parameter in self.network.parameters():
            parameter.requires_grad = True
        self.network.lstm.dropout = dropout
        self.network.train()
        stft, _ = up.transforms.make_filterbanks(
            n_fft=_N_FFT, n_hop=_N_HOP, center=False, sample_rate=_RATE
        )
        self.encoder = self.torch.nn.Sequential(stft, up.model.ComplexNorm(mono=False))
        self.optimizer = self.torch.optim.Adam(
            self.network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
        )

    def step(self, mixture: np.ndarray, target: np.ndarray) -> float:
        """Train on a batch; return its loss."""
        x = self.encoder(self.torch.from_numpy(mixture))
        wanted = self.encoder(self.torch.from_numpy(target))
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.mse_loss(self.network(x), wanted)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def compare_losses(args: argparse.Namespace) -> dict[str, Any]:
    """Train both for some steps without dropout; return the record of the comparison."""
    batches = [batch(args, seed) for seed in range(2)]
    losses = {}
    for name, kind in (("umx_np", Ours), ("torch", Theirs)):
        training = kind(args, dropout=0.0)
        losses[name] = [training.step(*batches[k % 2]) for k in range(_COMPARED_STEPS)]
        del training
    ours, theirs = np.array(losses["umx_np"]), np.array(losses["torch"])
    difference = float(np.max(np.abs(ours / theirs - 1.0)))
    # Written so that NaN cannot pass.
    if not difference <= _LOSSES_WITHIN or not ours[-1] < ours[0]:
        raise OutputsDiffer(f"losses differ by {difference:.1e}: {losses}")
    return {
        "what": f"losses of {_COMPARED_STEPS} steps, against torch",
        "losses": losses,
        "relative_difference": difference,
        "at_most": _LOSSES_WITHIN,
    }


def work(args: argparse.Namespace) -> float:
    """Billions of operations in the matrix products of a step that cannot be left out."""
    start = weights(args).config
    hidden, outputs = start.hidden_size, 2 * start.nb_bins
    rows = args.batch_size * (1 + (int(args.seconds * _RATE) - _N_FFT) // _N_HOP)
    inputs = 2 * start.nb_input_bins
    lstm = start.nb_layers * (4 * hidden * hidden + 2 * hidden * hidden)
    # Forward, gradient of the weights, gradient of the input; the last not for the first layer.
    products = 2 * hidden * inputs + 3 * (lstm + 2 * hidden * hidden + hidden * outputs)
    return 2e-9 * rows * products


def main() -> None:
    """Compare losses, then time steps, then measure memory."""
    args = options()
    if args.child:
        training = {"umx_np": Ours, "torch": Theirs}[args.child](args)
        with limited(args.threads):
            for seed in range(3):
                training.step(*batch(args, seed))
        return
    import torch

    report = results.Report(
        "train_step",
        args.threads,
        {
            "batch_size": args.batch_size,
            "seconds": args.seconds,
            "hidden_size": args.hidden_size,
            "optimizer": "Adam, weight decay 1e-5",
            "repeats": args.repeats,
            "audio": "seeded noise",
        },
    )
    with limited(args.threads):
        report.details["agreement"] = compare_losses(args)
        print(
            "losses of both agree to "
            f"{report.details['agreement']['relative_difference']:.1e} (relative)"
        )
        mixture, target = batch(args, 0)
        cases = []
        for name, kind in (("umx_np", Ours), ("torch", Theirs)):
            step: Callable[..., float] = kind(args).step
            cases.append(Case(name, lambda step=step: step(mixture, target)))
        times = interleave(cases, args.repeats)
    report.add_timings(times)
    report.add_row(
        f"training step, batch {args.batch_size} x {args.seconds:g} s, hidden {args.hidden_size}",
        "s",
        times["umx_np"],
        peer="torch",
        theirs=times["torch"],
        headline=True,
    )
    report.details["gflop"] = work(args)
    report.details["gflop_per_second"] = work(args) / times["umx_np"].median
    print(f"umx_np: {report.details['gflop_per_second']:.0f} GFLOP/s over the whole step")
    if not args.no_memory:
        add_memory(args, report)
    report.details["torch"] = torch.__version__
    report.finish(args.json)


def add_memory(args: argparse.Namespace, report: results.Report) -> None:
    """Peak memory of three steps, each program in a process of its own."""
    peaks = {}
    for name in ("umx_np", "torch"):
        command = [sys.executable, "-m", "benchmarks.compare.train_step", "--child", name]
        command += ["--threads", str(args.threads), "--batch-size", str(args.batch_size)]
        command += ["--seconds", str(args.seconds), "--hidden-size", str(args.hidden_size)]
        run = measure(command, child_environment(args.threads))
        peaks[name] = Timing((run.peak_bytes / 1e6,)).median
    report.add_row(
        "peak memory of training", "MB", peaks["umx_np"], peer="torch", theirs=peaks["torch"]
    )


if __name__ == "__main__":
    raise SystemExit(results.run(main))
