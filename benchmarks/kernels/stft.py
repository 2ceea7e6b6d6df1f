"""Framing with FFT, and inverse FFT with overlap-add: umx_np, torch and scipy.

30 s of stereo forward, and four stereo stems of it back. The rate counts 2.5 N log2 N operations
for a real transform of N points and nothing for the rest; the ceiling is the best rate of bare
transforms of frames that lie ready in memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import audio as sound
from benchmarks.harness import results, upstream
from benchmarks.harness.agreement import BenchmarkError, require
from benchmarks.harness.threads import limited
from benchmarks.kernels import ladder

_AT_LEAST_DB = 110.0
_N_FFT, _N_HOP = 4096, 1024
_NB_STEMS = 4
# Frames that bare transforms take at a time, as umx_np does.
_FRAMES = 64


def options() -> argparse.Namespace:
    """Command line."""
    parser = ladder.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="(default: 30)")
    return parser.parse_args()


def scipy_transforms(fft: Any, threads: int, length: int) -> tuple[Callable, Callable]:
    """Transform as one would write it with scipy.fft, forward and back."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_N_FFT) / _N_FFT)).astype(np.float32)
    pad = _N_FFT // 2

    def forward(audio: np.ndarray) -> np.ndarray:
        padded = np.pad(audio, ((0, 0), (pad, pad)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT, axis=1)[:, ::_N_HOP]
        return fft.rfft(frames * window, workers=threads)

    def inverse(spectra: np.ndarray) -> np.ndarray:
        frames = fft.irfft(spectra, n=_N_FFT, workers=threads)
        frames *= window
        signals, nb_frames, _ = frames.shape
        out = np.zeros((signals, (nb_frames + _N_FFT // _N_HOP - 1) * _N_HOP), np.float32)
        envelope = np.zeros(out.shape[1], np.float32)
        for t in range(nb_frames):
            part = slice(t * _N_HOP, t * _N_HOP + _N_FFT)
            out[:, part] += frames[:, t]
            envelope[part] += window**2
        inner = slice(pad, pad + length)
        return out[:, inner] / envelope[inner]

    return forward, inverse


def ceiling_of(
    runs: dict[str, Callable[[np.ndarray], object]], blocks: np.ndarray, threads: int, repeats: int
) -> float:
    """Least seconds that bare transforms of all blocks take on some threads."""
    with ThreadPoolExecutor(threads) as pool:
        everything = {
            name: lambda run=run: list(pool.map(run, blocks)) for name, run in runs.items()
        }
        return ladder.best_of(everything, repeats)


def blocks_of(frames: np.ndarray) -> np.ndarray:
    """Whole blocks of rows; of fewer rows than a block, one smaller block."""
    size = min(_FRAMES, len(frames))
    count = len(frames) // size
    return frames[: count * size].reshape(count, size, -1)


def main() -> None:
    """Measure the ceilings, then compare."""
    args = options()
    torch = upstream.load().torch
    try:
        from scipy import fft
    except ImportError as error:
        raise BenchmarkError(f"scipy is needed: python -m pip install scipy ({error})") from error
    import umx_np
    from umx_np.devices import get_backend

    audio, description = sound.material(args.seconds, 44100)
    length = audio.shape[1]
    stems = np.concatenate([audio * gain for gain in np.linspace(0.1, 0.4, _NB_STEMS)])
    report = results.Report(
        "kernel_stft",
        args.threads,
        {
            "n_fft": _N_FFT,
            "n_hop": _N_HOP,
            "seconds": args.seconds,
            "repeats": args.repeats,
            "audio": description,
        },
    )
    hann = torch.hann_window(_N_FFT)
    signal, torch_options = torch.from_numpy(audio), {"n_fft": _N_FFT, "hop_length": _N_HOP}
    # (signals, nb_bins, nb_frames) as a view of (signals, nb_frames, nb_bins), for everybody
    spectra = umx_np.stft(stems.astype(np.float32))
    rows = spectra.swapaxes(1, 2)
    tensor = torch.from_numpy(rows).swapaxes(1, 2)
    for threads in ladder.thread_counts(args.threads):
        ops = get_backend("cpu", threads)
        scipy_forward, scipy_inverse = scipy_transforms(fft, threads, length)
        forward: dict[str, Callable[[], Any]] = {
            "umx_np": lambda ops=ops: umx_np.stft(audio, device=ops),
            "torch.stft": lambda: torch.stft(
                signal, **torch_options, window=hann, return_complex=True
            ).numpy(),
            "scipy.fft": lambda run=scipy_forward: run(audio).swapaxes(1, 2),
        }
        inverse: dict[str, Callable[[], Any]] = {
            "umx_np": lambda ops=ops: umx_np.istft(spectra, length=length, device=ops),
            "torch.istft": lambda: torch.istft(
                tensor, **torch_options, window=hann, length=length
            ).numpy(),
            "scipy.fft": lambda run=scipy_inverse: run(rows),
        }
        with limited(threads), torch.inference_mode():
            frames = np.random.default_rng(0).standard_normal((2 * rows.shape[1], _N_FFT))
            ready = blocks_of(frames.astype(np.float32))
            bare = {"numpy": np.fft.rfft, "scipy": fft.rfft}
            back = {"numpy": np.fft.irfft, "scipy": fft.irfft}
            for name, runs, transforms, signals, blocks in (
                (f"STFT, {args.seconds:g} s stereo", forward, bare, 2, ready),
                (f"inverse STFT, {_NB_STEMS} stems", inverse, back, 2 * _NB_STEMS, fft.rfft(ready)),
            ):
                operations = 2.5 * _N_FFT * np.log2(_N_FFT)
                seconds = ceiling_of(transforms, blocks, threads, args.repeats)
                ceiling = blocks.shape[0] * blocks.shape[1] * operations / seconds / 1e9
                expected = runs[next(key for key in runs if key.startswith("torch"))]()
                for variant, run in runs.items():
                    what = f"{name}, {variant}, {threads} threads, against torch"
                    found = require(what, expected, run(), at_least_db=_AT_LEAST_DB)
                    report.agreements.append(found)
                for variant, taken in ladder.fastest(runs, args.repeats).items():
                    report.add_rung(
                        name,
                        variant,
                        threads,
                        1e3 * taken,
                        rate=signals * rows.shape[1] * operations / taken / 1e9,
                        unit="GFLOP/s",
                        ceiling=ceiling,
                        chosen=variant == "umx_np",
                    )
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
