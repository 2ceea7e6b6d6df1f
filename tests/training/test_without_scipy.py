"""Training needs SciPy for one augmentation only, which has an extra of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from umx_np.weights import is_model_folder

CODE = """
import sys
sys.modules["scipy"] = None  # as where it is not installed
from umx_np.train import main
sys.exit(main(sys.argv[1:]))
"""


def run(tracks: Path, output: Path, *augmentations: str) -> subprocess.CompletedProcess[str]:
    arguments = (
        "--dataset trackfolder_fix --target-file vocals.wav --interferer-files drums.wav "
        "--nfft 256 --nhop 64 --hidden-size 8 --seq-dur 0.25 --batch-size 2 --epochs 1 "
        "--bandwidth 3000 --no-plot --quiet --source-augmentations"
    )
    return subprocess.run(
        [
            sys.executable,
            "-c",
            CODE,
            *arguments.split(),
            *augmentations,
            "--root",
            str(tracks),
            "--output",
            str(output),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_model_is_trained_without_scipy(tracks, tmp_path):
    done = run(tracks, tmp_path / "out", "gain", "channelswap", "polarity", "width")
    assert done.returncode == 0, done.stderr
    assert is_model_folder(tmp_path / "out")


def test_tilt_asks_for_its_extra_before_anything_begins(tracks, tmp_path):
    done = run(tracks, tmp_path / "out", "tilt")
    assert done.returncode != 0
    assert 'pip install "umx-np[augment]"' in done.stderr
    assert not list(tmp_path.glob("out/*"))
