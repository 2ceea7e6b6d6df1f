# Framing with the window, overlap-add with the window, and magnitudes: the parts of the STFT around
# the FFT. float32 and float64; the GIL is released.

import numpy as np

from libc.math cimport sqrt

ctypedef fused real:
    float
    double


cdef int _check_rows(bint good) except -1:
    if not good:
        raise ValueError("samples, or bins, must be adjacent in memory")
    return 0


def frame(const real[:, :] x, const real[::1] window, real[:, :, ::1] out, Py_ssize_t n_hop):
    """Cut a signal into windowed frames.

    Computes      out[c, t, i] = x[c, t * n_hop + i] * window[i]
    Arguments     x [shape=(nb_channels, nb_timesteps)] IN, window [shape=(n_fft,)] IN,
                  out [shape=(nb_channels, nb_frames, n_fft)] OUT
    Aliasing      out overlaps nothing
    Accumulates   ``=``
    Oracle        umx_np.backends.reference.frame
    """
    cdef Py_ssize_t c, t, i
    cdef Py_ssize_t n_fft = window.shape[0], nb_frames = out.shape[1]
    cdef const real *source
    cdef real *target
    cdef const real *w = &window[0]
    if out.shape[0] != x.shape[0] or out.shape[2] != n_fft:
        raise ValueError("out must have shape (nb_channels, nb_frames, n_fft)")
    if n_hop < 1 or (nb_frames and (nb_frames - 1) * n_hop + n_fft > x.shape[1]):
        raise ValueError(f"{nb_frames} frames of n_hop={n_hop} do not fit {x.shape[1]} samples")
    _check_rows(x.strides[1] == sizeof(real) or x.shape[1] < 2)
    with nogil:
        for c in range(x.shape[0]):
            for t in range(nb_frames):
                source = &x[c, 0] + t * n_hop
                target = &out[c, t, 0]
                for i in range(n_fft):
                    target[i] = source[i] * w[i]


def overlap_add(const real[:, :, ::1] frames, const real[::1] window, real[:, :] out,
                Py_ssize_t n_hop):
    """Add windowed frames where they overlap.

    Computes      out[c, t * n_hop + i] += frames[c, t, i] * window[i]
    Arguments     frames [shape=(nb_channels, nb_frames, n_fft)] IN, window [shape=(n_fft,)] IN,
                  out [shape=(nb_channels, nb_timesteps)] INOUT
    Aliasing      out overlaps nothing
    Accumulates   ``+=``
    Oracle        umx_np.backends.reference.overlap_add
    """
    cdef Py_ssize_t c, t, i
    cdef Py_ssize_t n_fft = window.shape[0], nb_frames = frames.shape[1]
    cdef const real *source
    cdef real *target
    cdef const real *w = &window[0]
    if out.shape[0] != frames.shape[0] or frames.shape[2] != n_fft:
        raise ValueError("frames must have shape (nb_channels, nb_frames, n_fft)")
    if n_hop < 1 or (nb_frames and (nb_frames - 1) * n_hop + n_fft > out.shape[1]):
        raise ValueError(f"{nb_frames} frames of n_hop={n_hop} do not fit {out.shape[1]} samples")
    _check_rows(out.strides[1] == sizeof(real) or out.shape[1] < 2)
    with nogil:
        for c in range(frames.shape[0]):
            for t in range(nb_frames):
                source = &frames[c, t, 0]
                target = &out[c, 0] + t * n_hop
                for i in range(n_fft):
                    target[i] += source[i] * w[i]


def magnitude(spectrum, real[:, :, :] out, bint mono):
    """Magnitude of the first bins of a spectrum, channels side by side or averaged.

    Computes      out[t, c, b] = |spectrum[c, t, b]|, or its mean over c in out[t, 0, b]
    Arguments     spectrum complex [shape=(nb_channels, nb_frames, nb_bins)] IN,
                  out [shape=(nb_frames, nb_channels or 1, <= nb_bins)] OUT
    Aliasing      out overlaps nothing
    Accumulates   ``=``
    Precision     the square is taken in float64, so that neither loud nor faint bins overflow
    Oracle        umx_np.backends.reference.magnitude
    """
    cdef Py_ssize_t c, t, b
    cdef Py_ssize_t nb_channels = spectrum.shape[0], nb_frames = spectrum.shape[1]
    cdef Py_ssize_t nb_bins = out.shape[2]
    cdef const real[:, :, :] parts = spectrum.view(np.float32 if real is float else np.float64)
    cdef double re, im, scale = 1.0 / nb_channels if mono else 1.0
    cdef const real *source
    cdef real *target
    if out.shape[0] != nb_frames or out.shape[1] != (1 if mono else nb_channels):
        raise ValueError("out must have shape (nb_frames, nb_channels or 1, nb_bins)")
    if nb_bins > spectrum.shape[2] or nb_bins == 0:
        raise ValueError(f"out has {nb_bins} bins, the spectrum {spectrum.shape[2]}")
    _check_rows(parts.strides[2] == sizeof(real) and out.strides[2] == sizeof(real))
    with nogil:
        for t in range(nb_frames):
            for c in range(nb_channels):
                source = &parts[c, t, 0]
                target = &out[t, 0 if mono else c, 0]
                if mono and c > 0:
                    for b in range(nb_bins):
                        re = source[2 * b]
                        im = source[2 * b + 1]
                        target[b] += <real>(sqrt(re * re + im * im) * scale)
                else:
                    for b in range(nb_bins):
                        re = source[2 * b]
                        im = source[2 * b + 1]
                        target[b] = <real>(sqrt(re * re + im * im) * scale)
