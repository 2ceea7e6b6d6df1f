"""Filter one window of frames: umx_np, PyTorch's Open-Unmix and norbert.

umx_np is timed as its separator calls the filter, on spectra in its own layout, and once more
through the public function `umx_np.wiener`, which takes and gives the layout of the others and
copies for that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import audio as sound
from benchmarks.harness import results, upstream
from benchmarks.harness.agreement import BenchmarkError, require
from benchmarks.harness.threads import limited
from benchmarks.harness.timing import Case, interleave

# Against norbert, in double precision (152 dB on music: single precision stored), and against
# Open-Unmix in single precision (134 dB), which loses digits on mixtures near mono.
_AT_LEAST_DB = {"norbert": 130.0, "openunmix": 80.0}


def options() -> argparse.Namespace:
    """Command line."""
    parser = results.parser(__doc__, repeats=10)
    parser.add_argument("--frames", type=results.positive, default=300, help="(default: 300)")
    parser.add_argument("--niter", type=results.positive, default=1, help="(default: 1)")
    return parser.parse_args()


def window(nb_frames: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Spectra of a mixture and magnitudes of four sources, made with random masks.

    Returns
    -------
    mix : complex64 ndarray [shape=(nb_channels, nb_frames, nb_bins)]
    mags : float32 ndarray [shape=(nb_targets, nb_frames, nb_channels, nb_bins)]
    description : str
        What the mixture is.
    """
    import umx_np

    audio, description = sound.material((nb_frames + 4) * 1024 / 44100, 44100)
    mix = umx_np.stft(audio)[:, :, :nb_frames].transpose(0, 2, 1)
    masks = np.random.default_rng(0).uniform(0.0, 0.5, (4, nb_frames, 2, mix.shape[2]))
    mags = np.abs(mix).transpose(1, 0, 2) * masks
    return np.ascontiguousarray(mix), mags.astype(np.float32), description


def main() -> None:
    """Compare outputs, then time."""
    args = options()
    import umx_np
    from umx_np.backends.contracts import DEFAULT_EPS, FilterInput, WienerOptions, scale_of
    from umx_np.devices import get_backend

    up = upstream.load("filtering")
    torch = up.torch
    try:
        import norbert
    except ImportError as error:
        raise BenchmarkError(
            f"norbert is needed: python -m pip install norbert ({error})"
        ) from error
    mix, mags, description = window(args.frames)
    report = results.Report(
        "wiener",
        args.threads,
        {
            "niter": args.niter,
            "nb_frames": args.frames,
            "nb_bins": mix.shape[2],
            "nb_channels": 2,
            "nb_sources": len(mags),
            "repeats": args.repeats,
            "audio": description,
        },
    )
    ops = get_backend("cpu", args.threads)
    # What a separator has at this point anyway, for its networks.
    mix_mags = np.abs(mix)
    # (nb_frames, nb_bins, nb_channels[, nb_targets]), the layout of the others
    mix_theirs = np.ascontiguousarray(mix.transpose(1, 2, 0))
    mags_theirs = np.ascontiguousarray(mags.transpose(1, 3, 2, 0))
    mix_torch = torch.view_as_real(torch.from_numpy(mix_theirs)).clone()
    mags_torch = torch.from_numpy(mags_theirs)
    mix_wide, mags_wide = mix_theirs.astype(np.complex128), mags_theirs.astype(np.float64)

    # The engine filters every window into the same memory.
    estimates = np.empty((len(mags), *mix.shape), np.complex64)

    def run_ours() -> np.ndarray:
        given = FilterInput(mix, mags, scale_of(float(mix_mags.max())))
        return ops.wiener(WienerOptions()).window(given, args.niter, estimates)

    def run_public() -> np.ndarray:
        return umx_np.wiener(mags_theirs, mix_theirs, args.niter, device=ops)

    def run_torch(mix_copy: object) -> object:
        return up.filtering.wiener(mags_torch, mix_copy, iterations=args.niter)

    def run_norbert(mix_copy: np.ndarray) -> np.ndarray:
        # The eps of Open-Unmix; norbert's own would give another result.
        return norbert.wiener(
            mags_wide, mix_copy, iterations=args.niter, use_softmask=False, eps=DEFAULT_EPS
        )

    with limited(args.threads), torch.inference_mode():
        # Both of the others may change the mixture that they are given.
        expected = run_norbert(mix_wide.copy())
        pairs = run_torch(mix_torch.clone()).movedim(3, -1).contiguous()
        single = torch.view_as_complex(pairs).numpy()
        ours, public = run_ours().transpose(2, 3, 1, 0), run_public()
        for what, one, other, bound in (
            ("umx_np, against norbert in complex128", expected, ours, "norbert"),
            ("umx_np.wiener, against norbert in complex128", expected, public, "norbert"),
            ("umx_np, against openunmix in float32", single, ours, "openunmix"),
        ):
            report.agreements.append(require(what, one, other, at_least_db=_AT_LEAST_DB[bound]))
        del expected, pairs, single, ours, public
        times = interleave(
            [
                Case("umx_np", run_ours),
                Case("umx_np.wiener", run_public),
                Case("openunmix", run_torch, lambda: (mix_torch.clone(),)),
                Case("norbert", run_norbert, lambda: (mix_wide.copy(),)),
            ],
            args.repeats,
        )
    report.add_timings(times)
    figure = f"Wiener filter, niter={args.niter}, {args.frames} frames, {len(mags)} sources, stereo"
    labels = {"openunmix": "openunmix (torch, float32)", "norbert": "norbert (complex128)"}
    for peer, label in labels.items():
        report.add_row(figure, "ms", times["umx_np"], peer=label, theirs=times[peer], headline=True)
    report.add_row(
        f"{figure}; through `umx_np.wiener`",
        "ms",
        times["umx_np.wiener"],
        peer=labels["openunmix"],
        theirs=times["openunmix"],
        brief=False,
    )
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
