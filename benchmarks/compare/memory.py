"""Peak memory against the length of the song, from a sound file to the files of its stems.

Every run is a process of its own, and its peak resident set is what the system counted. Weights are
read from a folder on disk.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import audio as sound
from benchmarks.harness import results
from benchmarks.harness.agreement import require
from benchmarks.harness.process import Measured, measure
from benchmarks.harness.threads import child_environment, limited

_MB = 1e6
_PEER = "openunmix (torch)"
# Both write 16 bits, whose rounding is what is left of the difference: 66 dB.
_AT_LEAST_DB = 50.0
# Stems are compared piece by piece, because they need not fit in memory.
_COMPARED_FRAMES = 1 << 20
# From this length on, all rows are in the short table.
_BRIEF_MINUTES = 10.0


def options() -> argparse.Namespace:
    """Command line."""
    parser = results.parser(__doc__, repeats=1)
    parser.add_argument("--model", choices=("umxhq", "umxl", "umx"), default="umxhq")
    parser.add_argument("--niter", type=int, default=1, help="EM iterations (default: 1)")
    parser.add_argument(
        "--lengths", type=float, nargs="+", default=[0.5, 1, 2, 5, 10], metavar="MINUTES"
    )
    parser.add_argument(
        "--peer-lengths",
        type=float,
        nargs="*",
        default=[0.5, 1, 2],
        metavar="MINUTES",
        help="for openunmix, which takes 1.7 GB a minute",
    )
    parser.add_argument("--hour", action="store_true", help="also one hour, not for openunmix")
    parser.add_argument(
        "--max-memory",
        type=results.positive,
        nargs="?",
        const=100,
        metavar="MB",
        help="also with activations beyond this size in a temporary file",
    )
    parser.add_argument("--workdir", type=Path, help="folder for temporary files (3.2 GB an hour)")
    return parser.parse_args()


class Bench:
    """Runs the programs on songs of all lengths."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        from umx_np.testing import random_bundle
        from umx_np.weights.folder import save_folder

        self.args, self.folder = args, folder
        bundle = random_bundle(args.model)
        self.model = folder / "model"
        save_folder(bundle, self.model)
        self.targets = list(bundle.targets)
        self.environment = child_environment(args.threads)
        self.points: dict[str, list[dict[str, float]]] = {}
        self.agreements: list[dict[str, Any]] = []

    def variants(self, minutes: float) -> dict[str, list[str]]:
        """Program and further arguments of everything that runs on a song of this length."""
        result = {"umx_np": ["umx_np_files"]}
        if self.args.max_memory:
            limit = int(self.args.max_memory * _MB)
            name = f"umx_np, max_memory={self.args.max_memory} MB"
            result[name] = ["umx_np_files", "--max-memory", str(limit)]
        if minutes in self.args.peer_lengths:
            result[_PEER] = ["openunmix_files", "--targets", *self.targets]
        return result

    def song(self, minutes: float) -> str:
        """Separate one song with all programs; return what the song is."""
        path = self.folder / "song.wav"
        description = sound.write_song(path, 60 * minutes)
        taken: dict[str, list[Measured]] = {}
        variants = self.variants(minutes)
        outdirs = {name: self.folder / f"stems{i}" for i, name in enumerate(variants)}
        for _ in range(self.args.repeats):
            for name, command in variants.items():
                shutil.rmtree(outdirs[name], ignore_errors=True)
                taken.setdefault(name, []).append(self._run(path, outdirs[name], *command))
        for name in variants:
            if name != "umx_np":
                self._compare(minutes, name, outdirs["umx_np"], outdirs[name])
        for name, runs in taken.items():
            point = {
                "minutes": minutes,
                "peak_mb": float(np.median([run.peak_bytes for run in runs])) / _MB,
                "seconds": float(np.median([run.seconds for run in runs])),
            }
            self.points.setdefault(name, []).append(point)
            print(f"{minutes:g} min, {name}: {point['peak_mb']:.0f} MB, {point['seconds']:.1f} s")
        for outdir in outdirs.values():
            shutil.rmtree(outdir)
        path.unlink()
        return description

    def _run(self, song: Path, outdir: Path, program: str, *further: str) -> Measured:
        command = [sys.executable, "-m", f"benchmarks.compare.children.{program}", str(song)]
        command += ["--model", str(self.model), "--outdir", str(outdir)]
        command += ["--niter", str(self.args.niter), "--threads", str(self.args.threads)]
        return measure([*command, *further], self.environment)

    def _compare(self, minutes: float, name: str, ours: Path, other: Path) -> None:
        import soundfile

        for target in self.targets:
            files = [folder / "song" / f"{target}.wav" for folder in (other, ours)]
            blocks = [
                soundfile.blocks(file, _COMPARED_FRAMES, dtype="float32", always_2d=True)
                for file in files
            ]
            found = [
                require(
                    f"{minutes:g} min, {target}, umx_np against {name}",
                    expected,
                    actual,
                    at_least_db=_AT_LEAST_DB,
                )
                for expected, actual in zip(*blocks, strict=True)
            ]
            self.agreements.append(min(found, key=lambda piece: piece["snr_db"]))


def per_minute(points: list[dict[str, float]]) -> float | None:
    """Megabytes for each further minute: the slope of the line through all points."""
    if len(points) < 2:
        return None
    minutes, peaks = (np.array([point[key] for point in points]) for key in ("minutes", "peak_mb"))
    return float(np.polyfit(minutes, peaks, 1)[0])


def main() -> None:
    """Run all lengths, compare the stems, tell the peaks and slopes."""
    args = options()
    lengths = sorted({*args.lengths, *args.peer_lengths, *([60.0] if args.hour else [])})
    report = results.Report(
        "memory",
        args.threads,
        {
            "model": args.model,
            "niter": args.niter,
            "lengths": lengths,
            "peer_lengths": args.peer_lengths,
            "max_memory_mb": args.max_memory,
            "repeats": args.repeats,
        },
    )
    with (
        tempfile.TemporaryDirectory(dir=args.workdir, prefix="umx-np-memory-") as folder,
        limited(args.threads),
    ):
        bench = Bench(args, Path(folder))
        for minutes in lengths:
            report.settings["audio"] = bench.song(minutes)
    report.agreements = bench.agreements
    report.details["points"] = bench.points
    slopes = {name: per_minute(points) for name, points in bench.points.items()}
    report.details["mb_per_minute"] = slopes
    peaks = {
        name: {point["minutes"]: point["peak_mb"] for point in points}
        for name, points in bench.points.items()
    }
    theirs = peaks.get(_PEER, {})
    for minutes in lengths:
        for name in (name for name in bench.points if name != _PEER):
            label = "" if name == "umx_np" else f" ({name.partition(', ')[2]})"
            peer = theirs.get(minutes) if name == "umx_np" else None
            report.add_row(
                f"peak memory, {minutes:g} min stereo, {args.model}, file to files{label}",
                "MB",
                peaks[name][minutes],
                peer=_PEER if peer else None,
                theirs=peer,
                headline=minutes == max(theirs, default=None),
                brief=bool(peer and minutes == max(theirs)) or minutes >= _BRIEF_MINUTES,
            )
    if slopes["umx_np"] is not None:
        report.add_row(
            f"memory for each further minute, {args.model}",
            "MB",
            max(slopes["umx_np"], 0.0),
            peer=_PEER if slopes.get(_PEER) else None,
            theirs=slopes.get(_PEER),
        )
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
