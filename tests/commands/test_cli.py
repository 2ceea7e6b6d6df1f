"""The command itself, and the subcommands that separate nothing."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers.documents import ROOT

import umx_np.pretrained
from umx_np import __version__, weights
from umx_np.commands import COMMANDS
from umx_np.commands.completion import SHELLS
from umx_np.commands.frame import format_size, table


def test_version(run):
    assert run("--version").out == f"umx-np {__version__}\n"
    command = [sys.executable, "-m", "umx_np", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        f"umx-np {__version__}\n"
    )


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_parser_needs_nothing_heavy(name):
    program = "import sys, umx_np.commands as c; c.build_parser(sys.argv[1]); print(*sys.modules)"
    command = [sys.executable, "-c", program, name]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "soundfile", "soxr", "tqdm", "platformdirs", "requests", "safetensors"}
    assert not heavy.intersection(loaded)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(run, command):
    result = run(command, "--help")
    assert result.status == 0
    assert f"umx-np {command}" in result.out


def test_a_command_is_needed(run):
    assert run().status == 2
    assert run("sing").status == 2


def test_logging_is_put_back(run):
    logger = logging.getLogger("umx_np")
    before = (logger.level, logger.propagate, list(logger.handlers))
    run("models", "--verbose")
    assert (logger.level, logger.propagate, logger.handlers) == before


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.usefixtures("empty_cache")
def test_models(run):
    lines = run("models").out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "name", "umxm", "umx", "umxhq", "umxl", "umxse", "1)", "2)",
    ]  # fmt: skip
    assert "CC BY-NC-SA 4.0" in lines[4]
    assert "vocals 7.21, drums 7.15, bass 6.02, other 4.89 2)" in lines[4]
    assert "speech noise: no figures" in lines[5]
    assert "ATTRIBUTION.md" in lines[6]
    assert "MUSDB18" in lines[7]
    models = {model["name"]: model for model in json.loads(run("models", "--json").out)}
    assert models["umxl"]["non_commercial"] is True
    assert models["umxl"]["hidden_size"] == 1024
    assert models["umxse"]["targets"] == ["speech", "noise"]
    assert models["umxhq"]["cached_targets"] == []
    assert [name for name, model in models.items() if model["bundled"]] == ["umxm"]
    assert models["umxm"]["bytes"] < 25e6
    assert all(model["advice"] for model in models.values())
    for model in models.values():
        assert bool(model["sdr"]) == bool(model["sdr_source"])


def test_scores_are_those_of_the_documents():
    """The guide has the published figures, and the model that is included its own."""
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    attribution = (ROOT / "umx_np/assets/umxm/ATTRIBUTION.md").read_text(encoding="utf-8")
    for name, info in umx_np.pretrained.registry().items():
        numbers = [info.sdr.get(target) for target in info.targets]
        if name == "umxm":
            row = next(line for line in attribution.splitlines() if "six seconds" in line)
            stems = ("drums", "bass", "other", "vocals")
            assert re.findall(r"([\d.]+) \(", row)[-4:] == [f"{info.sdr[s]:.2f}" for s in stems]
        elif info.sdr:
            row = next(line for line in guide.splitlines() if line.startswith(f"| `{name}` |"))
            assert ", ".join(f"{number:.2f}" for number in numbers) in row


def test_models_that_are_here(run, monkeypatch, tmp_path):
    from umx_np.errors import DownloadError

    def download(name, targets=None, *, offline=False, **options):
        assert offline
        if name != "umxhq" and targets != ["bass"]:
            raise DownloadError("not here")
        return {}

    monkeypatch.setattr(umx_np.pretrained, "download", download)
    lines = run("models").out.splitlines()
    assert [line.split()[-1] for line in lines[1:6]] == ["bass", "bass", "yes", "bass", "no"]


@pytest.mark.usefixtures("empty_cache")
def test_download(run, monkeypatch, tmp_path):
    result = run("download", "umxl", "--offline")
    assert result.status == 1
    assert result.err.startswith("umxl: licence CC BY-NC-SA 4.0; see https://")
    assert "umx-np: error: vocals-bccbd9aa.pth" in result.err
    calls = []

    def download(name, targets=None, *, offline=False, progress=None):
        calls.append((name, targets, offline, progress))
        return {"bass": tmp_path / "bass.pth"}

    monkeypatch.setattr(umx_np.pretrained, "download", download)
    result = run("download", "umx", "umxhq", "--targets", "bass", "--quiet")
    assert (result.status, result.err) == (0, "")
    assert calls == [(name, ["bass"], False, False) for name in ("umx", "umxhq")]
    assert result.out == f"{tmp_path / 'bass.pth'}\n" * 2
    # Names are checked before anything is downloaded.
    result = run("download", "umx", "nonsense")
    assert result.status == 1
    assert "model='nonsense' is not known" in result.err
    assert len(calls) == 2


def test_convert(run, monkeypatch, tmp_path):
    calls = []

    def convert(src, dst, **options):
        calls.append((src, dst, options))
        (tmp_path / "b.safetensors").write_bytes(bytes(1234567))
        return [tmp_path / "b.safetensors"]

    monkeypatch.setattr(weights, "convert", convert)
    result = run("convert", "a.pth", "b.safetensors", "--dtype", "float16", "--overwrite")
    assert result.status == 0, result.err
    assert result.out == f"{tmp_path / 'b.safetensors'} (1.23 MB)\n"
    options = {"dtype": "float16", "format": None, "overwrite": True}
    assert calls == [("a.pth", "b.safetensors", options)]


def test_errors_of_the_system_have_no_traceback(run, monkeypatch, tmp_path):
    def convert(*args, **options):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(weights, "convert", convert)
    result = run("convert", "a.pth", "b.safetensors")
    assert result.status == 1
    assert result.err == f"umx-np: error: [Errno 28] No space left on device: {str(tmp_path)!r}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
@pytest.mark.parametrize("command", ["models", "info"])
def test_a_pipe_that_is_closed(command):
    program = [sys.executable, "-m", "umx_np", command]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_convert_what_is_not_there(run, tmp_path):
    result = run("convert", tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert result.status == 1
    assert "umx-np: error: src=" in result.err


@pytest.mark.usefixtures("empty_cache")
def test_info(run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    report = json.loads(run("info", "--json").out)
    assert report["umx_np"] == __version__
    assert report["packages"]["numpy"] == np.__version__
    assert report["environment"]["OMP_NUM_THREADS"] == "3"
    assert report["cpu"]["name"]
    assert report["cpu"]["usable_cores"] >= 1
    assert report["model_cache"]["files"] == 0
    names = {device["name"]: device for device in report["devices"]}
    assert names["reference"]["available"]
    for device in report["devices"]:
        assert device["available"] or device["reason"]
    text = run("info").out
    for word in (__version__, np.__version__, "libsndfile", "kernels", "device reference"):
        assert word in text


def test_info_of_a_broken_installation(run, monkeypatch):
    from umx_np.backends import cpu
    from umx_np.errors import DeviceError

    def fail():
        raise DeviceError("UMX_NP_ISA='x' cannot run on this processor")

    monkeypatch.setattr(cpu, "describe", fail)
    monkeypatch.setattr("shutil.which", lambda name: None)
    result = run("info")
    assert result.status == 0
    assert "not usable: UMX_NP_ISA='x'" in result.out
    assert "ffmpeg" in result.out
    assert "not found" in result.out


def test_info_does_not_import_optional_packages():
    program = "import sys; from umx_np.commands import main; main(['info']); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = run.stdout.splitlines()[-1].split()
    assert not {"torch", "numba", "cupy", "musdb"}.intersection(loaded)


@pytest.mark.parametrize(
    ("nb_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (142293568, "142 MB"), (5e12, "5e+03 GB")],
)
def test_format_size(nb_bytes, text):
    assert format_size(nb_bytes) == text


def test_table():
    assert table([["a", "bb"], ["ccc", ""]]) == "a    bb\nccc"


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(run, shell):
    pytest.importorskip("shtab", reason="needs the extra completion")
    result = run("completion", shell)
    assert result.status == 0, result.err
    assert "umx-np" in result.out
    assert "two-stems" in result.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_a_shell(run, tmp_path, monkeypatch):
    """Options, and names of songs."""
    pytest.importorskip("shtab", reason="needs the extra completion")
    (tmp_path / "song one.mp3").touch()
    (tmp_path / "script").write_text(run("completion", "bash").out)
    words = [("umx-np separate --two", "--two-stems"), ("umx-np separate so", "song one.mp3")]
    for line, expected in words:
        *before, last = line.split()
        program = f"""
. ./script
COMP_WORDS=({line}); COMP_CWORD={len(before)}; COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}
_shtab_umx_np umx-np {last} {before[-1]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        done = subprocess.run(
            ["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == [expected], done.stderr


def test_completion_without_its_package(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    result = run("completion", "bash")
    assert result.status == 1
    assert "needs the package shtab; install the extra completion" in result.err
