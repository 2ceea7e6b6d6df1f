"""Open-Unmix's own tests, unchanged, on umx_np.

They are part of its source package; `.ci/run` fetches it. By hand::

    python -m pip download --no-binary openunmix --no-deps --dest peers openunmix==1.3.0
    tar -xf peers/openunmix-1.3.0.tar.gz -C peers
    UMX_NP_PEERS=$PWD/peers python -m pytest -m parity tests/peers

Left out are the tests that download weights or MUSDB18 (`NETWORK`), and those of what neither
package has (`ABSENT`); the parity tests compare both on models and music of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import umx_np

STANDIN = Path(__file__).with_name("standin")
# The modules, and how many of their tests there are.
MODULES = {
    "test_augmentations": 6,
    "test_datasets": 6,
    "test_io": 12,
    "test_model": 2,
    "test_transforms": 2,
    "test_utils": 2,
    "test_wiener": 336,
}
NETWORK = ("test_model_loading", "test_musdb", "test_regression")
# An export to ONNX, which Open-Unmix skips itself.
ABSENT = ("test_jit",)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the tests, with the sound that they read."""
    pytest.importorskip("torch")
    place = os.environ.get("UMX_NP_PEERS")
    if not place:
        pytest.skip("set UMX_NP_PEERS to the folder with openunmix-1.3.0")
    folder = tmp_path_factory.mktemp("openunmix")
    shutil.copytree(Path(place) / "openunmix-1.3.0" / "tests", folder / "tests")
    # The package has no sound; these are as long as the tests and its scripts want them.
    rng = np.random.default_rng(0)
    (folder / "tests" / "data").mkdir(exist_ok=True)
    sf.write(folder / "tests" / "data" / "test.wav", 0.1 * rng.standard_normal(24000), 8000)
    for split in ("train", "valid"):
        for track in range(1, 4):
            tracks = folder / "TrackfolderDataset" / split / str(track)
            tracks.mkdir(parents=True)
            for name in range(1, 5):
                sound = 0.1 * rng.standard_normal((24000, 2))
                sf.write(tracks / f"{name}.wav", sound, 8000)
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("module", MODULES)
def test_unchanged(suite: Path, module: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    command += ["--rootdir", str(suite), f"tests/{module}.py", "-k"]
    command += [" and ".join(f"not {name}" for name in NETWORK)]
    paths = [STANDIN, Path(umx_np.__file__).parents[1]]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, cwd=suite, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) == MODULES[module], done.stdout[-1000:]
    assert "skipped" not in done.stdout


@pytest.mark.parity
def test_no_module_is_overlooked(suite: Path) -> None:
    found = {path.stem for path in (suite / "tests").glob("test_*.py")}
    assert found == {*MODULES, *ABSENT, "test_regression"}
