"""Cost of a beginning: importing, a short clip in a fresh process, and the disk space.

* Imports: fresh interpreters that import one thing and end.
* A clip: fresh processes from a sound file and weights on disk to written stems, the command
  ``umx-np separate`` beside what Open-Unmix's own command does.
* Size: what pip installs with umx_np into an empty environment, beside the files of torch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import audio as sound
from benchmarks.harness import results
from benchmarks.harness.agreement import BenchmarkError, require
from benchmarks.harness.process import measure
from benchmarks.harness.threads import ROOT, child_environment
from benchmarks.harness.timing import Timing

_MB = 1e6
_PEER = "openunmix (torch)"
# Both write 16 bits, whose rounding is what is left of the difference: 66 dB.
_AT_LEAST_DB = 50.0
_IMPORTS = {
    "nothing": "pass",
    "numpy": "import numpy",
    "umx_np": "import numpy, umx_np",
    "umx_np.Separator": "import numpy, umx_np; umx_np.Separator, umx_np.separate_file",
    "torch": "import numpy, torch",
}


def options() -> argparse.Namespace:
    """Command line."""
    parser = results.parser(__doc__)
    parser.add_argument("--model", choices=("umxhq", "umxl", "umx"), default="umxhq")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the clip (default: 10)")
    parser.add_argument(
        "--import-repeats", type=results.positive, default=15, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--no-install", action="store_true", help="leave out the size, which needs a package index"
    )
    return parser.parse_args()


def import_times(repeats: int, environment: dict[str, str]) -> dict[str, Timing]:
    """Interleaved runs of fresh interpreters, after one that fills the disk cache."""
    seconds: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    for number in range(-1, repeats):
        for name, code in _IMPORTS.items():
            measured = measure([sys.executable, "-c", code], environment)
            if number >= 0:
                seconds[name].append(measured.seconds)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def above(times: dict[str, Timing], name: str, base: str) -> float:
    """How much longer one takes than another: the median over the rounds of the difference."""
    pairs = zip(times[name].seconds, times[base].seconds, strict=True)
    return statistics.median(one - other for one, other in pairs)


def clip_times(
    args: argparse.Namespace, environment: dict[str, str], report: results.Report
) -> dict[str, Timing]:
    """Interleaved fresh processes from file to files; the stems are compared first."""
    import soundfile

    from umx_np.testing import random_bundle
    from umx_np.weights.folder import save_folder

    with tempfile.TemporaryDirectory(prefix="umx-np-clip-") as name:
        folder = Path(name)
        bundle = random_bundle(args.model)
        save_folder(bundle, folder / "model")
        clip = folder / "clip.wav"
        report.settings["audio"] = sound.write_song(clip, args.seconds)
        common = [str(clip), "--model", str(folder / "model"), "--threads", str(args.threads)]
        ours = [sys.executable, "-m", "umx_np", "separate", *common, "--outdir"]
        child = "benchmarks.compare.children.openunmix_files"
        theirs = [sys.executable, "-m", child, *common]
        theirs += ["--targets", *bundle.targets, "--outdir"]
        commands = {"umx_np": ours, _PEER: theirs}
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(-1, args.repeats):
            for program, command in commands.items():
                outdir = folder / program.split()[0]
                shutil.rmtree(outdir, ignore_errors=True)
                measured = measure([*command, outdir], environment)
                if number >= 0:
                    seconds[program].append(measured.seconds)
            if number < 0:
                for target in bundle.targets:
                    actual, expected = (
                        soundfile.read(folder / program.split()[0] / "clip" / f"{target}.wav")[0]
                        for program in commands
                    )
                    what = f"{target}, umx_np against {_PEER}"
                    report.agreements.append(
                        require(what, expected, actual, at_least_db=_AT_LEAST_DB)
                    )
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def installed_size() -> dict[str, float]:
    """Megabytes of each package that a base install puts into an empty environment.

    The wheel is built from a copy of the source tree, so that nothing is left in it.
    """
    with tempfile.TemporaryDirectory(prefix="umx-np-install-") as name:
        folder = Path(name)
        source, wheels, venv = folder / "source", folder / "wheels", folder / "venv"
        listed = _call(
            "git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"
        )
        for part in ("umx_np", "src_ext", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
            for file in listed.split("\0"):
                if (file == part or file.startswith(f"{part}/")) and (ROOT / file).is_file():
                    (source / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / file, source / file)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _call(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, source)
        _call(sys.executable, "-m", "venv", "--without-pip", venv)
        python = venv / "bin" / "python"
        _call(*pip, "--python", python, "install", *wheels.glob("*.whl"))
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = Path(_call(python, "-c", where).strip())
        return {entry.name: _tree_size(entry) / _MB for entry in sorted(site.iterdir())}


def _call(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(Path(str(part)).name for part in command)
        raise BenchmarkError(f"{shown}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def _tree_size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def distribution_size(name: str) -> float:
    """Megabytes of the files of an installed distribution, without what it depends on."""
    files = importlib.metadata.distribution(name).files or []
    paths = {Path(str(file.locate())) for file in files}
    return sum(path.lstat().st_size for path in paths if path.is_file()) / _MB


def main() -> None:
    """Measure all three."""
    args = options()
    environment = child_environment(args.threads)
    report = results.Report(
        "coldstart",
        args.threads,
        {
            "model": args.model,
            "seconds": args.seconds,
            "repeats": args.repeats,
            "import_repeats": args.import_repeats,
        },
    )
    times = import_times(args.import_repeats, environment)
    report.add_timings(times, "import ")
    for name in ("umx_np", "umx_np.Separator"):
        report.add_row(
            f"import {name}, beyond numpy",
            "s",
            max(above(times, name, "numpy"), 0.0),
            peer="torch, beyond numpy",
            theirs=above(times, "torch", "numpy"),
            ratio=False,
        )
    clips = clip_times(args, environment, report)
    report.add_timings(clips, "clip ")
    report.add_row(
        f"fresh process, {args.seconds:g} s clip, {args.model} from disk, to written stems",
        "s",
        clips["umx_np"],
        peer=_PEER,
        theirs=clips[_PEER],
        headline=True,
    )
    problem = None
    if not args.no_install:
        try:
            sizes = installed_size()
        except BenchmarkError as error:
            # What was timed so far is kept; the exit status tells that something is missing.
            problem = error
        else:
            report.details["installed_mb"] = sizes
            report.add_row(
                "installed size, with all dependencies",
                "MB",
                sum(sizes.values()),
                peer="torch, without its dependencies",
                theirs=distribution_size("torch"),
            )
    report.finish(args.json)
    if problem is not None:
        raise problem


if __name__ == "__main__":
    raise SystemExit(results.run(main))
