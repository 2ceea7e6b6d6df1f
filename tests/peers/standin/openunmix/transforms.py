"""The transforms."""

from collections.abc import Callable

import torch

import umx_np


def make_filterbanks(
    n_fft: int = 4096,
    n_hop: int = 1024,
    center: bool = False,
    sample_rate: float = 44100.0,
    method: str = "torch",
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[..., torch.Tensor]]:
    """As `umx_np.stft` and `umx_np.istft`."""

    def forward(audio: torch.Tensor) -> torch.Tensor:
        spectrum = umx_np.stft(
            audio.numpy(), n_fft=n_fft, n_hop=n_hop, center=center, filterbank=method
        )
        return torch.view_as_real(torch.from_numpy(spectrum))

    def inverse(spectrum: torch.Tensor, length: int | None = None) -> torch.Tensor:
        pairs = torch.view_as_complex(spectrum.contiguous()).numpy()
        audio = umx_np.istft(
            pairs, n_fft=n_fft, n_hop=n_hop, length=length, center=center, filterbank=method
        )
        return torch.from_numpy(audio)

    return forward, inverse
