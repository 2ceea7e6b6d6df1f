"""From nothing to stems: a fresh empty environment, the packages, and one command.

    python -m benchmarks.compare.install --wheel FILE --json benchmarks/results/install.json

For umx_np and for PyTorch's Open-Unmix, each in an environment of its own: pip downloads all that
is needed (nothing comes from its cache), installs it from there, and a song is separated into
files. No download of weights is in it: both separate with the same random weights, in the
architecture of umxhq; what the published ones would add is told in `details`. If no wheel is named,
one is built first, which is not measured.

Where pip gets its packages from changes the seconds of the download, and not the megabytes; other
work on the machine changes the seconds of the clock, and much less those of the processor.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import results
from benchmarks.harness.agreement import BenchmarkError, require
from benchmarks.harness.threads import ROOT, child_environment

_MB = 1e6
_PEER = "openunmix (torch, CPU only)"
# The build for processors; there is none of torchaudio for it, in whose place soundfile reads and
# writes, which is smaller.
_PEER_PACKAGES = ("torch==2.13.0+cpu", "numpy", "tqdm", "soundfile")
_PEER_WITHOUT_REQUIREMENTS = ("openunmix==1.3.0",)
_AT_LEAST_DB = 50.0


@dataclass
class Beginning:
    """Cost of getting from an empty environment to stems.

    Attributes
    ----------
    seconds, processor : dict of str to float
        Of the steps ``download``, ``install`` and ``separate``: by the clock, and of all processors
        together.
    downloaded_mb, installed_mb : float
        Of all packages.
    packages : dict of str to float
        Megabytes of each file that was downloaded.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    downloaded_mb: float = 0.0
    installed_mb: float = 0.0
    packages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step and of the programs that it runs."""
        begin, used = time.perf_counter(), _children_seconds()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
        self.processor[name] = self.processor.get(name, 0.0) + _children_seconds() - used


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = results.parser(__doc__)
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="of umx_np (default: build one)")
    parser.add_argument(
        "--song", type=Path, default=ROOT / "examples" / "song.ogg", help="(default: the example)"
    )
    parser.add_argument(
        "--peer-packages",
        nargs="+",
        default=_PEER_PACKAGES,
        metavar="REQUIREMENT",
        help=f"what openunmix needs (default: {' '.join(_PEER_PACKAGES)})",
    )
    parser.add_argument("--no-peer", action="store_true", help="umx_np alone")
    return parser.parse_args(arguments)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def call(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run a program to its end; return what it printed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment,
        errors="replace",
    )  # fmt: skip
    if done.returncode:
        shown = " ".join(Path(str(part)).name for part in command[:6])
        raise BenchmarkError(f"{shown} ...: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def tree_size(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def begin(
    folder: Path, packages: Sequence[str | Path], without_requirements: Sequence[str] = ()
) -> tuple[Beginning, Path]:
    """Download and install packages in a fresh environment.

    Parameters
    ----------
    folder : Path
        An empty folder for it.
    packages : sequence of str or Path
        Requirements, with all that they need.
    without_requirements : sequence of str
        Further ones, without what they need.

    Returns
    -------
    Beginning
        Of these two steps.
    Path
        The environment.
    """
    found, venv, wheels = Beginning(), folder / "venv", folder / "wheels"
    call(sys.executable, "-m", "venv", venv)
    empty = tree_size(venv)
    pip = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    pip += ["--no-cache-dir"]
    wheels.mkdir()
    for requirements, how in ((packages, []), (without_requirements, ["--no-deps"])):
        if not requirements:
            continue
        with found.step("download"):
            call(*pip, "download", *how, "--dest", wheels, *requirements)
    found.packages = {path.name: path.stat().st_size / _MB for path in sorted(wheels.iterdir())}
    found.downloaded_mb = sum(found.packages.values())
    here = ["--no-index", "--find-links", wheels]
    for requirements, how in ((packages, []), (without_requirements, ["--no-deps"])):
        if not requirements:
            continue
        with found.step("install"):
            call(*pip, "install", *how, *here, *requirements)
    found.installed_mb = (tree_size(venv) - empty) / _MB
    return found, venv


def build_wheel(folder: Path) -> Path:
    """Build a wheel of this source tree, in a copy so that nothing is left in it."""
    source = folder / "source"
    for name in filter(None, call("git", "-C", ROOT, "ls-files", "-z").split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder / "built", source)
    return next((folder / "built").glob("*.whl"))


def environment_of(venv: Path, threads: int, *, with_benchmarks: bool) -> dict[str, str]:
    """Variables for a program in a fresh environment, which sees nothing of this one."""
    environment = child_environment(threads)
    del environment["PYTHONPATH"]
    if with_benchmarks:
        environment["PYTHONPATH"] = str(ROOT)
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    return environment


def compare_stems(report: results.Report, ours: Path, theirs: Path) -> None:
    """Make sure that both have written the same."""
    import soundfile

    names = sorted(path.name for path in ours.glob("*.wav"))
    if not names or names != sorted(path.name for path in theirs.glob("*.wav")):
        raise BenchmarkError(f"stems differ: {names} in {ours.name}")
    for name in names:
        actual, expected = (soundfile.read(folder / name)[0] for folder in (ours, theirs))
        what = f"{Path(name).stem}, umx_np against {_PEER}"
        report.agreements.append(require(what, expected, actual, at_least_db=_AT_LEAST_DB))


def measure(args: argparse.Namespace, folder: Path, report: results.Report) -> dict[str, Beginning]:
    """Begin with each program, separate the song with both, and compare the stems."""
    from umx_np.testing import random_bundle
    from umx_np.weights.folder import save_folder

    model, song = folder / "model", args.song.resolve()
    bundle = random_bundle("umxhq")
    save_folder(bundle, model)
    begun = {}
    (folder / "ours").mkdir()
    wheel = args.wheel.resolve() if args.wheel else build_wheel(folder / "ours")
    found, venv = begin(folder / "ours", [wheel])
    outdir = folder / "stems"
    with found.step("separate"):
        command = ["separate", song, "--model", model, "--outdir", outdir, "--quiet"]
        call(
            venv / "bin" / "umx-np", *command, "--threads", str(args.threads),
            environment=environment_of(venv, args.threads, with_benchmarks=False),
        )  # fmt: skip
    begun["umx_np"] = found
    if args.no_peer:
        return begun
    (folder / "theirs").mkdir()
    found, venv = begin(folder / "theirs", args.peer_packages, _PEER_WITHOUT_REQUIREMENTS)
    child = "benchmarks.compare.children.openunmix_files"
    with found.step("separate"):
        command = [
            song,
            "--model",
            model,
            "--targets",
            *bundle.targets,
            "--outdir",
            folder / "peer",
        ]
        call(
            venv / "bin" / "python", "-m", child, *command, "--threads", str(args.threads),
            environment=environment_of(venv, args.threads, with_benchmarks=True),
        )  # fmt: skip
    begun[_PEER] = found
    ours = next(outdir.rglob("vocals.wav")).parent
    compare_stems(report, ours, next((folder / "peer").rglob("vocals.wav")).parent)
    return begun


def add_rows(report: results.Report, begun: dict[str, Beginning]) -> None:
    """Put what was measured into the tables."""
    ours, theirs = begun["umx_np"], begun.get(_PEER)
    peer = None if theirs is None else _PEER

    def row(figure: str, unit: str, of: str, *, headline: bool = False) -> None:
        values = [None if one is None else _value(one, of) for one in (ours, theirs)]
        assert values[0] is not None
        report.add_row(
            figure, unit, values[0], peer=peer, theirs=values[1], headline=headline, brief=False
        )

    row("from nothing to stems", "s", "seconds", headline=True)
    row("processor time of that", "s", "processor")
    for step in ("download", "install", "separate"):
        row(f"{step}, processor time", "s", step)
    row("downloaded", "MB", "downloaded_mb")
    row("installed", "MB", "installed_mb")
    report.details["beginnings"] = {name: asdict(one) for name, one in begun.items()}


def _value(one: Beginning, of: str) -> float:
    if of in ("seconds", "processor"):
        return sum(getattr(one, of).values())
    return one.processor[of] if of in one.processor else getattr(one, of)


def main() -> None:
    """Measure, once: a second time the files would be in the cache of the disk."""
    args = options()
    report = results.Report("install", args.threads, {"song": args.song.name})
    with tempfile.TemporaryDirectory(prefix="umx-np-install-") as name:
        begun = measure(args, Path(name), report)
    add_rows(report, begun)
    report.details["weights_not_counted_mb"] = {
        "umx_np": 0.0, _PEER: 142.6,  # umxhq; umxl, which is its default, has 452
    }  # fmt: skip
    report.details["packages_from"] = "the package index of this machine"
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
