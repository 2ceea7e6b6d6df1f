"""Memory of a separation on the device: a plan from numbers alone, before anything is allocated.

Three things grow with the length of a track: its samples, the bottleneck activations of every
target, and, while the recurrent layers run, two sets of layer outputs of the targets that run side
by side. The rest is buffers for some frames at a time. The plan takes the fastest arrangement that
fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FLOAT, COMPLEX, DOUBLE = 4, 8, 8

# Workspace of the matrix product, modules of kernels, what the allocator rounds up, and arrays that
# do not grow with a track, such as states and scales.
_RESERVE = 160 << 20
# Share of the free memory that is planned with; the allocator cannot fill every gap.
_USABLE = 0.92
# Memory for the buffers of a pass. Half a gigabyte is 700 frames of the usual model in the widest
# pass; more does not make larger products any faster.
_BUDGETS = tuple((512 << 20) >> step for step in range(6))
# Frames of one step, at least and at most, where no filter window says how many. The recurrence of
# many frames is one launch, and Windows ends what occupies the card of a screen for two seconds.
_FEWEST, _MOST = 16, 8192
# More frames need more rows than a grid has when every frame is a window of its own.
_MOST_DECODED = 4096


@dataclass(frozen=True)
class StackSize:
    """Sizes of networks of one architecture that run side by side.

    Attributes
    ----------
    nb_targets : int
        Networks.
    hidden_size, lstm_hidden_size : int
        Units of the bottleneck, and of one direction of a layer.
    nb_directions : int
        1 or 2.
    nb_read : int
        Bins that the networks read.
    """

    nb_targets: int
    hidden_size: int
    lstm_hidden_size: int
    nb_directions: int
    nb_read: int


@dataclass(frozen=True)
class Work:
    """Sizes that take memory in the separation of one track.

    Attributes
    ----------
    nb_timesteps, nb_frames : int
        Length of the track in samples and in frames.
    nb_channels : int
        Channels of the audio.
    mag_channels : int
        Channels that the networks see.
    n_fft, n_hop : int
        STFT size and hop in samples.
    nb_sources, nb_stems : int
        Sources that take part in the filter, and those that are returned.
    iterations : int
        EM iterations.
    window : int or None
        Frames filtered together; None means all.
    stacks : tuple of StackSize
        The networks.
    """

    nb_timesteps: int
    nb_frames: int
    nb_channels: int
    mag_channels: int
    n_fft: int
    n_hop: int
    nb_sources: int
    nb_stems: int
    iterations: int
    window: int | None
    stacks: tuple[StackSize, ...]

    @property
    def nb_bins(self) -> int:
        """Bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    @property
    def nb_targets(self) -> int:
        """Networks of all stacks."""
        return sum(stack.nb_targets for stack in self.stacks)

    @property
    def encoded_frame(self) -> int:
        """Bytes of one frame of the bottleneck activations of all targets."""
        return FLOAT * sum(stack.nb_targets * stack.hidden_size for stack in self.stacks)

    @property
    def spectrum_frame(self) -> int:
        """Bytes of one frame while it is transformed: samples, workspace of the FFT, two spectra.

        The spectrum before is still in use when the next one is made.
        """
        return self.nb_channels * (2 * FLOAT * self.n_fft + 2 * COMPLEX * self.nb_bins)

    def encode_frame(self) -> int:
        """Bytes of one frame in the first pass."""
        nb_read = max(stack.nb_read for stack in self.stacks)
        features = max(
            stack.nb_targets * (self.mag_channels * (stack.nb_read + 3) + stack.hidden_size)
            for stack in self.stacks
        )
        return self.spectrum_frame + FLOAT * (self.mag_channels * nb_read + features + 1)

    def scan_frame(self, together: int) -> int:
        """Bytes of one frame in the second pass: inputs, gates, outputs, and the combination."""
        widest = 0
        for stack in self.stacks:
            nb_targets = min(together, stack.nb_targets)
            layer = nb_targets * stack.nb_directions * stack.lstm_hidden_size
            bottleneck = nb_targets * stack.hidden_size
            # Where activations are on the host, the inputs of both directions are copies.
            widest = max(widest, 4 * layer + layer + 2 * max(layer, bottleneck) + bottleneck)
        return FLOAT * widest

    def layers_frame(self, together: int) -> int:
        """Bytes of one frame of the two sets of layer outputs that the second pass keeps."""
        return FLOAT * max(
            2 * min(together, stack.nb_targets) * stack.nb_directions * stack.lstm_hidden_size
            for stack in self.stacks
        )

    def decode_frame(self) -> int:
        """Bytes of one frame in the third pass."""
        masks = (self.nb_targets + 1) * self.mag_channels * self.nb_bins
        written = self.nb_stems * self.nb_channels
        # Estimates, frames and the workspace of the inverse FFT; samples of this block, and of the
        # one before that is still on its way to the host.
        estimates = written * (COMPLEX * self.nb_bins + 2 * FLOAT * self.n_fft)
        samples = 2 * written * FLOAT * self.n_hop
        return self.spectrum_frame + self.encoded_frame + FLOAT * masks + estimates + samples

    def filter_bytes(self, nb_frames: int) -> int:
        """Bytes of the statistics of the filter in a block."""
        if not self.iterations:
            return 0
        windows = 1 if self.window is None else -(-nb_frames // self.window)
        pieces = windows + nb_frames // 64 + 1
        levels = windows * 2 * self.iterations
        return DOUBLE * 4 * self.nb_sources * self.nb_bins * (pieces + levels)


@dataclass(frozen=True)
class MemoryPlan:
    """Where things are, and how many frames go through the passes at a time.

    Attributes
    ----------
    audio_on_card : bool
        Whether the samples stay on the card; if not, they are sent again for every pass.
    activations_on_card : bool
        Whether the activations of the track stay on the card; if not, they are kept by the host.
    together : int
        Targets whose recurrent layers run side by side.
    encode_frames, scan_frames, decode_frames : int
        Frames of one step of each pass. Decoded frames are whole filter windows.
    nb_bytes : int
        Memory that this takes besides the weights.
    """

    audio_on_card: bool
    activations_on_card: bool
    together: int
    encode_frames: int
    scan_frames: int
    decode_frames: int
    nb_bytes: int


def plan_memory(work: Work, free: int) -> MemoryPlan | None:
    """Choose the fastest arrangement that fits.

    Parameters
    ----------
    work : Work
        The separation.
    free : int
        Bytes that can be allocated.

    Returns
    -------
    MemoryPlan or None
        None if nothing fits, not even with the samples and activations on the host: then it is the
        filter window that is too long.

    Notes
    -----
    Smaller steps cost least. Then fewer targets side by side: a step of the recurrence takes about
    as long for one as for four. Then samples that are sent again for every pass, since a file has
    to be decoded again for it. Activations on the host cost most, as they cross the bus in every
    layer.
    """
    limit = int(free * _USABLE)
    for plan in candidates(work):
        if plan.nb_bytes <= limit:
            return plan
    return None


def candidates(work: Work) -> Iterator[MemoryPlan]:
    """Arrangements from the fastest to the smallest."""
    most = max(stack.nb_targets for stack in work.stacks)
    placements = [(True, True, together) for together in range(most, 0, -1)]
    placements += [(False, True, together) for together in range(most, 0, -1)]
    placements += [(False, False, most)]
    for audio, activations, together in placements:
        for budget in _BUDGETS:
            yield _plan(work, audio, activations, together, budget)


def _plan(
    work: Work, audio_on_card: bool, activations_on_card: bool, together: int, budget: int
) -> MemoryPlan:
    encode = _frames_of(budget, work.encode_frame(), work.nb_frames)
    scan = _frames_of(budget, work.scan_frame(together), work.nb_frames)
    decode = min(_frames_of(budget, work.decode_frame(), work.nb_frames), _MOST_DECODED)
    if work.iterations and work.window is not None:
        decode = max(decode // work.window, 1) * work.window
    decoded = min(decode, work.nb_frames)
    layers = work.layers_frame(together) * work.nb_frames if activations_on_card else 0
    passes = (
        encode * work.encode_frame(),
        scan * work.scan_frame(together) + layers,
        decoded * work.decode_frame() + work.filter_bytes(decoded),
    )
    nb_bytes = _RESERVE + max(passes)
    if audio_on_card:
        nb_bytes += work.nb_channels * work.nb_timesteps * FLOAT
    if activations_on_card:
        nb_bytes += work.nb_frames * work.encoded_frame
    if work.iterations and work.window is None:
        nb_bytes += work.nb_frames * FLOAT  # the peak of every frame
    return MemoryPlan(audio_on_card, activations_on_card, together, encode, scan, decode, nb_bytes)


def _frames_of(budget: int, nb_bytes: int, nb_frames: int) -> int:
    """Frames that fit a budget, not many more than there are."""
    return max(_FEWEST, min(budget // nb_bytes, _MOST, nb_frames))


def smallest(work: Work) -> int:
    """Bytes that have to be free for `plan_memory` to find a plan."""
    return int(min(plan.nb_bytes for plan in candidates(work)) / _USABLE) + 1
