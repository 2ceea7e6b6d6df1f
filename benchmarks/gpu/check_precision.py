"""The section ``precision``: what TF32 changes in the stems, and in how good they are."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.threads import ROOT
from umx_np import Separator
from umx_np.weights import load_folder
from umx_np.weights.bundle import ModelBundle

from . import material
from .check_operations import backend_of
from .context import Context
from .record import Case, Recorder, Skip

# Change of the SDR of a stem, in dB.
_CHANGE = 0.01
# Relative error of a stem. Products of operands with 11 bits are 3e-4 off; a stem that is faint
# beside the mixture is further off, relative to itself.
_BOUND = 2e-2
# Order of the streams in a file of stems after the mixture.
_STREAMS = ("drums", "bass", "other", "vocals")
_SECONDS = 10.0


def cases(context: Context) -> list[Case]:
    """Cases that are compared with full precision."""
    return [Case("precision='fast'", partial(_fast, context), 120.0)]


def _fast(context: Context, recorder: Recorder) -> None:
    bundle, stems, description = _model_and_music(context)
    recorder.detail("material", description)
    mixture = np.stack(list(stems.values())).sum(axis=0, dtype=np.float32)
    estimates = {
        precision: Separator.from_bundle(bundle, device=backend_of(context, precision))(
            mixture[None]
        )[0]
        for precision in ("full", "fast")
    }
    scores: dict[str, Any] = {}
    for k, name in enumerate(bundle.targets):
        full, fast = estimates["full"][k], estimates["fast"][k]
        recorder.check(f"{name}, fast beside full", full, fast, bound=_BOUND)
        scores[name] = {"full": sdr(stems[name], full), "fast": sdr(stems[name], fast)}
        change = abs(scores[name]["fast"] - scores[name]["full"])
        recorder.at_most(f"{name}, change of the SDR", change, _CHANGE, "dB")
    recorder.detail("sdr", scores)


def sdr(true: np.ndarray, estimate: np.ndarray) -> float:
    """Median over seconds of the level of a stem over that of what is wrong with it.

    Parameters
    ----------
    true, estimate : ndarray [shape=(nb_channels, nb_timesteps)]

    Returns
    -------
    float
        In dB; seconds in which the stem is silent do not count.
    """
    ratios = []
    for start in range(0, true.shape[1], material.RATE):
        part = true[:, start : start + material.RATE].astype(np.float64)
        wrong = part - estimate[:, start : start + material.RATE]
        if np.any(part) and np.any(wrong):
            ratios.append(10.0 * np.log10(np.sum(part**2) / np.sum(wrong**2)))
    return float(np.median(ratios)) if ratios else float("nan")


def _model_and_music(context: Context) -> tuple[ModelBundle, dict[str, np.ndarray], str]:
    if context.options.small:
        bundle = material.bundle(context)
        rng = context.rng("precision")
        stems = {name: material.song(rng, 1500) for name in bundle.targets}
        return bundle, stems, "random model, noise"
    try:
        bundle = load_folder(ROOT / "umx_np" / "assets" / "umxm")
    except ImportError as error:
        raise Skip(f"umxm cannot be read ({error}): python -m pip install -e .") from error
    recorded = _recording()
    if recorded is not None:
        return bundle, recorded, "umxm, recording shipped with stempeg"
    return bundle, _synthesised(), "umxm, the synthesised song of examples/make_example.py"


def _recording() -> dict[str, np.ndarray] | None:
    """Stems of stempeg's example song, if it can be decoded."""
    if shutil.which("ffmpeg") is None:
        return None
    try:
        from stempeg import example_stem_path
    except ImportError:
        return None
    stems = {}
    for number, name in enumerate(_STREAMS, 1):
        command = ["ffmpeg", "-v", "error", "-i", example_stem_path(), "-map", f"0:{number}"]
        command += ["-t", str(_SECONDS), "-ac", "2", "-ar", str(material.RATE), "-f", "f32le", "-"]
        done = subprocess.run(command, capture_output=True, check=False)
        samples = np.frombuffer(done.stdout, dtype="<f4")
        if done.returncode or len(samples) < 2 * material.RATE:
            return None
        stems[name] = samples.reshape(-1, 2).T
    length = min(stem.shape[1] for stem in stems.values())
    return {name: np.ascontiguousarray(stem[:, :length]) for name, stem in stems.items()}


def _synthesised() -> dict[str, np.ndarray]:
    """Stems of the song of the examples."""
    path = Path(ROOT, "examples", "make_example.py")
    spec = importlib.util.spec_from_file_location("make_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: np.asarray(stem, np.float32) for name, stem in module.render().items()}
