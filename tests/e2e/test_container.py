"""A limited process, as in a container: nothing may be written to but the temporary folder."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umx_np.audio import write

# Notes every attempt to write elsewhere or to reach another machine, also one that fails quietly.
CODE = """
import os, sys
temporary = os.environ["TMPDIR"]

def note(event, arguments):
    if event == "open" and arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        # What a descriptor stands for was noted when it was opened.
        known = isinstance(arguments[0], int)
        if not known and not str(arguments[0]).startswith((temporary, "/dev/")):
            print("writes", arguments, flush=True)
    if event in ("os.mkdir", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        if not str(arguments[0]).startswith(temporary):
            print(event, arguments, flush=True)

sys.addaudithook(note)
try:
    open("probe", "x")
except OSError:
    print("closed", flush=True)
from umx_np.commands import main
sys.exit(main(sys.argv[1:]))
"""


def _without_overriding() -> None:
    """Take the right to pass over permissions from the program that is started, also from root."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's capabilities")
def test_separate_where_only_the_temporary_folder_can_be_written(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    song = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 66150)).astype(np.float32)
    write(home / "song.wav", song, 44100)
    home.chmod(0o555)
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment |= {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    # 0 MB: also what is kept in temporary files is.
    options = ["--outdir", str(temporary / "stems"), "--max-memory", "0", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, "separate", "song.wav", *options],
        env=environment,
        cwd=home,
        capture_output=True,
        check=False,
        text=True,
        preexec_fn=_without_overriding,
    )
    home.chmod(0o755)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("writes")  # the probe
    assert lines[1] == "closed"
    # What ffmpeg does is to copy the tags of the song; the paths of the stems are the output.
    paths = [str(path) for path in (temporary / "stems").rglob("*.wav")]
    assert [line for line in lines[2:] if "/ffmpeg'" not in line and line not in paths] == []
    assert not done.stderr
    stems = sorted(path.name for path in (temporary / "stems").rglob("*.wav"))
    assert stems == ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]
    assert [path.name for path in home.iterdir()] == ["song.wav"]
