"""A sound file to stems with umx_np."""

from __future__ import annotations

import argparse
from pathlib import Path

import umx_np


def main() -> None:
    """Separate one file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("song", type=Path)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--outdir", type=Path, required=True)
    arguments.add_argument("--niter", type=int, default=1)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--max-memory", type=int, help="bytes")
    args = arguments.parse_args()
    options = {} if args.max_memory is None else {"max_memory": args.max_memory}
    umx_np.separate_file(
        args.song, args.outdir, model=args.model, niter=args.niter, threads=args.threads, **options
    )


if __name__ == "__main__":
    main()
