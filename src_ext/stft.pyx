# Framing with the window, overlap-add with the window, and magnitudes: the parts of the STFT around
# the FFT. float32 and float64; the GIL is released. Arguments are checked by checks.pxi.

import numpy as np

from libc.math cimport sqrt

ctypedef fused real:
    float
    double


include "checks.pxi"


cdef int _check_frames(
    bint writes_frames,
    const real[:, :] signal,
    const real[::1] window,
    const real[:, :, ::1] frames,
    Py_ssize_t n_hop,
) except -1:
    """Check the arguments of `frame`, which writes the frames, or of `overlap_add`."""
    cdef Py_ssize_t nb_frames = frames.shape[1], n_fft = window.shape[0]
    cdef Py_ssize_t nb_timesteps = signal.shape[1]
    cdef Extent signal_at, window_at, frames_at
    cdef str signal_name = "x" if writes_frames else "out"
    cdef str frames_name = "out" if writes_frames else "frames"
    if frames.shape[0] != signal.shape[0] or frames.shape[2] != n_fft:
        _refuse(f"{frames_name} must have shape (nb_channels, nb_frames, n_fft): "
                f"({signal.shape[0]}, any, {n_fft})")
    # Divided, because a product of sizes may be more than a size can be.
    if n_fft < 1:
        _refuse(f"window has n_fft={n_fft} samples; at least one is needed")
    if n_hop < 1 or nb_frames > 0 and (
        n_fft > nb_timesteps
        or nb_frames > 1 and n_hop > (nb_timesteps - n_fft) // (nb_frames - 1)
    ):
        _refuse(f"{nb_frames} frames of n_fft={n_fft}, n_hop={n_hop} do not fit {nb_timesteps} "
                "samples")
    _describe(&signal_at, signal_name, &signal[0, 0], sizeof(real), 2, signal.shape, signal.strides)
    _describe(&window_at, "window", &window[0], sizeof(real), 1, window.shape, window.strides)
    _describe(
        &frames_at, frames_name, &frames[0, 0, 0], sizeof(real), 3, frames.shape, frames.strides
    )
    _check_rows(signal_name, sizeof(real), 2, signal.shape, signal.strides, not writes_frames)
    if _meet(&frames_at, &signal_at):
        if writes_frames:
            _check_apart("out", frames, "x", signal)
        else:
            _check_apart("out", signal, "frames", frames)
    if writes_frames and _meet(&frames_at, &window_at):
        _check_apart("out", frames, "window", window)
    if not writes_frames and _meet(&signal_at, &window_at):
        _check_apart("out", signal, "window", window)
    return 0


def frame(
    const real[:, :] x not None,
    const real[::1] window not None,
    real[:, :, ::1] out not None,
    Py_ssize_t n_hop,
):
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
    _check_frames(True, x, window, out, n_hop)
    with nogil:
        for c in range(x.shape[0]):
            for t in range(nb_frames):
                source = &x[c, 0] + t * n_hop
                target = &out[c, t, 0]
                for i in range(n_fft):
                    target[i] = source[i] * w[i]


def overlap_add(
    const real[:, :, ::1] frames not None,
    const real[::1] window not None,
    real[:, :] out not None,
    Py_ssize_t n_hop,
):
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
    _check_frames(False, out, window, frames, n_hop)
    with nogil:
        for c in range(frames.shape[0]):
            for t in range(nb_frames):
                source = &frames[c, t, 0]
                target = &out[c, 0] + t * n_hop
                for i in range(n_fft):
                    target[i] += source[i] * w[i]


def magnitude(spectrum, real[:, :, :] out not None, bint mono):
    """Magnitude of the first bins of a spectrum, channels side by side or averaged.

    Computes      out[t, c, b] = |spectrum[c, t, b]|, or its mean over c in out[t, 0, b]
    Arguments     spectrum complex [shape=(nb_channels, nb_frames, nb_bins)] IN,
                  out [shape=(nb_frames, nb_channels or 1, <= nb_bins)] OUT
    Aliasing      out overlaps nothing
    Accumulates   ``=``
    Precision     the square is taken in float64, so that neither loud nor faint bins overflow
    Oracle        umx_np.backends.reference.magnitude
    """
    cdef Py_ssize_t c, t, b, nb_channels, nb_frames, nb_bins = out.shape[2]
    cdef const real[:, :, :] parts
    cdef Extent parts_at, out_at
    cdef double re, im, scale
    cdef const real *source
    cdef real *target
    if not isinstance(spectrum, np.ndarray) or spectrum.ndim != 3:
        _refuse("spectrum must be an array of shape (nb_channels, nb_frames, nb_bins)")
    wanted = np.complex64 if sizeof(real) == 4 else np.complex128
    if spectrum.dtype != wanted:
        _refuse(f"spectrum has dtype={spectrum.dtype}, {wanted.__name__} is needed for this out")
    nb_channels, nb_frames = spectrum.shape[0], spectrum.shape[1]
    if out.shape[0] != nb_frames or out.shape[1] != (1 if mono else nb_channels):
        _refuse("out must have shape (nb_frames, nb_channels or 1, nb_bins): "
                f"({nb_frames}, {1 if mono else nb_channels}, any)")
    if nb_channels == 0:
        _refuse("spectrum has no channels; at least one is needed")
    if nb_bins == 0 or nb_bins > spectrum.shape[2]:
        _refuse(f"out has {nb_bins} bins, the spectrum {spectrum.shape[2]}")
    if nb_frames == 0:
        return
    if spectrum.strides[2] != spectrum.itemsize:
        _refuse("bins of spectrum must be adjacent in memory, they are "
                f"{spectrum.strides[2]} bytes apart")
    parts = spectrum.view(np.float32 if sizeof(real) == 4 else np.float64)
    scale = 1.0 / nb_channels if mono else 1.0
    _describe(&parts_at, "spectrum", &parts[0, 0, 0], sizeof(real), 3, parts.shape, parts.strides)
    _describe(&out_at, "out", &out[0, 0, 0], sizeof(real), 3, out.shape, out.strides)
    _check_rows("out", sizeof(real), 3, out.shape, out.strides, True)
    if _meet(&out_at, &parts_at):
        _check_apart("out", out, "spectrum", spectrum)
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
