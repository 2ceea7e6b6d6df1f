# The C kernels of src_ext/kernels as Python calls: shapes are checked, the GIL is released.
# One `Kernels` object stands for one instruction-set level.
#
# Arrays are checked here, once, because the C code trusts its arguments. Everything about packing
# is here too, so that only this file and the kernels know the packed layouts.

import numpy as np
from libc.string cimport memset

cdef extern from "kernels.h" nogil:
    ctypedef struct umx_gemm_args:
        Py_ssize_t m, n, k
        const float *a
        Py_ssize_t lda
        const float *a_shift
        const float *a_scale
        const void *w
        float *c
        Py_ssize_t ldc
        int accumulate, finish
        const float *scale
        const float *bias
        int act
        const float *gain
        Py_ssize_t ldg
    ctypedef struct umx_scan_args:
        Py_ssize_t nb_frames, hidden
        const float *gates
        const void *w
        float *h
        float *c
        float *out
        Py_ssize_t ldo
        int reverse
    ctypedef struct umx_wiener_args:
        Py_ssize_t nb_frames, nb_bins, bin_start, bin_stop
        int nb_channels, mag_channels, nb_targets, residual, softmask, iterations
        double eps, max_abs
        const float *mix
        const float *mags
        float *y
        double *r
        int stage, level
    ctypedef struct umx_wiener_gradient_args:
        umx_wiener_args filter
        const float *d_y
        float *d_mags
    ctypedef struct umx_kernels:
        const char *name
        int lanes, gemm_nr
        int (*gemm)(const umx_gemm_args *) noexcept nogil
        int (*lstm_scan)(const umx_scan_args *) noexcept nogil
        int (*gemm_bf16)(const umx_gemm_args *) noexcept nogil
        int (*lstm_scan_bf16)(const umx_scan_args *) noexcept nogil
        int (*wiener)(const umx_wiener_args *) noexcept nogil
        int (*wiener_gradient)(const umx_wiener_gradient_args *) noexcept nogil
    int umx_nb_levels()
    const umx_kernels *umx_level(int)
    const char *umx_level_name(int)
    int UMX_WIENER_WINDOW, UMX_WIENER_ACCUMULATE, UMX_WIENER_FILTER


ACTIVATIONS = {None: 0, "tanh": 1, "relu": 2}


def levels():
    """Names of the compiled instruction-set levels, each with whether this processor runs it."""
    return {
        umx_level_name(i).decode(): umx_level(i) != NULL for i in range(umx_nb_levels())
    }


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


cdef int _check(bint good, str message) except -1:
    if not good:
        raise ValueError(message)
    return 0


cdef int _check_length(str name, const float[:] x, Py_ssize_t length) except -1:
    return _check(x.shape[0] == length, f"{name} has length {x.shape[0]}, {length} is needed")


cdef int _check_columns(str name, const float[:, :] x) except -1:
    return _check(x.strides[1] == 4 or x.shape[1] == 1,
                  f"columns of {name} must be adjacent, they are {x.strides[1]} bytes apart")


cdef tuple _shape(const float[:, :, :, :] x):
    return x.shape[0], x.shape[1], x.shape[2], x.shape[3]


cdef int _describe_window(
    umx_wiener_args *g, mix, const float[:, :, :, ::1] mags, Py_ssize_t first, Py_ssize_t stop
) except -1:
    # Arrays and sizes of a window, all else 0; returns 0 where there is nothing to do.
    cdef const float[:, :, ::1] mix_view = mix.view(np.float32)
    _check(mix.dtype == np.complex64, f"mix has dtype={mix.dtype}, not complex64")
    memset(g, 0, sizeof(umx_wiener_args))
    g.nb_channels = mix_view.shape[0]
    g.nb_frames = mix_view.shape[1]
    g.nb_bins = mix_view.shape[2] // 2
    g.nb_targets = mags.shape[0]
    g.mag_channels = mags.shape[2]
    if g.nb_frames == 0 or first == stop:
        return 0
    _check(g.nb_channels in (1, 2), f"nb_channels={g.nb_channels} must be 1 or 2")
    _check(g.mag_channels in (1, g.nb_channels),
           f"mags have {g.mag_channels} channels, mix {g.nb_channels}; they need as many, or one")
    _check(g.nb_targets > 0, "mags are of 0 targets; at least one is needed")
    _check(mags.shape[1] == g.nb_frames and mags.shape[3] == g.nb_bins,
           f"mags have {mags.shape[1]} frames of {mags.shape[3]} bins, mix {g.nb_frames} of "
           f"{g.nb_bins}")
    _check(0 <= first < stop <= g.nb_bins,
           f"bins [{first}, {stop}) are not among the {g.nb_bins} of mix")
    g.bin_start, g.bin_stop = first, stop
    g.mix = &mix_view[0, 0, 0]
    g.mags = &mags[0, 0, 0, 0]
    return 1


