"""Backward passes of the transforms and of the Wiener filter; docs/end-to-end.md derives them.

Every function returns the product of a gradient with the Jacobian of its forward twin. Numbers in
brackets are the equations of the document. The gradient of a real loss L with respect to a complex
number z is kept as ``dL/dRe(z) + i dL/dIm(z)``, as PyTorch keeps it, so that
``dL = Re(sum(conj(d_z) * dz))`` (1).
"""

from __future__ import annotations

from .filter import wiener_backward, wiener_magnitudes_backward
from .transforms import istft_backward, magnitude_backward, stft_backward

__all__ = [
    "istft_backward",
    "magnitude_backward",
    "stft_backward",
    "wiener_backward",
    "wiener_magnitudes_backward",
]
