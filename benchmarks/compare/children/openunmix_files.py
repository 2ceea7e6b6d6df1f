"""A sound file to stems with PyTorch's Open-Unmix, as its own command ``umx`` does it.

The command itself reads and writes through torchaudio, which there is not for every torch. Here it
is soundfile, which takes no longer and no more memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import soundfile

from benchmarks.harness import upstream


def main() -> None:
    """Separate one file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("song", type=Path)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--targets", nargs="+", required=True)
    arguments.add_argument("--outdir", type=Path, required=True)
    arguments.add_argument("--niter", type=int, default=1)
    arguments.add_argument("--threads", type=int, required=True)
    args = arguments.parse_args()

    up = upstream.load("predict", "utils")
    up.torch.set_num_threads(args.threads)
    separator = up.utils.load_separator(
        model_str_or_path=str(args.model),
        targets=args.targets,
        niter=args.niter,
        device="cpu",
        pretrained=True,
    )
    separator.freeze()
    samples, rate = soundfile.read(args.song, dtype="float32", always_2d=True)
    audio = up.torch.from_numpy(samples.T)
    with up.torch.inference_mode():
        estimates = up.predict.separate(audio=audio, rate=rate, separator=separator, device="cpu")
    folder = args.outdir / args.song.stem
    folder.mkdir(parents=True, exist_ok=True)
    for name, estimate in estimates.items():
        soundfile.write(folder / f"{name}.wav", estimate[0].numpy().T, rate, subtype="PCM_16")


if __name__ == "__main__":
    main()
