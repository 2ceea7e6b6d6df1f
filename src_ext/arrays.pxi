# Arrays as the kernels take them: vectors, matrices, spectra, the window of the Wiener filter, and
# weights in bfloat16.

def round_to_bf16(x):
    """The upper halves of float32 numbers, rounded to nearest even: uint16 of the same shape."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def _pair_columns(packed):
    # (panels, k, width) float32 to (panels, ceil(k / 2), 2 * width) bfloat16, two k side by side.
    panels, k, width = packed.shape
    rounded = np.zeros((panels, (k + 1) // 2, 2, width), np.uint16)
    rounded.reshape(panels, -1, width)[:, :k] = round_to_bf16(packed)
    return np.ascontiguousarray(rounded.transpose(0, 1, 3, 2)).reshape(panels, -1, 2 * width)


cdef Py_ssize_t _INT_MAX = 2**31 - 1
# No memory holds the weights of so many units, and what is computed from fewer does not overflow.
cdef Py_ssize_t _MAX_HIDDEN = 2**24
# Levels or frames, times sources, of which the Wiener filter keeps statistics: 1024 doubles each at
# most, whose bytes a Py_ssize_t must count.
cdef double _MAX_STATISTICS = PY_SSIZE_T_MAX // 2**15


cdef int _check_length(str name, Py_ssize_t found, Py_ssize_t length) except -1:
    if found != length:
        _refuse(f"{name} has length {found}, {length} is needed")
    return 0


cdef int _take_vector(
    Extent *extent, str name, const float[::1] x, Py_ssize_t length
) except -1:
    _check_length(name, x.shape[0], length)
    return _describe(extent, name, &x[0], 4, 1, x.shape, x.strides)


cdef int _take_matrix(
    Extent *extent, str name, const float[:, :] x, Py_ssize_t rows, Py_ssize_t columns, bint written
) except -1:
    if x.shape[0] != rows or x.shape[1] != columns:
        _refuse(f"{name} has shape {(x.shape[0], x.shape[1])}, {(rows, columns)} is needed")
    _describe(extent, name, &x[0, 0], 4, 2, x.shape, x.strides)
    return _check_rows(name, 4, 2, x.shape, x.strides, written)


cdef tuple _shape(const float[:, :, :, :] x):
    return x.shape[0], x.shape[1], x.shape[2], x.shape[3]


cdef int _check_spectra(str name, x, int ndim) except -1:
    # Before it is taken for pairs of numbers.
    if not isinstance(x, np.ndarray) or x.ndim != ndim or x.dtype != np.complex64:
        found = type(x).__name__
        if isinstance(x, np.ndarray):
            found = f"{x.dtype} of {x.ndim} dimensions"
        _refuse(f"{name} is {found}, complex64 of {ndim} dimensions is needed")
    if not x.flags.c_contiguous:
        _refuse(f"{name} is not contiguous; copy it")
    return 0


cdef int _take_spectra(
    Extent *extent, str name, const float[:, :, :, ::1] x, umx_wiener_args *g
) except -1:
    # Estimates of all sources, or their gradient.
    cdef Py_ssize_t sources = g.nb_targets + (1 if g.residual else 0)
    if (x.shape[0] != sources or x.shape[1] != g.nb_channels or x.shape[2] != g.nb_frames
            or x.shape[3] != 2 * g.nb_bins):
        _refuse(f"{name} is complex64 of shape "
                f"{(x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2)}, "
                f"{(sources, g.nb_channels, g.nb_frames, g.nb_bins)} is needed")
    return _describe(extent, name, &x[0, 0, 0, 0], 4, 4, x.shape, x.strides)


cdef int _describe_window(
    umx_wiener_args *g, Extent *mix_at, Extent *mags_at, mix, const float[:, :, :, ::1] mags,
    Py_ssize_t first, Py_ssize_t stop,
) except -1:
    # Arrays and sizes of a window, all else 0.
    cdef const float[:, :, ::1] mix_view
    _check_spectra("mix", mix, 3)
    mix_view = mix.view(np.float32)
    if mix_view.shape[0] != 1 and mix_view.shape[0] != 2:
        _refuse(f"nb_channels={mix_view.shape[0]} must be 1 or 2")
    if mags.shape[2] != 1 and mags.shape[2] != mix_view.shape[0]:
        _refuse(f"mags have {mags.shape[2]} channels, mix {mix_view.shape[0]}; they need as many, "
                "or one")
    if not 0 < mags.shape[0] < _INT_MAX:
        _refuse(f"mags are of {mags.shape[0]} targets; at least one is needed, at most {_INT_MAX}")
    memset(g, 0, sizeof(umx_wiener_args))
    g.nb_channels = <int>mix_view.shape[0]
    g.nb_frames = mix_view.shape[1]
    g.nb_bins = mix_view.shape[2] // 2
    g.nb_targets = <int>mags.shape[0]
    g.mag_channels = <int>mags.shape[2]
    if mags.shape[1] != g.nb_frames or mags.shape[3] != g.nb_bins:
        _refuse(f"mags have {mags.shape[1]} frames of {mags.shape[3]} bins, mix {g.nb_frames} of "
                f"{g.nb_bins}")
    if not 0 <= first <= stop <= g.nb_bins:
        _refuse(f"bins [{first}, {stop}) are not among the {g.nb_bins} of mix")
    _describe(mix_at, "mix", &mix_view[0, 0, 0], 4, 3, mix_view.shape, mix_view.strides)
    _describe(mags_at, "mags", &mags[0, 0, 0, 0], 4, 4, mags.shape, mags.strides)
    g.bin_start, g.bin_stop = first, stop
    g.mix = &mix_view[0, 0, 0]
    g.mags = &mags[0, 0, 0, 0]
    return 0
