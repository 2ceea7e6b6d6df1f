"""Items of a batch from clips that lie in the memory of the card; compiled by Numba."""

from __future__ import annotations

import numpy as np
from numba import cuda

# Columns of `places`: where channel 0 of an excerpt begins, the distance of the channels, and their
# number.
START, PITCH, NB_CHANNELS = range(3)


# Computes      with s = scale * samples of source j of item b, in each of its channels, and
#               M = channels[b, j]:  x[b] = sum over j of M s,  y[b] = the same over the target's
# Arguments     samples (n,) IN int16 or float32;  scale  takes them to [-1, 1)
#               places (B, S, 3) IN int64;  channels (B, S, C, K) IN;  in_target (S,) IN
#               x, y (B, C, T) OUT
# Aliasing      none
# Accumulates   `=`, the sources one after the other
# Parallel over items and samples
# Precision     float32
# Oracle        umx_np.data.FixedSourcesTrackFolderDataset.sample, umx_np.data.MUSDBDataset.sample
# Benchmark     benchmarks/gpu/run.py
@cuda.jit
def mix(samples, scale, places, channels, in_target, x, y):
    """Random mixing, gains and exchanged channels."""
    nb_items, nb_channels, nb_timesteps = x.shape
    for k in range(cuda.grid(1), nb_items * nb_timesteps, cuda.gridsize(1)):
        item = k // nb_timesteps
        time = k - item * nb_timesteps
        for channel in range(nb_channels):
            mixture = np.float32(0.0)
            target = np.float32(0.0)
            for source in range(places.shape[1]):
                place = places[item, source, START] + time
                value = np.float32(0.0)
                for row in range(places[item, source, NB_CHANNELS]):
                    sample = np.float32(samples[place]) * scale
                    value += channels[item, source, channel, row] * sample
                    place += places[item, source, PITCH]
                mixture += value
                if in_target[source]:
                    target += value
            x[item, channel, time] = mixture
            y[item, channel, time] = target
