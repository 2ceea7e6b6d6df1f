"""Live separation: stems of the past while the audio is still coming in.

Needs unidirectional networks, whose output at a frame depends on no later frame.
"""

from __future__ import annotations

import math

import numpy as np

from ..backends.contracts import FilterInput, scale_of
from ..config import check_array
from ..engines.bottleneck import all_stages, initial_states
from ..engines.job import Job
from ..engines.sources import is_finite_as
from ..errors import ConfigError, ShapeError
from ..framing.blocks import Framer, OverlapAdder, Segment

# Frames processed together when much audio arrives at once.
_GROUP = 64


class Stream:
    """Separates one signal that arrives in blocks; made by `Separator.stream`.

    Attributes
    ----------
    latency : int
        A sample of the stems is returned, at the latest, by the call that brings the sample
        `latency` later: ``n_fft`` samples, whatever the size of the blocks.

    Notes
    -----
    Without iterations (``niter=0``) the stems are those of the same separator on the whole signal.
    With iterations they differ: the spatial model of a source is estimated from the past alone.
    Its sums over the frames decay by a factor of e over `wiener_win_len` frames, and not at all
    when that is None.
    """

    def __init__(self, job: Job, nb_channels: int) -> None:
        for name, network in job.networks.items():
            if not network.config.unidirectional:
                raise ConfigError(
                    f"target {name!r} is bidirectional and needs the whole track; live separation "
                    "needs models trained with unidirectional=True"
                )
        config, geometry = job.config, job.geometry
        if nb_channels not in (1, 2) or config.nb_channels not in (1, nb_channels):
            raise ShapeError(
                f"nb_channels={nb_channels}: this model separates {config.nb_channels} channels "
                "live"
            )
        self._job = job
        self._nb_channels = nb_channels
        self.latency = geometry.n_fft
        self._transform = job.transform(np.float32)
        self._framer = Framer(geometry, _GROUP, eager=True)
        self._adder = OverlapAdder(self._transform)
        self._follower = job.level_follower()
        self._states = {name: initial_states(network) for name, network in job.networks.items()}
        self._wiener = job.ops.wiener(job.wiener_options)
        self._statistics = np.zeros((config.niter, job.nb_sources, 4, geometry.nb_bins))
        # The level of what is to come is not known: scaled as for a signal of full scale.
        self._max_abs = scale_of(float(self._transform.window.sum()))
        self._finished = False

    def process(self, block: np.ndarray) -> np.ndarray:
        """Take the next samples and return the stems that are complete.

        Parameters
        ----------
        block : ndarray [shape=(nb_channels, any)]
            Samples at the separator's rate, never modified.

        Returns
        -------
        ndarray [shape=(nb_stems, nb_channels, n)], float32
            The next samples of the stems, in the order of ``separator.stem_names``; `n` varies and
            may be 0.

        Raises
        ------
        ShapeError
            If the block has another number of channels, or holds NaN or infinity; the stream can
            go on with another block.
        """
        if self._finished:
            raise ConfigError("the stream has been flushed; make a new one")
        block = check_array("block", block)
        if block.ndim != 2 or len(block) != self._nb_channels or block.dtype.kind not in "fiu":
            raise ShapeError(
                f"block has shape={block.shape}, dtype={block.dtype}; it must be real with shape "
                f"({self._nb_channels}, n)"
            )
        if block.shape[1] == 0:
            return self._joined([])
        if not is_finite_as(block, np.dtype(np.float32), self._job.geometry.n_fft):
            raise ShapeError("block holds NaN, infinity or numbers too large for float32")
        block = np.array(block, dtype=np.float32)
        if self._follower is not None:
            block = self._follower.push(block)
        return self._joined([self._separate(job) for job in self._framer.push(block)])

    def flush(self) -> np.ndarray:
        """Return the rest of the stems when the signal has ended.

        Returns
        -------
        ndarray [shape=(nb_stems, nb_channels, n)], float32
            With this, as many samples have been returned as were taken.
        """
        if self._finished:
            return self._joined([])
        self._finished = True
        parts = []
        if self._follower is not None:
            rest = self._follower.finish()
            if rest.shape[1]:
                parts += [self._separate(job) for job in self._framer.push(rest)]
        geometry, length = self._job.geometry, self._framer.nb_timesteps
        if length == 0:
            return self._joined([])
        nb_frames = geometry.nb_frames(length)
        parts += [
            self._separate(job, length, last=job[0] + job[1] == nb_frames)
            for job in self._framer.finish()
        ]
        return self._joined(parts)

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        nb_stems = len(self._job.stem_names)
        empty = np.empty((nb_stems, self._nb_channels, 0), np.float32)
        return np.concatenate([empty, *parts], axis=2)

    def _separate(
        self, segment: Segment, length: int | None = None, *, last: bool = False
    ) -> np.ndarray:
        first, count, samples = segment
        job = self._job
        mix = self._transform.forward(samples, count)
        mix_mags = job.ops.magnitude(mix, nb_bins=job.geometry.nb_bins, mono=job.mono)
        mags = np.empty((len(job.networks), *mix_mags.shape), np.float32)

        def one_target(target: tuple[int, str]) -> None:
            j, name = target
            all_stages(job.networks[name], mix_mags, self._states[name], out=mags[j])

        job.ops.map(one_target, list(enumerate(job.networks)))
        estimates = self._filter(mix, mags)[: len(job.stem_names)]
        start, stems = self._adder.add(first, estimates, length, last=last)
        stems = stems.copy()  # the adder uses its memory again
        if self._follower is not None:
            self._follower.restore(start, stems)
            self._follower.forget(start + stems.shape[2])
        return stems

    def _filter(self, mix: np.ndarray, mags: np.ndarray) -> np.ndarray:
        config, statistics, max_abs = self._job.config, self._statistics, self._max_abs
        if config.niter == 0:
            return self._wiener.window(FilterInput(mix, mags), 0)
        # Frame by frame, so that the result does not depend on the size of the blocks.
        window = config.wiener_win_len
        decay = 1.0 if window is None else math.exp(-1.0 / window)
        parts = []
        for t in range(mix.shape[1]):
            one_mix, one_mags = mix[:, t : t + 1], mags[:, t : t + 1]
            given = FilterInput(
                np.ascontiguousarray(one_mix), np.ascontiguousarray(one_mags), max_abs
            )
            statistics *= decay
            for level in range(config.niter):
                self._wiener.accumulate(given, statistics, level)
            parts.append(self._wiener.apply(given, statistics))
        return np.concatenate(parts, axis=2)
