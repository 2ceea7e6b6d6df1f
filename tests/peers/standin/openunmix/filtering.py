"""The filter."""

from typing import Any

import torch

import umx_np


def wiener(targets_spectrograms: torch.Tensor, mix_stft: torch.Tensor, **options: Any) -> Any:
    """As `umx_np.wiener`."""
    result = umx_np.wiener(targets_spectrograms.numpy(), mix_stft.numpy(), **options)
    return torch.from_numpy(result)
