"""``umx-np convert``: weights between PyTorch files and safetensors, and to ONNX."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .._support.console import show
from ..errors import ConfigError
from .frame import Command, format_size


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument(
        "src",
        metavar="SRC",
        help="a .pth, .pt, .ckpt or .safetensors file, or a folder; for ONNX also the name of a "
        "model",
    )
    parser.add_argument(
        "dst",
        metavar="DST",
        help="file to write, or folder if SRC is one; with the suffix .onnx a graph of the "
        "network, or of all targets",
    )
    parser.add_argument(
        "--dtype",
        choices=("int8", "float16", "float32", "float64"),
        help="number format of the weights (default: the one they have, float32 for int8 and in "
        "ONNX); int8: matrices of eight bits with a scale a row, in safetensors and ONNX",
    )
    parser.add_argument(
        "--format",
        choices=("pth", "safetensors"),
        help="format of the files (default: the suffix of DST, or safetensors in a folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    """Convert and name the files that were written."""
    if args.dst.lower().endswith(".onnx"):
        paths = [_export(args)]
    else:
        from ..weights import convert

        paths = convert(
            args.src, args.dst, dtype=args.dtype, format=args.format, overwrite=args.overwrite
        )
    if not args.quiet:
        for path in map(Path, paths):
            show(f"{path} ({format_size(path.stat().st_size)})")
    return 0


def _export(args: argparse.Namespace) -> Path:
    """Write a graph of a network in a file, or of a model."""
    from ..export import save_onnx
    from ..pretrained import load_model
    from ..weights import ModelBundle, TargetWeights
    from ..weights.conversion import load_network

    if args.format is not None:
        raise ConfigError(f"format={args.format!r} contradicts the suffix of dst={args.dst!r}")
    source = os.path.expanduser(args.src)
    model: ModelBundle | TargetWeights
    model = load_network(source) if os.path.isfile(source) else load_model(args.src)
    dtype = args.dtype or "float32"
    return save_onnx(model, args.dst, dtype=dtype, overwrite=args.overwrite)


COMMAND = Command(
    "convert",
    run,
    add_options,
    help="convert weights between PyTorch files and safetensors, and to ONNX",
    description="Convert the weights of one target, or a model folder, to another format.\n"
    "No direction needs PyTorch; ONNX needs the extra 'onnx'.",
)
