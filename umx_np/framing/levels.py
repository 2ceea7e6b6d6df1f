"""Bringing a signal to the level that a model was trained at, and its stems back.

Masks are relative, but the networks that estimate them know one range of levels only: what is much
softer than their training looks like silence to them. `LevelFollower` divides a mixture by a level
that follows its loudness, and multiplies the stems by the same level: everything between sees music
at one level. It looks at the past alone and works piece by piece, so that blocks of any size and a
live signal get the same levels as a whole track.
"""

from __future__ import annotations

import numpy as np

from .geometry import StftGeometry

# Factor in amplitude by which music may be softer or louder than the target (4 dB): models are
# trained on a range of levels, and music that begins within it is left alone. ...
_SLACK = 10.0**0.2
# ... Other music comes to within this of the target (2 dB), so that it is at the level of most.
_NEAR = 10.0**0.1
# Seconds over which the power is averaged. So long the level is sought, and then it is held ...
_MEMORY = 3.0
# ... while the music stays within this factor of the target (7 dB): songs have soft and loud parts,
# and a gain that follows them costs more than it brings.
_HELD = 10.0**0.35
# Seconds whose level tells that the music has changed: if they are out of that range, and a factor
# of 4 in power from the mean, what was before is forgotten. One piece does if it is 20 dB louder
# than the target.
_RECENT = 0.25
_CHANGE = 4.0
_BURST = 100.0
# The level falls no faster than this, in dB a second, so that the gain does not jump up.
_FALL = 400.0
# A rise by more than this factor is a jump, at the beginning of the piece that needs it: on a slope
# the first samples of the loud music would be a click that is as loud as the gain before it.
_JUMP = 2.0
# Mean power of what does not count as music (-85 dB): dither and noise of 16 bits are below, and
# the level then stays as it was. This bounds the gain, too.
_SILENCE = 10.0**-8.5
# Keeps the square of any number that is finite in double precision finite.
_LARGEST = 1e300


