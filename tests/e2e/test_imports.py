"""Inference must start at once: nothing heavy is imported on its path."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numba", "scipy", "cupy", "torch", "musdb", "museval", "matplotlib", "sklearn", "pandas")

REPORT = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"


def heavy_modules_after(code: str, *arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{REPORT}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_import():
    assert heavy_modules_after("import umx_np") == []


def test_import_is_lazy():
    """The package alone does not even load its readers of sound files."""
    code = "import sys, umx_np; assert 'soundfile' not in sys.modules, 'soundfile is loaded'"
    assert heavy_modules_after(code) == []


def test_all_public_names():
    code = "import umx_np\nfor name in umx_np.__all__: getattr(umx_np, name)"
    assert heavy_modules_after(code) == []


def test_separation_of_an_array(model_folder):
    code = (
        "import sys, numpy, umx_np\n"
        "noise = numpy.random.default_rng(0).standard_normal((2, 8000)).astype('f4')\n"
        # device='auto' would look for a card, if CuPy is installed.
        "stems = umx_np.separate(noise, 44100, model=sys.argv[1], device='cpu')\n"
        "assert len(stems) == 4"
    )
    assert heavy_modules_after(code, model_folder) == []


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_command_line_help(argument):
    code = (
        "from umx_np.commands import main\n"
        "try:\n"
        f"    main([{argument!r}])\n"
        "except SystemExit as exit:\n"
        "    assert exit.code == 0"
    )
    assert heavy_modules_after(code) == []
