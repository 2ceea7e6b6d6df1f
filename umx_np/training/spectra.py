"""From a batch of waveforms to what the network sees."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.contracts import Backend
from ..backends.training import Offload, TrainingBackend
from ..errors import ShapeError
from ..framing.geometry import StftGeometry
from ..framing.transform import Transform

# Frames transformed at a time: two channels of 4096 samples are 1 MB and stay in a core's cache.
_FRAMES_PER_TASK = 32
# Frames of a batch whose channels are transformed before their mean is taken.
_FRAMES_BEFORE_MEAN = 256
# Values whose squares are summed in float32 before the sum goes on in double precision.
_VALUES_PER_SUM = 1 << 16


class BatchMagnitudes:
    """STFT magnitudes of whole batches, in the layout the network computes in.

    The transform is not centred, as in Open-Unmix's trainer: six seconds are 255 frames.

    Parameters
    ----------
    n_fft, n_hop : int
        STFT size and hop in samples.
    nb_channels : int
        1 takes the mean of the magnitudes over the channels.
    ops : Backend
        Where to compute.
    compiled : TrainingBackend or None
        Where to compute instead if it has a kernel for `n_fft`: five times as fast at 4096.

    Notes
    -----
    Both ways have the precision of float32, but not the same last digits.
    """

    def __init__(
        self,
        n_fft: int,
        n_hop: int,
        nb_channels: int,
        ops: Backend,
        compiled: TrainingBackend | None = None,
    ) -> None:
        self.geometry = StftGeometry(n_fft, n_hop, center=False)
        self.nb_channels = nb_channels
        self._ops = ops
        self._transform = Transform(self.geometry, "torch", ops, np.float32)
        self._window = self.geometry.window.astype(np.float32)
        self._compiled: TrainingBackend | None = None
        if compiled is not None and compiled.has_transform(n_fft, np.dtype(np.float32)):
            self._compiled = compiled
        self._reused: dict[str, np.ndarray] = {}

    def __call__(self, audio: np.ndarray, role: str | None = None) -> np.ndarray:
        """Transform a batch.

        Parameters
        ----------
        audio : ndarray [shape=(nb_samples, nb_channels, nb_timesteps)], float32
            Waveforms.
        role : str or None
            Calls with the same name may return the same memory: what an earlier one returned is
            then overwritten. Getting fresh memory from the system costs as much as a transform.

        Returns
        -------
        ndarray [shape=(nb_frames, nb_samples, nb_channels, nb_bins)], float32

        Raises
        ------
        ShapeError
            If the waveforms are shorter than a frame, or have another number of channels.
        """
        nb_samples, nb_channels, nb_timesteps = audio.shape
        check_channels(nb_channels, self.nb_channels)
        nb_frames = self.geometry.nb_frames(nb_timesteps)
        out = self._memory(role, (nb_frames, nb_samples, self.nb_channels, self.geometry.nb_bins))
        if self._compiled is None:
            self._in_parts(audio, out)
        elif self.nb_channels == nb_channels:
            self._compiled.magnitudes(audio, self._window, n_hop=self.geometry.n_hop, out=out)
        else:
            self._mean_of_channels(self._compiled, audio, out)
        return out

    def _memory(self, role: str | None, shape: tuple[int, ...]) -> np.ndarray:
        out = self._reused.get(role) if role is not None else None
        if out is None or out.shape != shape:
            out = np.empty(shape, np.float32)
            if role is not None:
                self._reused[role] = out
        return out

    def _in_parts(self, audio: np.ndarray, out: np.ndarray) -> None:
        """The transform of separation, a few frames at a time."""
        nb_frames, nb_samples = out.shape[:2]

        def some_frames(task: tuple[int, int]) -> None:
            sample, start = task
            count = min(_FRAMES_PER_TASK, nb_frames - start)
            first = start * self.geometry.n_hop
            segment = audio[sample, :, first : first + self.geometry.nb_samples_of(count)]
            spectrum = self._transform.forward(np.ascontiguousarray(segment), count)
            place = out[start : start + count, sample].swapaxes(0, 1)
            if self.nb_channels == audio.shape[1]:
                np.abs(spectrum, out=place)
            else:
                np.mean(np.abs(spectrum), axis=0, keepdims=True, out=place)

        starts = range(0, nb_frames, _FRAMES_PER_TASK)
        self._ops.map(some_frames, [(k, start) for k in range(nb_samples) for start in starts])

    def _mean_of_channels(
        self, compiled: TrainingBackend, audio: np.ndarray, out: np.ndarray
    ) -> None:
        """All channels of some frames, then their mean."""
        geometry, nb_frames = self.geometry, len(out)
        for start in range(0, nb_frames, _FRAMES_BEFORE_MEAN):
            count = min(_FRAMES_BEFORE_MEAN, nb_frames - start)
            first = start * geometry.n_hop
            segment = audio[..., first : first + geometry.nb_samples_of(count)]
            mags = self._memory("all channels", (count, *audio.shape[:2], geometry.nb_bins))
            compiled.magnitudes(segment, self._window, n_hop=geometry.n_hop, out=mags)

            def mean(frame: int, mags: np.ndarray = mags, start: int = start) -> None:
                np.mean(mags[frame], axis=1, keepdims=True, out=out[start + frame])

            self._ops.map(mean, range(count))


def check_channels(found: int, nb_channels: int) -> None:
    """Raise `ShapeError` if a network of `nb_channels` cannot be trained with such data."""
    if nb_channels not in (1, found):
        raise ShapeError(
            f"the data has nb_channels={found}, the network has nb_channels={nb_channels}; make "
            "the data stereo with --source-augmentations force_stereo, or train with "
            "--nb-channels 1"
        )


class DeviceMagnitudes:
    """The twin of `BatchMagnitudes` on a device with memory of its own.

    Parameters
    ----------
    n_fft, n_hop, nb_channels : int
        As for `BatchMagnitudes`.
    backend : Offload
        Where to compute.
    """

    def __init__(self, n_fft: int, n_hop: int, nb_channels: int, backend: Offload) -> None:
        self.geometry = StftGeometry(n_fft, n_hop, center=False)
        self.nb_channels = nb_channels
        self._backend = backend
        self._window = backend.asarray(self.geometry.window, np.dtype(np.float32))

    def __call__(self, audio: Any) -> Any:
        """Transform a batch; audio of the host is copied there first.

        Raises
        ------
        ShapeError
            As for `BatchMagnitudes`.
        """
        check_channels(audio.shape[1], self.nb_channels)
        self.geometry.nb_frames(audio.shape[2])  # at least one
        return self._backend.magnitudes(
            self._backend.asarray(audio, np.dtype(np.float32)),
            self._window,
            n_hop=self.geometry.n_hop,
            mono=self.nb_channels == 1,
        )


def mean_squared_error(y: np.ndarray, target: np.ndarray) -> float:
    """Mean of the squared differences, in little memory.

    Parameters
    ----------
    y, target : ndarray [shape=(nb_frames, ...)]
        Arrays of one shape.

    Returns
    -------
    float
    """
    total = 0.0
    step = max(1, _VALUES_PER_SUM // max(1, y[0].size))
    for start in range(0, len(y), step):
        difference = (y[start : start + step] - target[start : start + step]).reshape(-1)
        total += float(np.dot(difference, difference))
    return total / y.size