class LevelFollower:
    """Follows the level of one signal.

    Parameters
    ----------
    geometry : StftGeometry
        The level is measured every `n_hop` samples, at the ends of the frames.
    rate : float
        Sample rate in Hz.
    target : float
        Level in dB of full scale (RMS over all channels) in the middle of those that the signal may
        keep.
    """

    def __init__(self, geometry: StftGeometry, rate: float, target: float) -> None:
        self._n_fft, self._n_hop = geometry.n_fft, geometry.n_hop
        # Pieces end where frames end, so that no frame has to wait for the level of its samples.
        self._shift = -(geometry.n_fft - geometry.pad) % geometry.n_hop
        self._target = 10.0 ** (target / 20)
        hops_a_second = rate / geometry.n_hop
        self._memory = max(1, round(_MEMORY * hops_a_second))
        self._recent = max(1, round(_RECENT * hops_a_second))
        self._fall = 10.0 ** (-_FALL / 20 / hops_a_second)
        self._powers: list[float] = []
        self._goal = 1.0  # the level without its bound on falling
        # Relative to the target, at the ends of the pieces from number `_first` - 1 on. What begins
        # with silence begins at the target: noise before the first note is not raised.
        self._levels = [1.0]
        self._first = 0
        self._nb_timesteps = 0  # samples given out
        self._waiting: list[np.ndarray] = []
        self._nb_waiting = 0
        self._empty = np.empty((1, 0), np.float32)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take the next samples [shape=(nb_channels, any)] and return those whose level is known.

        They are divided by it, in the dtype of the block, which is never modified. Where nothing
        changes, the result may be a view of the block.
        """
        self._empty = np.empty((len(block), 0), block.dtype)
        nb_known = self._nb_timesteps
        nb_all = nb_known + self._nb_waiting + block.shape[1]
        count = (nb_all + self._shift) // self._n_hop * self._n_hop - self._shift - nb_known
        has_to_wait = count <= 0 or (nb_known == 0 and nb_all < self._n_fft)
        if block.shape[1]:
            # A copy of what stays here: the caller may use the memory of a block again.
            self._waiting.append(block.copy() if has_to_wait else block)
            self._nb_waiting += block.shape[1]
        if has_to_wait:
            return self._empty
        if nb_known == 0:
            self._begin()
        return self._take(count)

    def finish(self) -> np.ndarray:
        """Return the rest when the signal has ended."""
        if self._nb_timesteps == 0:
            self._begin()
        return self._take(self._nb_waiting)

    def divide(self, start: int, block: np.ndarray) -> np.ndarray:
        """Divide samples that begin at `start` by their levels, which `push` has found before."""
        levels = self._between(start, start + block.shape[1])
        return block if _is_one(levels) else block / levels.astype(block.dtype)

    def restore(self, start: int, signals: np.ndarray) -> None:
        """Multiply signals [shape=(..., n)] that begin at `start` by their levels, in place."""
        levels = self._between(start, start + signals.shape[-1])
        if not _is_one(levels):
            signals *= levels.astype(signals.dtype)

    def forget(self, stop: int) -> None:
        """Give up the levels of the samples before `stop`, for signals without end."""
        surplus = (stop + self._shift) // self._n_hop - self._first
        if surplus > 0:
            del self._levels[:surplus]
            self._first += surplus

    def _begin(self) -> None:
        """Find the level of the first sample, from as many as the first one has to wait for."""
        # Of many small blocks; of a large one no more than that.
        parts = [part[:, : self._n_fft] for part in self._waiting] or [self._empty]
        samples = np.concatenate(parts, axis=1)[:, : self._n_fft]
        ends = range(self._n_hop - self._shift, self._n_fft + 1, self._n_hop)
        pieces = [samples[:, max(end - self._n_hop, 0) : end] for end in ends]
        powers = [power for power in map(_power, filter(np.size, pieces)) if power > _SILENCE]
        if powers:
            self._goal = self._wanted(sum(powers) / len(powers))
            self._levels = [self._goal]

    def _take(self, count: int) -> np.ndarray:
        if count <= 0:
            return self._empty
        start, stop = self._nb_timesteps, self._nb_timesteps + count
        samples = (
            self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting, axis=1)
        )
        rest = samples[:, count:].copy()
        self._waiting, self._nb_waiting = [rest] if rest.shape[1] else [], rest.shape[1]
        for power in self._measure(start, samples[:, :count]):
            self._levels.append(self._next_level(power))
        self._nb_timesteps = stop
        return self.divide(start, samples[:, :count])

    def _measure(self, start: int, samples: np.ndarray) -> list[float]:
        """Powers of the pieces of samples that begin at `start`."""
        nb_channels, count = samples.shape
        # The first piece of a signal and its last one may be shorter.
        begin = min(-(start + self._shift) % self._n_hop, count)
        nb_whole = (count - begin) // self._n_hop
        end = begin + nb_whole * self._n_hop
        whole = samples[:, begin:end].reshape(nb_channels, nb_whole, self._n_hop)
        single = samples.dtype == np.float32
        with np.errstate(over="ignore"):
            sums = np.einsum("ckn,ckn->ck", whole, whole, dtype=None if single else np.float64)
        if single and not np.isfinite(sums).all():
            sums = np.einsum("ckn,ckn->ck", whole, whole, dtype=np.float64)
        means = sums.sum(axis=0, dtype=np.float64) / (nb_channels * self._n_hop)
        powers = np.minimum(means, _LARGEST).tolist()
        if begin:
            powers.insert(0, _power(samples[:, :begin]))
        if end < count:
            powers.append(_power(samples[:, end:]))
        return powers

    def _next_level(self, power: float) -> float:
        """Level at the end of a piece of this power, relative to the target."""
        level = self._levels[-1]
        if power <= _SILENCE:
            return level
        powers = self._powers
        powers.append(power)
        is_settled = len(powers) > self._memory
        del powers[: -self._memory]
        mean = sum(powers) / len(powers)
        recent = powers[-self._recent :]
        now = sum(recent) / len(recent)
        if power > _BURST * (self._goal * self._target) ** 2:
            self._powers = [power]
        elif not (self._holds(now) or mean / _CHANGE <= now <= mean * _CHANGE):
            # The newer half: the older may still be as before.
            self._powers = recent[-(len(recent) // 2 or 1) :]
        if self._powers is not powers:
            is_settled, mean = False, sum(self._powers) / len(self._powers)
        if not (is_settled and self._holds(mean)):
            self._goal = self._wanted(mean)
        return max(self._goal, level * self._fall)

    def _holds(self, power: float) -> bool:
        """Whether the level is good enough for so much power."""
        loud = power**0.5 / self._target / self._goal
        return 1 / _HELD <= loud <= _HELD

    def _wanted(self, power: float) -> float:
        """The level of so much power, relative to the target; within the slack, 1."""
        loud = power**0.5 / self._target
        if loud > _SLACK:
            return loud / _NEAR
        return loud * _NEAR if loud * _SLACK < 1.0 else 1.0

    def _between(self, start: int, stop: int) -> np.ndarray:
        """Levels of the samples [start, stop), or one for all of them.

        Straight lines between the ends of the pieces; a piece whose level jumps has one level.
        """
        start, stop = start + self._shift, stop + self._shift
        first, last = start // self._n_hop, -(-stop // self._n_hop)
        ends = np.array(self._levels[first - self._first : last - self._first + 1])
        if np.all(ends == ends[0]):
            return ends[:1]
        if len(ends) < last - first + 1:  # a signal that has become longer since
            ends = np.pad(ends, (0, last - first + 1 - len(ends)), mode="edge")
        before, after = ends[:-1], ends[1:]
        before = np.where(after > _JUMP * before, after, before)
        ramp = np.arange(1, self._n_hop + 1) / self._n_hop
        lines = before[:, None] + (after - before)[:, None] * ramp
        return lines.ravel()[start - first * self._n_hop : stop - first * self._n_hop]


def _is_one(levels: np.ndarray) -> bool:
    """Whether the level is that of the target throughout."""
    return levels.size == 1 and levels[0] == 1.0


def _power(piece: np.ndarray) -> float:
    """Mean square over all channels."""
    values = piece.astype(np.float64).ravel()
    return min(float(values @ values) / values.size, _LARGEST)
