"""The networks."""

from collections.abc import Callable
from typing import Any

import torch

import umx_np


class OpenUnmix:
    """As `umx_np.OpenUnmix`."""

    def __init__(self, **options: Any) -> None:
        self._network = umx_np.OpenUnmix(**options)

    def eval(self) -> "OpenUnmix":
        """Always the case."""
        return self

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the network to magnitudes."""
        return torch.from_numpy(self._network(x.numpy()))


def pretrained(name: str) -> Callable[..., Callable[[torch.Tensor], torch.Tensor]]:
    """As the function `name` of umx_np."""

    def make(**options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        separator = getattr(umx_np, name)(**options)
        return lambda audio: torch.from_numpy(separator(audio.numpy()))

    return make
