"""Files and augmentations."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from umx_np import data
from umx_np.audio import AudioReader, read
from umx_np.data import augmentations


def _augment(function: Callable) -> Callable[[torch.Tensor], torch.Tensor]:
    rng = np.random.default_rng(0)
    return lambda audio: torch.from_numpy(function(audio.numpy(), rng))


_augment_gain = _augment(augmentations.gain)
_augment_channelswap = _augment(augmentations.channelswap)
_augment_force_stereo = _augment(augmentations.force_stereo)


def load_info(path: str) -> dict[str, Any]:
    """What `AudioReader` knows of a file."""
    with AudioReader(path) as reader:
        return {"samplerate": reader.rate, "samples": reader.nb_timesteps}


def load_audio(
    path: str, start: float = 0.0, dur: float | None = None, info: object = None
) -> tuple[torch.Tensor, float]:
    """As `umx_np.audio.read`."""
    audio, rate = read(path, start=start, duration=dur)
    return torch.from_numpy(audio), rate


def _of_tensors(dataset: type) -> type:
    class Dataset(dataset):  # type: ignore[misc]
        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            if index >= len(self):
                raise IndexError(index)
            x, y = self.sample(index, np.random.default_rng(index))
            return torch.from_numpy(x), torch.from_numpy(y)

        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            return (self[index] for index in range(len(self)))

    return Dataset


MUSDBDataset = _of_tensors(data.MUSDBDataset)
FixedSourcesTrackFolderDataset = _of_tensors(data.FixedSourcesTrackFolderDataset)
VariableSourcesTrackFolderDataset = _of_tensors(data.VariableSourcesTrackFolderDataset)
SourceFolderDataset = _of_tensors(data.SourceFolderDataset)
