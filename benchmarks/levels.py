"""How a model separates music that is softer or louder than what it was trained on.

    python -m benchmarks.levels --json benchmarks/results/levels/umxm.json
    python -m benchmarks.levels --references FOLDER

For each level, the whole song is scaled to it; then again with the middle third of it softer than
the rest, which is what a soft passage in a loud song is. Scores are medians of the SDR in dB over
the seconds, as everywhere; those of the passage leave out the first second after a change.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import umx_np
from umx_np.audio import read

from .harness.environment import source

ROOT = Path(__file__).resolve().parents[1]
SCALES = (0, -10, -20, -30, -40, -50, 6, 20)
STEPS = (-10, -20, -30, -40, -50)

Stems = dict[str, np.ndarray]
Scores = dict[str, float]


def load(references: Path) -> tuple[Stems, float]:
    """The true stems in a folder, of one rate and length; the song is their sum."""
    stems, rate = {}, 0.0
    for path in sorted(references.iterdir()):
        stems[path.stem], rate = read(path)
    return stems, rate


def sdr(stems: Stems, estimates: Stems, rate: float, seconds: range | None = None) -> Scores:
    """Median over the seconds of each stem, in dB."""
    scores = {}
    for name, truth in stems.items():
        second = round(rate)
        ratios = []
        for k in seconds or range(truth.shape[1] // second):
            part = np.s_[:, k * second : (k + 1) * second]
            true = truth[part].astype(np.float64)
            error = true - estimates[name][part]
            if true.any() and error.any():
                ratios.append(10 * np.log10(np.sum(true**2) / np.sum(error**2)))
        scores[name] = round(float(np.median(ratios)), 2)
    return scores


def scaled(stems: Stems, gain: np.ndarray | float) -> Stems:
    """Stems times a gain."""
    return {name: (stem * gain).astype(np.float32) for name, stem in stems.items()}


def separated(separator: umx_np.Separator, stems: Stems) -> Stems:
    """Estimates of the stems from their sum."""
    mixture = np.sum(list(stems.values()), axis=0)
    return {name: stem[0] for name, stem in separator.to_dict(separator(mixture[None])).items()}


def whole_song(separator: umx_np.Separator, stems: Stems, rate: float, scale: float) -> Scores:
    """Scores of a song that is scaled (in dB)."""
    soft = scaled(stems, 10 ** (scale / 20))
    return sdr(soft, separated(separator, soft), rate)


def passage(separator: umx_np.Separator, stems: Stems, rate: float, step: float) -> Scores:
    """Scores of the middle third of a song, which is softer than the rest (by `step` dB)."""
    length = next(iter(stems.values())).shape[1]
    seconds = int(length / rate)
    first, last = seconds // 3, seconds - seconds // 3
    gain = np.ones(length)
    # A frame of the STFT longer than what is scored, so that none reaches into the loud part.
    end = last * round(rate) + separator.config.n_fft
    gain[first * round(rate) : end] = 10 ** (step / 20)
    soft = scaled(stems, gain)
    return sdr(soft, separated(separator, soft), rate, range(first + 1, last))


def main() -> None:
    """Measure, print a table and keep it."""
    parser = argparse.ArgumentParser(description="SDR of a model by the level of the music.")
    parser.add_argument("--references", type=Path, default=ROOT / "examples" / "song")
    parser.add_argument("--model", default="umxm")
    parser.add_argument("--niter", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bundle = umx_np.load_model(options.model)
    stems, rate = load(options.references)
    separators = {
        "with": umx_np.Separator.from_bundle(bundle, niter=options.niter),
        "without": umx_np.Separator.from_bundle(
            replace(bundle, input_level=None), niter=options.niter
        ),
    }
    rows: list[dict[str, Any]] = []
    print(f"{'':28}" + "".join(f"{name:>9}" for name in stems))
    for kind, measure, levels in (("song", whole_song, SCALES), ("passage", passage, (0, *STEPS))):
        for level in levels:
            for label, separator in separators.items():
                scores = measure(separator, stems, rate, level)
                rows.append({"kind": kind, "level_db": level, "input_level": label, "sdr": scores})
                text = "".join(f"{score:9.2f}" for score in scores.values())
                print(f"{kind:8} {level:4d} dB {label:>8} {text}", flush=True)
    if options.json is not None:
        document = {
            "benchmark": "levels",
            "model": options.model,
            "niter": options.niter,
            "references": options.references.name,
            "source": source(),
            "rows": rows,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
