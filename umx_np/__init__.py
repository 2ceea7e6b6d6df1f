"""Open-Unmix music source separation without a deep-learning framework.

    import umx_np
    stems = umx_np.separate(audio, rate=44100)           # {"vocals": ..., "drums": ..., ...}
    umx_np.separate_file("song.flac", "stems")           # files, in bounded memory

Public names are imported when they are first used: ``import umx_np`` alone imports nothing but the
standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .arrays import separate
    from .dsp.stft import istft, stft
    from .dsp.wiener import expectation_maximization, wiener
    from .errors import UmxError
    from .files import separate_file
    from .model import OpenUnmix
    from .models import (
        umx,
        umx_spec,
        umxhq,
        umxhq_spec,
        umxl,
        umxl_spec,
        umxm,
        umxm_spec,
        umxse,
        umxse_spec,
    )
    from .pretrained import load_model
    from .separator import Separator

_HOMES = {
    "OpenUnmix": "model",
    "Separator": "separator",
    "UmxError": "errors",
    "expectation_maximization": "dsp.wiener",
    "istft": "dsp.stft",
    "load_model": "pretrained",
    "separate": "arrays",
    "separate_file": "files",
    "stft": "dsp.stft",
    "umx": "models",
    "umx_spec": "models",
    "umxhq": "models",
    "umxhq_spec": "models",
    "umxl": "models",
    "umxl_spec": "models",
    "umxm": "models",
    "umxm_spec": "models",
    "umxse": "models",
    "umxse_spec": "models",
    "wiener": "dsp.wiener",
}
_MODULES = (
    *("audio", "data", "errors", "evaluation", "nn", "optim", "plots", "pretrained", "testing"),
    *("training", "weights"),
)

__all__ = [
    "OpenUnmix",
    "Separator",
    "UmxError",
    "__version__",
    "expectation_maximization",
    "istft",
    "load_model",
    "separate",
    "separate_file",
    "stft",
    "umx",
    "umx_spec",
    "umxhq",
    "umxhq_spec",
    "umxl",
    "umxl_spec",
    "umxm",
    "umxm_spec",
    "umxse",
    "umxse_spec",
    "wiener",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
