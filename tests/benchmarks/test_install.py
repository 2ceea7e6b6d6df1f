"""The benchmark of an installation, with packages made here in place of the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from benchmarks.compare import install
from benchmarks.harness.agreement import BenchmarkError, OutputsDiffer
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of

PROGRAM = """
import sys
from pathlib import Path

def main():
    words = sys.argv[1:]
    folder = Path(words[words.index("--outdir") + 1], "song_model")
    folder.mkdir(parents=True)
    for name in ("vocals", "drums"):
        (folder / f"{name}.wav").write_bytes(b"sound")
"""


def make_wheel(folder: Path, name: str, *, requires: str | None = None, nb_bytes: int = 0) -> Path:
    """Put a package together that has the program `umx-np`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-9.9-py3-none-any.whl"
    info = f"{name}-9.9.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    files = {
        f"{name}.py": PROGRAM,
        f"{name}_data.bin": "0" * nb_bytes,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\numx-np = {name}:main\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


def write_stems(folder: Path, scale: float = 1.0, names: tuple[str, ...] = ("vocals",)) -> Path:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2))
    for name in names:
        sf.write(folder / f"{name}.wav", scale * noise, 8000)
    return folder


def sample() -> dict[str, install.Beginning]:
    """What two programs might have taken."""
    begun = {}
    for name, factor in (("umx_np", 1.0), (install._PEER, 4.0)):
        one = install.Beginning(downloaded_mb=30 * factor, installed_mb=90 * factor)
        for step, seconds in (("download", 1.0), ("install", 2.0), ("separate", 3.0)):
            one.seconds[step] = seconds * factor
            one.processor[step] = seconds * factor / 2
        begun[name] = one
    return begun


@pytest.fixture
def report():
    environment = {"machine": {}}
    return install.results.Report("install", 2, {}, environment=environment)


def test_steps_add_up():
    one = install.Beginning()
    for _ in range(2):
        with one.step("install"):
            subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
    assert one.seconds["install"] > 0
    assert one.processor["install"] > 0


def test_rows(report):
    install.add_rows(report, sample())
    rows = {row["figure"]: row for row in report.rows}
    assert rows["from nothing to stems"]["ours"]["median"] == 6.0
    assert rows["processor time of that"]["theirs"]["median"] == 12.0
    assert rows["separate, processor time"]["ours"]["median"] == 1.5
    assert rows["downloaded"]["unit"] == "MB"
    assert all(row["ratio"] == 4.0 for row in report.rows)
    assert report.ratio == 4.0
    alone = {"umx_np": sample()["umx_np"]}
    report.rows.clear()
    install.add_rows(report, alone)
    assert all(row["theirs"] is None and row["peer"] is None for row in report.rows)


def test_stems_are_compared(report, tmp_path):
    ours, theirs = write_stems(tmp_path / "a"), write_stems(tmp_path / "b")
    install.compare_stems(report, ours, theirs)
    assert [found["snr_db"] > 50 for found in report.agreements] == [True]
    with pytest.raises(OutputsDiffer):
        install.compare_stems(report, ours, write_stems(tmp_path / "c", 0.5))
    with pytest.raises(BenchmarkError, match="stems differ"):
        install.compare_stems(report, ours, write_stems(tmp_path / "d", names=("vocals", "bass")))
    (tmp_path / "none").mkdir()
    with pytest.raises(BenchmarkError, match="stems differ"):
        install.compare_stems(report, tmp_path / "none", tmp_path / "none")


def test_programs_see_nothing_of_this_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    alone = install.environment_of(tmp_path, 2, with_benchmarks=False)
    assert "PYTHONPATH" not in alone
    assert alone["PATH"].startswith(str(tmp_path / "bin") + os.pathsep)
    assert alone["OMP_NUM_THREADS"] == "2"
    assert install.environment_of(tmp_path, 2, with_benchmarks=True)["PYTHONPATH"] == str(
        install.ROOT
    )


def test_what_fails_is_said():
    with pytest.raises(BenchmarkError, match="exit status 3\nno luck"):
        install.call(
            sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"
        )


@pytest.mark.slow
def test_a_fresh_environment(tmp_path):
    """Packages with what they need, and others without."""
    wheels = tmp_path / "made"
    make_wheel(wheels, "needed", nb_bytes=1_000_000)
    first = make_wheel(wheels, "first", requires="needed==9.9", nb_bytes=500_000)
    second = make_wheel(wheels, "second", requires="nowhere==1", nb_bytes=250_000)
    folder = tmp_path / "fresh"
    folder.mkdir()
    found, venv = install.begin(
        folder, [first, wheels / "needed-9.9-py3-none-any.whl"], [str(second)]
    )
    assert set(found.packages) == {path.name for path in wheels.iterdir()}
    assert set(found.seconds) == {"download", "install"}
    assert 1.75 < found.downloaded_mb < 1.8
    assert 1.75 < found.installed_mb < 1.9
    said = install.call(venv / "bin" / "python", "-c", "import first, needed, second; print('yes')")
    assert said == "yes\n"
    with pytest.raises(BenchmarkError):
        install.call(venv / "bin" / "python", "-c", "import numpy")


@pytest.mark.slow
def test_the_benchmark(tmp_path, monkeypatch, capsys):
    def small_bundle(name):
        config = ModelConfig(nb_bins=65, hidden_size=8, max_bin=40)
        return random_bundle_of(config, ("vocals", "drums"))

    monkeypatch.setattr("umx_np.testing.random_bundle", small_bundle)
    wheel = make_wheel(tmp_path, "umx_np", nb_bytes=1000)
    path = tmp_path / "install.json"
    words = ["install", "--wheel", str(wheel), "--no-peer", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", words)
    assert install.results.run(install.main) == 0
    document = json.loads(path.read_text())
    beginning = document["details"]["beginnings"]["umx_np"]
    assert set(beginning["seconds"]) == {"download", "install", "separate"}
    assert beginning["packages"] == {wheel.name: wheel.stat().st_size / 1e6}
    assert len(document["rows"]) == 7
    assert "ratio unknown" in capsys.readouterr().out
