"""Run one target's network on a spectrogram: umx_np, torch and ONNX Runtime.

Each gets the magnitudes in the memory layout that suits it best: frames outside, bins inside. With
``--precision int8`` all three compute in eight bits: torch and ONNX Runtime by their dynamic
quantisation of the LSTM and the linear layers, after a look at whether these were really replaced.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.compare import onnx_network
from benchmarks.harness import audio as sound
from benchmarks.harness import results, upstream
from benchmarks.harness.agreement import BenchmarkError, require
from benchmarks.harness.threads import limited
from benchmarks.harness.timing import Case, interleave

# Three float32 implementations of the same sums; they agree to 127 dB.
_AT_LEAST_DB = {"full": 100.0, "fast": 30.0, "int8": 12.0}


def options() -> argparse.Namespace:
    """Command line."""
    return results.model_parser(__doc__, ("umxhq", "umxl", "umx"), repeats=15).parse_args()


def main() -> None:
    """Compare outputs, then time."""
    args = options()
    import umx_np
    from umx_np.devices import get_backend
    from umx_np.testing import random_bundle

    up = upstream.load("model")
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        needed = "python -m pip install onnx onnxruntime"
        raise BenchmarkError(f"ONNX Runtime is needed ({error}): {needed}") from error
    bundle = random_bundle(args.model, seed=args.seed, targets=["vocals"])
    weights = bundle.targets["vocals"]
    audio, description = sound.material(args.seconds, int(bundle.sample_rate))
    spectrum = umx_np.stft(audio, bundle.n_fft, bundle.n_hop)
    # (nb_frames, nb_channels, nb_bins)
    mags = np.ascontiguousarray(np.abs(spectrum).transpose(2, 0, 1))
    report = results.Report(
        "network",
        args.threads,
        {
            "model": args.model,
            "precision": args.precision,
            "seconds": args.seconds,
            "nb_frames": len(mags),
            "repeats": args.repeats,
            "weights": bundle.name,
            "seed": args.seed,
            "audio": description,
            "onnx": f"graph of umx_np.export, onnx {onnx.__version__}",
        },
    )
    ours = umx_np.OpenUnmix.from_weights(
        weights, device=get_backend("cpu", args.threads, args.precision)
    )
    exact = upstream.network(up, weights)
    in_eight_bits = args.precision == "int8"
    theirs = upstream.quantized(up, exact) if in_eight_bits else exact
    session = onnx_network.session(weights, args.threads, in_eight_bits=in_eight_bits)
    frames = mags[:, None]  # (nb_frames, nb_samples, nb_channels, nb_bins)
    tensor = up.torch.from_numpy(frames).permute(1, 2, 3, 0)

    def run_ours() -> np.ndarray:
        return ours(frames, layout="frames")[:, 0]

    def run_torch() -> np.ndarray:
        return theirs(tensor)[0].permute(2, 0, 1).numpy()

    def run_onnx() -> np.ndarray:
        return session.run(None, {"mags": mags})[0]

    with limited(args.threads), up.torch.inference_mode():
        expected = exact(tensor)[0].permute(2, 0, 1).numpy()
        peers_precision = "int8" if in_eight_bits else "full"
        for what, run, precision in (
            ("umx_np", run_ours, args.precision),
            ("torch", run_torch, peers_precision),
            ("onnxruntime", run_onnx, peers_precision),
        ):
            bound = _AT_LEAST_DB[precision]
            report.agreements.append(
                require(f"{what}, against torch in float32", expected, run(), at_least_db=bound)
            )
        del expected
        cases = [
            Case("umx_np", run_ours),
            Case("torch", run_torch),
            Case("onnxruntime", run_onnx),
        ]
        times = interleave(cases, args.repeats)
    report.add_timings(times)
    fast = "" if args.precision == "full" else f", precision={args.precision}"
    for peer, label in (
        ("torch", "torch" + ", int8" * in_eight_bits),
        ("onnxruntime", f"onnxruntime {onnxruntime.__version__}" + ", int8" * in_eight_bits),
    ):
        report.add_row(
            f"one network, {args.seconds:g} s stereo, {args.model}{fast}",
            "s",
            times["umx_np"],
            peer=label,
            theirs=times[peer],
            headline=True,
        )
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
