"""``umx-np convert``: weights between PyTorch files and safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from .._support.console import show
from .frame import Command, format_size


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument(
        "src", metavar="SRC", help="a .pth, .pt, .ckpt or .safetensors file, or a folder"
    )
    parser.add_argument("dst", metavar="DST", help="file to write, or folder if SRC is one")
    parser.add_argument(
        "--dtype",
        choices=("int8", "float16", "float32", "float64"),
        help="number format of the weights (default: the one they have, float32 for int8); "
        "int8: matrices of eight bits with a scale a row, in safetensors",
    )
    parser.add_argument(
        "--format",
        choices=("pth", "safetensors"),
        help="format of the files (default: the suffix of DST, or safetensors in a folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    """Convert and name the files that were written."""
    from ..weights import convert

    paths = convert(
        args.src, args.dst, dtype=args.dtype, format=args.format, overwrite=args.overwrite
    )
    if not args.quiet:
        for path in map(Path, paths):
            show(f"{path} ({format_size(path.stat().st_size)})")
    return 0


COMMAND = Command(
    "convert",
    run,
    add_options,
    help="convert weights between PyTorch files and safetensors",
    description="Convert the weights of one target, or a model folder, to another format.\n"
    "Neither direction needs PyTorch.",
)