cdef class Kernels:
    """The kernels of one instruction-set level.

    Parameters
    ----------
    level : str
        A name from `levels()` that this processor runs, or ``"auto"`` for the best one.
    """

    cdef const umx_kernels *table
    cdef readonly str level
    cdef readonly int lanes
    cdef readonly bint has_bf16_gemm

    def __cinit__(self, str level="auto"):
        cdef int i
        for i in reversed(range(umx_nb_levels())):
            name = umx_level_name(i).decode()
            if level in ("auto", name) and umx_level(i) != NULL:
                self.table = umx_level(i)
                self.level = name
                self.lanes = self.table.lanes
                self.has_bf16_gemm = self.table.gemm_bf16 != NULL
                return
        raise ValueError(f"level={level!r} cannot run here; levels: {levels()}")

    # -- matrix product ---------------------------------------------------------------------------

    def pack_linear(self, weight, *, bf16=False):
        """Copy ``weight`` [shape=(n, k)] to panels [shape=(ceil(n / nr), k, nr)], zero padded.

        With `bf16` the panels are uint16 [shape=(ceil(n / nr), ceil(k / 2), 2 * nr)].
        """
        weight = np.asarray(weight, dtype=np.float32)
        n, k = weight.shape
        nr = self.table.gemm_nr
        panels = (n + nr - 1) // nr
        packed = np.zeros((panels, k, nr), np.float32)
        for panel in range(panels):
            rows = weight[panel * nr : (panel + 1) * nr]
            packed[panel, :, : len(rows)] = rows.T
        return _pair_columns(packed) if bf16 else packed

    def unpack_linear(self, packed, Py_ssize_t n):
        """Undo `pack_linear`: the weight [shape=(n, k)]."""
        panels, k, nr = packed.shape
        return np.ascontiguousarray(packed.transpose(0, 2, 1).reshape(panels * nr, k)[:n])

    def gemm(
        self,
        const float[:, :] a,
        w,
        float[:, :] out,
        *,
        const float[::1] a_shift=None,
        const float[::1] a_scale=None,
        bint accumulate=False,
        bint finish=True,
        const float[::1] scale=None,
        const float[::1] bias=None,
        act=None,
        const float[:, :] gain=None,
    ):
        """Matrix product with packed weights; see src_ext/kernels/gemm_body.h.

        ``out = act((A' w^T + (out if accumulate else 0)) * scale + bias) * gain`` with
        ``A' = (a + a_shift) * a_scale``; without `finish` the plain sum is left in `out`.
        Rows of `a`, `out` and `gain` may be apart, their columns must be adjacent. Weights in
        bfloat16 need a processor with such products (`has_bf16_gemm`).
        """
        cdef umx_gemm_args g
        cdef bint bf16 = w.dtype == np.uint16
        cdef const float[:, :, ::1] w32
        cdef const unsigned short[:, :, ::1] w16
        cdef int failed
        g.m = a.shape[0]
        g.k = a.shape[1]
        g.n = out.shape[1]
        if g.m == 0:
            return
        _check(g.k > 0 and g.n > 0, f"k={g.k} and n={g.n} must be positive")
        _check(out.shape[0] == g.m, f"out has {out.shape[0]} rows, a has {g.m}")
        nr, panels = self.table.gemm_nr, (g.n + self.table.gemm_nr - 1) // self.table.gemm_nr
        fitting = (panels, (g.k + 1) // 2, 2 * nr) if bf16 else (panels, g.k, nr)
        _check(w.shape == fitting,
               f"packed weights of shape {w.shape} do not fit k={g.k}, n={g.n}: {fitting}")
        _check(not bf16 or self.has_bf16_gemm, f"level={self.level} has no bfloat16 products")
        _check_columns("a", a)
        _check_columns("out", out)
        _check((a_shift is None) == (a_scale is None),
               f"{'a_shift' if a_shift is None else 'a_scale'} is missing: both or none")
        if a_shift is not None:
            _check_length("a_shift", a_shift, g.k)
            _check_length("a_scale", a_scale, g.k)
        if scale is not None:
            _check_length("scale", scale, g.n)
        if bias is not None:
            _check_length("bias", bias, g.n)
        if gain is not None:
            _check(gain.shape[0] == g.m and gain.shape[1] == g.n,
                   f"gain has shape {(gain.shape[0], gain.shape[1])}, out {(g.m, g.n)}")
            _check_columns("gain", gain)
        g.a = &a[0, 0]
        g.lda = a.strides[0] // 4
        g.a_shift = &a_shift[0] if a_shift is not None else NULL
        g.a_scale = &a_scale[0] if a_scale is not None else NULL
        if bf16:
            w16 = w
            g.w = &w16[0, 0, 0]
        else:
            w32 = w
            g.w = &w32[0, 0, 0]
        g.c = &out[0, 0]
        g.ldc = out.strides[0] // 4
        g.accumulate = accumulate
        g.finish = finish
        g.scale = &scale[0] if scale is not None else NULL
        g.bias = &bias[0] if bias is not None else NULL
        g.act = ACTIVATIONS[act]
        g.gain = &gain[0, 0] if gain is not None else NULL
        g.ldg = gain.strides[0] // 4 if gain is not None else 0
        with nogil:
            failed = self.table.gemm_bf16(&g) if bf16 else self.table.gemm(&g)
        if failed:
            raise MemoryError("no scratch memory for the matrix product")

    # -- LSTM -------------------------------------------------------------------------------------

    def padded_size(self, Py_ssize_t hidden):
        """Units of `hidden` padded to a whole pair of tiles."""
        pair = 2 * self.lanes
        return (hidden + pair - 1) // pair * pair

    def _gate_rows(self, Py_ssize_t hidden):
        # Row of PyTorch's (4 * hidden) gates that each packed gate comes from; -1 is padding.
        units = np.arange(self.padded_size(hidden)).reshape(-1, 1, self.lanes)
        rows = units + hidden * np.arange(4).reshape(1, 4, 1)
        return np.where(units < hidden, rows, -1).reshape(-1)

    def pack_gates(self, rows_of_gates, Py_ssize_t hidden):
        """Reorder the first axis (i, f, g, o; 4 * hidden) to the tile order of the scan."""
        order = self._gate_rows(hidden)
        packed = np.asarray(rows_of_gates)[np.maximum(order, 0)]
        packed[order < 0] = 0
        return packed

    def unpack_gates(self, packed, Py_ssize_t hidden):
        """Undo `pack_gates`."""
        order = self._gate_rows(hidden)
        rows = np.empty((4 * hidden, *packed.shape[1:]), packed.dtype)
        rows[order[order >= 0]] = packed[order >= 0]
        return rows

    def pack_recurrent(self, weight_hh, *, bf16=False):
        """Copy ``weight_hh`` [shape=(4 * hidden, hidden)] to (pairs, hidden, 8 * lanes).

        With `bf16` the result is uint16 [shape=(pairs, ceil(hidden / 2), 16 * lanes)].
        """
        weight_hh = np.asarray(weight_hh, dtype=np.float32)
        hidden = weight_hh.shape[1]
        rows = self.pack_gates(weight_hh, hidden)
        packed = np.ascontiguousarray(rows.reshape(-1, 8 * self.lanes, hidden).transpose(0, 2, 1))
        return _pair_columns(packed) if bf16 else packed

    def unpack_recurrent(self, packed):
        """Undo `pack_recurrent`."""
        hidden = packed.shape[1]
        return self.unpack_gates(packed.transpose(0, 2, 1).reshape(-1, hidden), hidden)

    def lstm_scan(
        self,
        const float[:, ::1] gates,
        w,
        float[::1] h,
        float[::1] c,
        float[:, :] out,
        *,
        bint reverse=False,
    ):
        """Run one direction over some frames; see src_ext/kernels/lstm_body.h.

        `gates` [shape=(nb_frames, 4 * padded)] are packed; `h` and `c` [shape=(padded,)] carry the
        state in and out; `out` [shape=(nb_frames, hidden)].
        """
        cdef umx_scan_args s
        cdef int failed
        cdef Py_ssize_t padded
        cdef bint bf16 = w.dtype == np.uint16
        cdef const float[:, :, ::1] w32
        cdef const unsigned short[:, :, ::1] w16
        s.nb_frames = gates.shape[0]
        s.hidden = out.shape[1]
        padded = self.padded_size(s.hidden)
        if s.nb_frames == 0:
            return
        pairs = padded // (2 * self.lanes)
        fitting = (pairs, s.hidden, 8 * self.lanes)
        if bf16:
            fitting = (pairs, (s.hidden + 1) // 2, 16 * self.lanes)
        _check(w.shape == fitting,
               f"packed recurrent weights of shape {w.shape} do not fit the {s.hidden} columns of "
               f"out: {fitting}")
        _check(gates.shape[1] == 4 * padded,
               f"gates have {gates.shape[1]} columns, {4 * padded} are needed")
        _check_length("h", h, padded)
        _check_length("c", c, padded)
        _check(out.shape[0] == s.nb_frames, f"out has {out.shape[0]} rows, gates {s.nb_frames}")
        _check_columns("out", out)
        s.gates = &gates[0, 0]
        if bf16:
            w16 = w
            s.w = &w16[0, 0, 0]
        else:
            w32 = w
            s.w = &w32[0, 0, 0]
        s.h = &h[0]
        s.c = &c[0]
        s.out = &out[0, 0]
        s.ldo = out.strides[0] // 4
        s.reverse = reverse
        with nogil:
            failed = self.table.lstm_scan_bf16(&s) if bf16 else self.table.lstm_scan(&s)
        if failed:
            raise MemoryError("no scratch memory for the LSTM scan")

    # -- Wiener filter ----------------------------------------------------------------------------

    def wiener(
        self,
        mix,
        const float[:, :, :, ::1] mags,
        y,
        *,
        Py_ssize_t bin_start,
        Py_ssize_t bin_stop,
        int iterations,
        double max_abs,
        double eps,
        bint softmask=False,
        bint residual=False,
        double[:, :, :, ::1] r=None,
        level=None,
    ):
        """Filter bins [bin_start, bin_stop); see src_ext/kernels/wiener_body.h.

        `mix` complex64 [shape=(nb_channels, nb_frames, nb_bins)], `mags` [shape=(nb_targets,
        nb_frames, mag_channels, nb_bins)], `y` complex64 [shape=(nb_sources, nb_channels,
        nb_frames, nb_bins)]. Without `r` all iterations run on these frames. With `r`
        [shape=(iterations, nb_sources, 4, nb_bins)] either the sums of `level` are added to it
        (`y` is None) or, without `level`, `y` is filtered from it.
        """
        cdef umx_wiener_args g
        cdef int failed
        cdef float[:, :, :, ::1] y_view
        if _describe_window(&g, mix, mags, bin_start, bin_stop) == 0:
            return
        _check(iterations >= 0 and max_abs > 0 and eps >= 0,
               f"iterations={iterations} or eps={eps} is negative, or max_abs={max_abs} not positive")
        g.residual, g.softmask, g.iterations = residual, softmask, iterations
        g.eps, g.max_abs = eps, max_abs
        if r is not None:
            shape = r.shape[0], r.shape[1], r.shape[2], r.shape[3]
            fitting = iterations, g.nb_targets + g.residual, 4, g.nb_bins
            _check(shape == fitting, f"r has shape {shape}, {fitting} is needed")
            g.r = &r[0, 0, 0, 0] if iterations else NULL
        if level is not None:
            _check(r is not None, f"level={level} needs r")
            _check(0 <= level < iterations, f"level={level} is none of {iterations} iterations")
            g.stage = UMX_WIENER_ACCUMULATE
            g.level = level
        else:
            g.stage = UMX_WIENER_FILTER if r is not None else UMX_WIENER_WINDOW
            y_view = y.view(np.float32)
            fitting = g.nb_targets + g.residual, g.nb_channels, g.nb_frames, g.nb_bins
            _check(y.dtype == np.complex64 and y.shape == fitting,
                   f"y is {y.dtype} of shape {y.shape}, complex64 of {fitting} is needed")
            g.y = &y_view[0, 0, 0, 0]
        with nogil:
            failed = self.table.wiener(&g)
        if failed:
            raise MemoryError("no scratch memory for the Wiener filter")

    def wiener_gradient(
        self,
        mix,
        const float[:, :, :, ::1] mags,
        d_y,
        float[:, :, :, ::1] d_mags,
        *,
        Py_ssize_t bin_start,
        Py_ssize_t bin_stop,
        double max_abs,
        double eps,
    ):
        """Gradient of the magnitudes in bins [bin_start, bin_stop) through one iteration.

        See src_ext/kernels/wiener_gradient_body.h. `mix` and `mags` as for `wiener`, `d_y`
        complex64 [shape=(nb_targets, nb_channels, nb_frames, nb_bins)], `d_mags` [shape as `mags`].
        """
        cdef umx_wiener_gradient_args g
        cdef int failed
        cdef const float[:, :, :, ::1] d_y_view = d_y.view(np.float32)
        if _describe_window(&g.filter, mix, mags, bin_start, bin_stop) == 0:
            return
        _check(max_abs > 0 and eps > 0, f"max_abs={max_abs} and eps={eps} must be positive")
        fitting = (g.filter.nb_targets, g.filter.nb_channels, g.filter.nb_frames,
                   g.filter.nb_bins)
        _check(d_y.dtype == np.complex64 and d_y.shape == fitting,
               f"d_y is {d_y.dtype} of shape {d_y.shape}, complex64 of {fitting} is needed")
        _check(_shape(d_mags) == _shape(mags),
               f"d_mags have shape {_shape(d_mags)}, mags {_shape(mags)}")
        g.filter.iterations = 1
        g.filter.eps, g.filter.max_abs = eps, max_abs
        g.d_y = &d_y_view[0, 0, 0, 0]
        g.d_mags = &d_mags[0, 0, 0, 0]
        with nogil:
            failed = self.table.wiener_gradient(&g)
        if failed:
            raise MemoryError("no scratch memory for the gradient of the Wiener filter")
