"""PyTorch and Open-Unmix on the same card, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from benchmarks.harness import upstream

from .context import Context
from .record import Skip

# Where PyTorch computes; tests without a card put it elsewhere.
DEVICE = "cuda"
# Arithmetic of the two libraries that PyTorch multiplies with: cuBLAS, and cuDNN for the LSTM.
ARITHMETIC = {
    "float32": (False, False),
    "TF32": (True, True),
    # What PyTorch does unless it is told otherwise.
    "defaults": (False, True),
}


def torch_on_card(context: Context) -> Any:
    """Import torch and make the card its current device.

    Raises
    ------
    Skip
        If it may not be used, is not installed, or does not see the card.
    """
    if not context.options.torch:
        raise Skip("--skip-torch")
    try:
        import torch
    except (ImportError, OSError) as error:
        raise Skip(f"torch cannot be imported ({error}): python -m pip install torch") from error
    if not torch.cuda.is_available():
        raise Skip(f"this torch ({torch.__version__}) does not see a CUDA device")
    torch.cuda.set_device(context.options.device)
    return torch


def openunmix_on_card(context: Context, *modules: str) -> SimpleNamespace:
    """Import torch and modules of openunmix.

    Raises
    ------
    Skip
        If that cannot be.
    """
    torch_on_card(context)
    try:
        return upstream.load(*modules)
    except SystemExit as error:
        raise Skip(str(error)) from error


def mixed_precision(torch: Any, *, enabled: bool) -> Any:
    """Context in which torch multiplies in bfloat16 where it thinks that right."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=enabled)


def to_card(value: Any) -> Any:
    """Move a tensor or a module of torch to the card."""
    return value.to(DEVICE)


@contextmanager
def arithmetic(torch: Any, name: str) -> Iterator[None]:
    """Let torch multiply in some arithmetic of `ARITHMETIC`."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    matmul, cudnn = ARITHMETIC[name]
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
