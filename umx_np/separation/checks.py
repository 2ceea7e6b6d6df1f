"""What a separator is given: arrays of samples, and networks whose stages it runs itself."""

from __future__ import annotations

import os

import numpy as np

from ..config import check_array
from ..errors import ConfigError, ShapeError, shortened
from ..network.openunmix import OpenUnmix


def check_samples(name: str, audio: object) -> np.ndarray:
    """Return an array of samples; of what is none, say what to do with it.

    Raises
    ------
    ShapeError
        If it is the name of a file, a file object, the pair that `umx_np.audio.read` returns, or
        holds no numbers.
    """
    is_file = hasattr(audio, "read") and not hasattr(audio, "shape")
    if is_file or isinstance(audio, (str, bytes, os.PathLike)):
        raise ShapeError(
            f"{name}={shortened(audio)} is a file and no array; separate it with "
            "umx_np.separate_file, or read it first: audio, rate = umx_np.audio.read(file)"
        )
    if isinstance(audio, tuple) and len(audio) == 2 and np.ndim(audio[1]) == 0:
        raise ShapeError(
            f"{name} is a pair of samples and their rate, as umx_np.audio.read returns it; pass "
            "them one by one: audio, rate = umx_np.audio.read(file), then separate(audio, rate)"
        )
    return check_array(name, audio)


def check_model(target: str, model: object) -> None:
    """Refuse models whose own code would not be run."""
    advice = (
        "a separator runs the stages of its networks one by one, over blocks of a track; change "
        "weights or ModelConfig instead, or call the model on magnitudes from umx_np.stft and give "
        "its result to umx_np.wiener"
    )
    if not isinstance(model, OpenUnmix):
        raise ConfigError(f"target {target!r} is a {type(model).__name__}, no OpenUnmix: {advice}")
    own = ["__call__"] if _is_overridden(model, "__call__") else []
    own += ["forward"] if hasattr(model, "forward") else []
    if own:
        raise ConfigError(
            f"target {target!r} is a {type(model).__name__} with its own {own[0]}, which would not "
            f"be called: {advice}"
        )


def _is_overridden(model: OpenUnmix, name: str) -> bool:
    return getattr(type(model), name) is not getattr(OpenUnmix, name) or name in vars(model)
