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

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .dsp.stft import istft, stft
    from .dsp.wiener import expectation_maximization, wiener
    from .errors import UmxError
    from .network.openunmix import OpenUnmix
    from .pretrained.loading import load_model
    from .separation.arrays import separate
    from .separation.files import separate_file
    from .separation.models import (
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
    from .separation.separator import Separator

_HOMES = {
    "OpenUnmix": "network.openunmix",
    "Separator": "separation.separator",
    "UmxError": "errors",
    "expectation_maximization": "dsp.wiener",
    "istft": "dsp.stft",
    "load_model": "pretrained.loading",
    "separate": "separation.arrays",
    "separate_file": "separation.files",
    "stft": "dsp.stft",
    "umx": "separation.models",
    "umx_spec": "separation.models",
    "umxhq": "separation.models",
    "umxhq_spec": "separation.models",
    "umxl": "separation.models",
    "umxl_spec": "separation.models",
    "umxm": "separation.models",
    "umxm_spec": "separation.models",
    "umxse": "separation.models",
    "umxse_spec": "separation.models",
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
