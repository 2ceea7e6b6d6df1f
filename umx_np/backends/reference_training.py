"""Training in plain NumPy: the specification of the other training backends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..config import ModelConfig
from ..errors import ConfigError
from .reference_engine import ReferenceEngine
from .tensors import HostMemory
from .updates import adam_update, sgd_update


class ReferenceTraining:
    """See `umx_np.backends.training.TrainingBackend`; BLAS may divide its products."""

    name = separates_on = "reference"
    threads = 1
    side_by_side = False
    memory = HostMemory()
    offload = None
    adam_update: Callable[..., None] = staticmethod(adam_update)
    sgd_update: Callable[..., None] = staticmethod(sgd_update)

    def __repr__(self) -> str:
        return "reference (NumPy)"

    def engine(
        self, config: ModelConfig, dtype: np.dtype, *, amp: bool = False, tf32: bool = False
    ) -> ReferenceEngine:
        self.check_products(amp=amp, tf32=tf32)
        return ReferenceEngine(config)

    def check_products(self, *, amp: bool, tf32: bool) -> None:
        if amp or tf32:
            raise ConfigError(f"amp={amp}, tf32={tf32}: backend='reference' has neither")

    def has_transform(self, n_fft: int, dtype: np.dtype) -> bool:
        return False

    def magnitudes(
        self, audio: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray
    ) -> None:
        frames = np.lib.stride_tricks.sliding_window_view(audio, len(window), axis=-1)
        spectra = np.fft.rfft(frames[..., ::n_hop, :] * window)
        out[...] = np.abs(spectra).transpose(2, 0, 1, 3)[: len(out)]
