// Items of a batch from clips that lie in the memory of the device.
//
// variants: SAMPLE=float; SAMPLE=short
#include "column_sums.cuh"

// Columns of `places`: where channel 0 of an excerpt begins, the distance of the channels, and their
// number.
enum { START, PITCH, NB_CHANNELS, PLACE };

#ifndef SAMPLE
#define SAMPLE float  // or short
#endif
typedef SAMPLE Sample;

/* Computes      with s = scale * samples of source j of item b, in each of its channels, and
 *               M = channels[b, j]:  x[b] = sum over j of M s,  y[b] = the same over the target's
 * Arguments     samples (n) IN float or short;  scale  takes them to [-1, 1)
 *               places (B, S, PLACE) IN;  channels (B, S, C, K) IN;  in_target (S) IN
 *               x, y (B, C, T) OUT
 * Aliasing      none
 * Accumulates   =, the sources one after the other
 * Parallel over pieces of FLAT_PIECE samples (x) and items (y)
 * Precision     float32
 * Oracle        umx_np.data.FixedSourcesTrackFolderDataset.sample, umx_np.data.MUSDBDataset.sample
 * Benchmark     benchmarks/gpu/run.py
 */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
mix(const Sample* __restrict__ samples, float scale, const long long* __restrict__ places,
    const float* __restrict__ channels, const unsigned char* __restrict__ in_target,
    float* __restrict__ x, float* __restrict__ y, int nb_sources, int nb_channels, int nb_rows,
    int nb_timesteps) {
    const long long first = (long long)blockIdx.x * FLAT_PIECE;
    const size_t item = blockIdx.y;
    for (int i = threadIdx.x; i < FLAT_PIECE && first + i < nb_timesteps; i += THREADS)
        for (int c = 0; c < nb_channels; c++) {
            float mixture = 0.0f, target = 0.0f;
            for (int s = 0; s < nb_sources; s++) {
                const long long* place = places + (item * nb_sources + s) * PLACE;
                const float* row = channels + ((item * nb_sources + s) * nb_channels + c) * nb_rows;
                const Sample* sample = samples + place[START] + first + i;
                float value = 0.0f;
                for (int k = 0; k < place[NB_CHANNELS]; k++, sample += place[PITCH])
                    value += row[k] * ((float)*sample * scale);
                mixture += value;
                if (in_target[s]) target += value;
            }
            const size_t out = (item * nb_channels + c) * nb_timesteps + first + i;
            x[out] = mixture;
            y[out] = target;
        }
}
