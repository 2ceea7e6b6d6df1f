"""A module that takes torchaudio's place while openunmix is imported.

openunmix imports torchaudio, but inference on arrays needs none of it, and torchaudio has no
build for every PyTorch. Only the names below exist: whatever else openunmix might call fails
loudly instead of computing something.
"""

from __future__ import annotations

import sys
from types import ModuleType


class Resample:
    """Refuses to work: parity is checked at the model's own rate."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError("the stand-in for torchaudio does not resample")


def install() -> None:
    """Put the stand-in on `sys.modules`, unless a torchaudio is already loaded."""
    if "torchaudio" in sys.modules:
        return
    torchaudio, transforms = ModuleType("torchaudio"), ModuleType("torchaudio.transforms")
    transforms.Resample = Resample  # type: ignore[attr-defined]
    torchaudio.transforms = transforms  # type: ignore[attr-defined]
    sys.modules["torchaudio"] = torchaudio
    sys.modules["torchaudio.transforms"] = transforms
