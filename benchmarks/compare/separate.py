"""Separate an array of audio with umx_np and with PyTorch's Open-Unmix.

Same weights (random ones in the architecture of a published model), same audio, same threads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import audio as sound
from benchmarks.harness import results, upstream
from benchmarks.harness.agreement import require
from benchmarks.harness.threads import limited
from benchmarks.harness.timing import Case, interleave

# 127 dB on music. Upstream's filter computes in float32 and loses digits on mixtures near mono,
# which must not make the benchmark fail for another recording.
_AT_LEAST_DB = {"full": 80.0, "fast": 30.0, "int8": 12.0}


def options() -> argparse.Namespace:
    """Command line."""
    parser = results.model_parser(__doc__, ("umxhq", "umxl", "umx", "umxse"))
    parser.add_argument("--niter", type=int, default=1, help="EM iterations (default: 1)")
    return parser.parse_args()


def main() -> None:
    """Compare outputs, then time."""
    args = options()
    import umx_np
    from umx_np.testing import random_bundle

    up = upstream.load("model")
    bundle = random_bundle(args.model, seed=args.seed)
    audio, description = sound.material(args.seconds, int(bundle.sample_rate), bundle.nb_channels)
    report = results.Report(
        "separate",
        args.threads,
        {
            "model": args.model,
            "niter": args.niter,
            "precision": args.precision,
            "seconds": args.seconds,
            "repeats": args.repeats,
            "weights": bundle.name,
            "seed": args.seed,
            "audio": description,
        },
    )
    ours = umx_np.Separator.from_bundle(
        bundle, niter=args.niter, threads=args.threads, precision=args.precision
    )
    theirs = upstream.separator(up, bundle, niter=args.niter)
    tensor = up.torch.from_numpy(audio[None])

    def run_ours() -> np.ndarray:
        return ours(audio[None])

    def run_theirs() -> np.ndarray:
        return theirs(tensor).numpy()

    with limited(args.threads), up.torch.inference_mode():
        actual, expected = run_ours(), run_theirs()
        for k, name in enumerate(ours.target_names):
            what = f"{name}, against openunmix in float32"
            report.agreements.append(
                require(
                    what, expected[:, k], actual[:, k], at_least_db=_AT_LEAST_DB[args.precision]
                )
            )
        del actual, expected
        cases = [Case("umx_np", run_ours), Case("openunmix", run_theirs)]
        # The comparison was the warm-up.
        times = interleave(cases, args.repeats, warmup=0)
    report.add_timings(times)
    fast = "" if args.precision == "full" else f", precision={args.precision}"
    channels = "stereo" if bundle.nb_channels == 2 else "mono"
    report.add_row(
        f"separate {args.seconds:g} s {channels}, {args.model}, niter={args.niter}{fast}",
        "s",
        times["umx_np"],
        peer="openunmix (torch)",
        theirs=times["openunmix"],
        headline=True,
    )
    report.details["times_real_time"] = {
        name: args.seconds / timing.median for name, timing in times.items()
    }
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
