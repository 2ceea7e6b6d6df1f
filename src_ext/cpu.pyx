# The C kernels of src_ext/kernels as Python calls: shapes are checked, the GIL is released.
# One `Kernels` object stands for one instruction-set level.
#
# Arrays are checked here and in the included files, once, because the C code trusts its arguments.
# Everything about packing is here too, so that only this file and the kernels know the packed
# layouts.

import numpy as np
from libc.string cimport memset

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

include "checks.pxi"
include "kernels.pxi"
include "arrays.pxi"
include "int8.pxi"


ACTIVATIONS = {None: 0, "tanh": 1, "relu": 2}


def levels():
    """Names of the compiled instruction-set levels, each with whether this processor runs it."""
    return {
        umx_level_name(i).decode(): umx_level(i) != NULL for i in range(umx_nb_levels())
    }


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
    cdef readonly str int8_products

    def __cinit__(self, str level="auto"):
        cdef int i
        for i in reversed(range(umx_nb_levels())):
            name = umx_level_name(i).decode()
            if level in ("auto", name) and umx_level(i) != NULL:
                self.table = umx_level(i)
                self.level = name
                self.lanes = self.table.lanes
                self.has_bf16_gemm = self.table.gemm_bf16 != NULL
                self.int8_products = self.table.int8_products.decode()
                return
        raise ValueError(f"level={level!r} cannot run here; levels: {levels()}")

    cdef Py_ssize_t _panels(self, Py_ssize_t rows, Py_ssize_t width) noexcept:
        return rows // width + (rows % width != 0)

    cdef int _refuse_packed(self, str name, w, Py_ssize_t columns, tuple wanted) except -1:
        return _refuse(f"packed {name} of shape {w.shape} do not fit the {columns} columns of out: "
                       f"{wanted}")

    cdef const void *_take_weights(
        self, Extent *extent, str name, w, Py_ssize_t columns, Py_ssize_t panels, Py_ssize_t k,
        Py_ssize_t width, bint *bf16,
    ) except NULL:
        # Packed by `pack_linear` or `pack_recurrent`: (panels, k, width) numbers of float32, pairs
        # of bfloat16 of two neighbouring k side by side, or `Int8Weights`.
        cdef const float[:, :, ::1] w32
        cdef const unsigned short[:, :, ::1] w16
        cdef Int8Weights w8
        if isinstance(w, Int8Weights):
            w8 = w
            shape = (panels, k // 4 + (k % 4 != 0), width, 4)
            if w8.panels.shape != shape or w8.k != k or (w8.sums_at == NULL) != (
                self.table.int8_offset == 0
            ):
                self._refuse_packed(name, w8.panels, columns, shape)
            # Nobody else can write to them, so they overlap no output.
            extent.first = extent.stop = <size_t>w8.panels_at
            bf16[0] = False
            return w8.panels_at
        if not isinstance(w, np.ndarray) or w.ndim != 3 or not w.flags.c_contiguous:
            _refuse(f"{name} must be a contiguous array as packed here")
        bf16[0] = w.dtype == np.uint16
        if bf16[0]:
            k, width = k // 2 + k % 2, 2 * width
            w16 = w
            if w16.shape[0] != panels or w16.shape[1] != k or w16.shape[2] != width:
                self._refuse_packed(name, w, columns, (panels, k, width))
            _describe(extent, name, &w16[0, 0, 0], 2, 3, w16.shape, w16.strides)
            return &w16[0, 0, 0]
        if w.dtype != np.float32:
            _refuse(f"{name} have dtype={w.dtype}, float32 or uint16 is needed")
        w32 = w
        if w32.shape[0] != panels or w32.shape[1] != k or w32.shape[2] != width:
            self._refuse_packed(name, w, columns, (panels, k, width))
        _describe(extent, name, &w32[0, 0, 0], 4, 3, w32.shape, w32.strides)
        return &w32[0, 0, 0]

    def _packed(self, str name, packed):
        packed = np.asarray(packed)
        if packed.ndim != 3 or packed.dtype != np.float32:
            _refuse(f"{name} have dtype={packed.dtype} and shape {packed.shape}, float32 of 3 "
                    "dimensions is needed")
        return packed

    # -- matrix product ---------------------------------------------------------------------------

    def pack_linear(self, weight, *, bf16=False, scale=None):
        """Copy ``weight`` [shape=(n, k)] to panels [shape=(ceil(n / nr), k, nr)], zero padded.

        With `bf16` the panels are uint16 [shape=(ceil(n / nr), ceil(k / 2), 2 * nr)]. With `scale`
        [shape=(n,)] the weight is int8, the scale is what each row is multiplied by, and the result
        is an `Int8Weights`.
        """
        if scale is not None:
            weight, scale = _checked_int8("weight", weight, scale)
            missing = self._panels(len(weight), self.table.gemm_nr) * self.table.gemm_nr - len(weight)
            return _pack_int8(
                np.pad(weight, ((0, missing), (0, 0))), np.pad(scale, (0, missing)),
                self.table.gemm_nr, UMX_INT8_BLOCK, self.table.int8_offset,
            )
        weight = np.asarray(weight, dtype=np.float32)
        if weight.ndim != 2:
            _refuse(f"weight has shape {weight.shape}, (n, k) is needed")
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
        cdef Py_ssize_t width = self.table.gemm_nr
        packed = self._packed("packed weights", packed)
        panels, k, nr = packed.shape
        if nr != width or n < 0 or n // width + (n % width != 0) != panels:
            _refuse(f"packed weights of shape {packed.shape} are not those of {n} rows in panels of "
                    f"{width}")
        return np.ascontiguousarray(packed.transpose(0, 2, 1).reshape(panels * nr, k)[:n])

    def gemm(
        self,
        const float[:, :] a not None,
        w,
        float[:, :] out not None,
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
        bfloat16 need a processor with such products (`has_bf16_gemm`). With weights of eight bits
        `A'` is rounded, too; see src_ext/kernels/int8_body.h.
        """
        cdef umx_gemm_args g
        cdef Extent out_at, a_at, w_at, shift_at, a_scale_at, scale_at, bias_at, gain_at
        cdef bint bf16
        cdef int failed
        cdef int (*gemm)(const umx_gemm_args *) noexcept nogil
        g.m = a.shape[0]
        g.k = a.shape[1]
        g.n = out.shape[1]
        if g.k < 1 or g.n < 1:
            _refuse(f"k={g.k} and n={g.n} must be positive")
        if out.shape[0] != g.m:
            _refuse(f"out has {out.shape[0]} rows, a has {g.m}")
        _take_matrix(&out_at, "out", out, g.m, g.n, True)
        _take_matrix(&a_at, "a", a, g.m, g.k, False)
        g.w = self._take_weights(
            &w_at, "weights", w, g.n, self._panels(g.n, self.table.gemm_nr), g.k,
            self.table.gemm_nr, &bf16,
        )
        if bf16 and self.table.gemm_bf16 == NULL:
            _refuse(f"level={self.level} has no bfloat16 products")
        if (a_shift is None) != (a_scale is None):
            _refuse(f"{'a_shift' if a_shift is None else 'a_scale'} is missing: both or none")
        if act not in ACTIVATIONS:
            _refuse(f"act={act!r} must be one of {', '.join(map(repr, ACTIVATIONS))}")
        g.a_shift = g.a_scale = g.scale = g.bias = g.gain = NULL
        g.ldg = 0
        if a_shift is not None:
            _take_vector(&shift_at, "a_shift", a_shift, g.k)
            _take_vector(&a_scale_at, "a_scale", a_scale, g.k)
            g.a_shift, g.a_scale = &a_shift[0], &a_scale[0]
            if _meet(&out_at, &shift_at): _check_apart("out", out, "a_shift", a_shift)
            if _meet(&out_at, &a_scale_at): _check_apart("out", out, "a_scale", a_scale)
        if scale is not None:
            _take_vector(&scale_at, "scale", scale, g.n)
            g.scale = &scale[0]
            if _meet(&out_at, &scale_at): _check_apart("out", out, "scale", scale)
        if bias is not None:
            _take_vector(&bias_at, "bias", bias, g.n)
            g.bias = &bias[0]
            if _meet(&out_at, &bias_at): _check_apart("out", out, "bias", bias)
        if gain is not None:
            _take_matrix(&gain_at, "gain", gain, g.m, g.n, False)
            g.gain, g.ldg = &gain[0, 0], gain.strides[0] // 4
            if _meet(&out_at, &gain_at): _check_apart("out", out, "gain", gain)
        if _meet(&out_at, &a_at): _check_apart("out", out, "a", a)
        if _meet(&out_at, &w_at): _check_apart("out", out, "weights", w)
        if g.m == 0:
            return
        if isinstance(w, Int8Weights):
            g.w_scale, g.w_sums = (<Int8Weights>w).scale_at, (<Int8Weights>w).sums_at
        g.a = &a[0, 0]
        g.lda = a.strides[0] // 4
        g.c = &out[0, 0]
        g.ldc = out.strides[0] // 4
        g.accumulate = accumulate
        g.finish = finish
        g.act = ACTIVATIONS[act]
        gemm = self.table.gemm_bf16 if bf16 else self.table.gemm
        if isinstance(w, Int8Weights):
            gemm = self.table.gemm_int8
        with nogil:
            failed = gemm(&g)
        if failed:
            raise MemoryError("no scratch memory for the matrix product")

    # -- LSTM -------------------------------------------------------------------------------------

    def padded_size(self, Py_ssize_t hidden):
        """Units of `hidden` padded to a whole pair of tiles."""
        cdef Py_ssize_t pair = 2 * self.lanes
        if not 0 < hidden <= _MAX_HIDDEN:
            _refuse(f"hidden={hidden} must be from 1 to {_MAX_HIDDEN}")
        return self._panels(hidden, pair) * pair

    def _gate_rows(self, Py_ssize_t hidden):
        # Row of PyTorch's (4 * hidden) gates that each packed gate comes from; -1 is padding.
        units = np.arange(self.padded_size(hidden)).reshape(-1, 1, self.lanes)
        rows = units + hidden * np.arange(4).reshape(1, 4, 1)
        return np.where(units < hidden, rows, -1).reshape(-1)

    def pack_gates(self, rows_of_gates, Py_ssize_t hidden):
        """Reorder the first axis (i, f, g, o; 4 * hidden) to the tile order of the scan."""
        rows = np.asarray(rows_of_gates)
        if rows.ndim == 0 or not 0 < hidden <= _MAX_HIDDEN or len(rows) != 4 * hidden:
            _refuse(f"gates of shape {rows.shape} are not those of hidden={hidden}: 4 a unit")
        order = self._gate_rows(hidden)
        packed = rows[np.maximum(order, 0)]
        packed[order < 0] = 0
        return packed

    def unpack_gates(self, packed, Py_ssize_t hidden):
        """Undo `pack_gates`."""
        packed = np.asarray(packed)
        if packed.ndim == 0 or len(packed) != 4 * self.padded_size(hidden):
            _refuse(f"packed gates of shape {packed.shape} are not those of hidden={hidden}: "
                    f"{4 * self.padded_size(hidden)} rows")
        order = self._gate_rows(hidden)
        rows = np.empty((4 * hidden, *packed.shape[1:]), packed.dtype)
        rows[order[order >= 0]] = packed[order >= 0]
        return rows

    def pack_recurrent(self, weight_hh, *, bf16=False, scale=None):
        """Copy ``weight_hh`` [shape=(4 * hidden, hidden)] to (pairs, hidden, 8 * lanes).

        With `bf16` the result is uint16 [shape=(pairs, ceil(hidden / 2), 16 * lanes)], with `scale`
        an `Int8Weights` as in `pack_linear`.
        """
        if scale is not None:
            weight_hh, scale = _checked_int8("weight_hh", weight_hh, scale)
            hidden = weight_hh.shape[1]
            if hidden > _MAX_INT8_HIDDEN:
                _refuse(f"hidden={hidden} must be at most {_MAX_INT8_HIDDEN} in eight bits")
            # The state is rounded to 127ths.
            steps = self.pack_gates(scale / np.float32(127.0), hidden)
            return _pack_int8(
                self.pack_gates(weight_hh, hidden), steps, 8 * self.lanes, hidden,
                self.table.int8_offset,
            )
        weight_hh = np.asarray(weight_hh, dtype=np.float32)
        if weight_hh.ndim != 2:
            _refuse(f"weight_hh has shape {weight_hh.shape}, (4 * hidden, hidden) is needed")
        hidden = weight_hh.shape[1]
        rows = self.pack_gates(weight_hh, hidden)
        packed = np.ascontiguousarray(rows.reshape(-1, 8 * self.lanes, hidden).transpose(0, 2, 1))
        return _pair_columns(packed) if bf16 else packed

    def unpack_recurrent(self, packed):
        """Undo `pack_recurrent`."""
        packed = self._packed("packed recurrent weights", packed)
        hidden = packed.shape[1]
        return self.unpack_gates(packed.transpose(0, 2, 1).reshape(-1, hidden), hidden)

    def lstm_scan(
        self,
        const float[:, ::1] gates not None,
        w,
        float[::1] h not None,
        float[::1] c not None,
        float[:, :] out not None,
        *,
        bint reverse=False,
    ):
        """Run one direction over some frames; see src_ext/kernels/lstm_body.h.

        `gates` [shape=(nb_frames, 4 * padded)] are packed; `h` and `c` [shape=(padded,)] carry the
        state in and out; `out` [shape=(nb_frames, hidden)].
        """
        cdef umx_scan_args s
        cdef Extent gates_at, w_at, h_at, c_at, out_at
        cdef int failed
        cdef Py_ssize_t padded
        cdef bint bf16
        cdef int (*scan)(const umx_scan_args *) noexcept nogil
        s.nb_frames = gates.shape[0]
        s.hidden = out.shape[1]
        padded = self.padded_size(s.hidden)
        if gates.shape[1] != 4 * padded:
            _refuse(f"gates have {gates.shape[1]} columns, {4 * padded} are needed")
        s.w = self._take_weights(
            &w_at, "recurrent weights", w, s.hidden, padded // (2 * self.lanes), s.hidden,
            8 * self.lanes, &bf16,
        )
        if out.shape[0] != s.nb_frames:
            _refuse(f"out has {out.shape[0]} rows, gates {s.nb_frames}")
        _take_matrix(&gates_at, "gates", gates, s.nb_frames, 4 * padded, False)
        _take_matrix(&out_at, "out", out, s.nb_frames, s.hidden, True)
        _take_vector(&h_at, "h", h, padded)
        _take_vector(&c_at, "c", c, padded)
        if _meet(&h_at, &c_at): _check_apart("h", h, "c", c)
        if _meet(&out_at, &h_at): _check_apart("out", out, "h", h)
        if _meet(&out_at, &c_at): _check_apart("out", out, "c", c)
        if _meet(&out_at, &gates_at): _check_apart("out", out, "gates", gates)
        if _meet(&out_at, &w_at): _check_apart("out", out, "recurrent weights", w)
        if _meet(&h_at, &gates_at): _check_apart("h", h, "gates", gates)
        if _meet(&h_at, &w_at): _check_apart("h", h, "recurrent weights", w)
        if _meet(&c_at, &gates_at): _check_apart("c", c, "gates", gates)
        if _meet(&c_at, &w_at): _check_apart("c", c, "recurrent weights", w)
        if s.nb_frames == 0:
            return
        scan = self.table.lstm_scan_bf16 if bf16 else self.table.lstm_scan
        if isinstance(w, Int8Weights):
            s.w_scale, s.w_sums = (<Int8Weights>w).scale_at, (<Int8Weights>w).sums_at
            scan = self.table.lstm_scan_int8
        s.gates = &gates[0, 0]
        s.h = &h[0]
        s.c = &c[0]
        s.out = &out[0, 0]
        s.ldo = out.strides[0] // 4
        s.reverse = reverse
        with nogil:
            failed = scan(&s)
        if failed:
            raise MemoryError("no scratch memory for the LSTM scan")

    # -- Wiener filter ----------------------------------------------------------------------------

    def wiener(
        self,
        mix,
        const float[:, :, :, ::1] mags not None,
        y,
        *,
        Py_ssize_t bin_start,
        Py_ssize_t bin_stop,
        Py_ssize_t iterations,
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
        cdef Extent mix_at, mags_at, y_at, r_at
        cdef int failed
        cdef Py_ssize_t level_index
        cdef float[:, :, :, ::1] y_view
        _describe_window(&g, &mix_at, &mags_at, mix, mags, bin_start, bin_stop)
        if iterations >= _INT_MAX:
            _refuse(f"iterations={iterations} must be less than {_INT_MAX}")
        if not (iterations >= 0 and max_abs > 0 and eps >= 0):
            _refuse(f"iterations={iterations} or eps={eps} is negative, or max_abs={max_abs} not "
                    "positive")
        # The scratch memory is counted in a Py_ssize_t.
        if (<double>g.nb_targets + 1) * (iterations + 1) > _MAX_STATISTICS:
            _refuse(f"iterations={iterations} of {g.nb_targets} targets are too many")
        g.residual, g.softmask, g.iterations = residual, softmask, <int>iterations
        g.eps, g.max_abs = eps, max_abs
        if r is not None:
            if (r.shape[0] != iterations or r.shape[1] != g.nb_targets + g.residual
                    or r.shape[2] != 4 or r.shape[3] != g.nb_bins):
                _refuse(f"r has shape {(r.shape[0], r.shape[1], r.shape[2], r.shape[3])}, "
                        f"{(iterations, g.nb_targets + g.residual, 4, g.nb_bins)} is needed")
            _describe(&r_at, "r", &r[0, 0, 0, 0], 8, 4, r.shape, r.strides)
            g.r = &r[0, 0, 0, 0] if iterations else NULL
            if _meet(&r_at, &mix_at): _check_apart("r", r, "mix", mix)
            if _meet(&r_at, &mags_at): _check_apart("r", r, "mags", mags)
        if level is not None:
            if r is None:
                _refuse(f"level={level} needs r")
            level_index = level
            if not 0 <= level_index < iterations:
                _refuse(f"level={level} is none of {iterations} iterations")
            if y is not None:
                _refuse(f"y is not written at level={level}; it must be None")
            g.stage = UMX_WIENER_ACCUMULATE
            g.level = <int>level_index
        else:
            g.stage = UMX_WIENER_FILTER if r is not None else UMX_WIENER_WINDOW
            _check_spectra("y", y, 4)
            y_view = y.view(np.float32)
            _take_spectra(&y_at, "y", y_view, &g)
            g.y = &y_view[0, 0, 0, 0]
            if _meet(&y_at, &mix_at): _check_apart("y", y, "mix", mix)
            if _meet(&y_at, &mags_at): _check_apart("y", y, "mags", mags)
            if r is not None and _meet(&y_at, &r_at):
                _check_apart("y", y, "r", r)
        if g.nb_frames == 0 or bin_start == bin_stop:
            return
        with nogil:
            failed = self.table.wiener(&g)
        if failed:
            raise MemoryError("no scratch memory for the Wiener filter")

    def wiener_gradient(
        self,
        mix,
        const float[:, :, :, ::1] mags not None,
        d_y,
        float[:, :, :, ::1] d_mags not None,
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
        cdef Extent mix_at, mags_at, d_y_at, d_mags_at
        cdef int failed
        cdef const float[:, :, :, ::1] d_y_view
        _describe_window(&g.filter, &mix_at, &mags_at, mix, mags, bin_start, bin_stop)
        if not (max_abs > 0 and eps > 0):
            _refuse(f"max_abs={max_abs} and eps={eps} must be positive")
        if <double>g.filter.nb_targets * (g.filter.nb_frames + 1) > _MAX_STATISTICS:
            _refuse(f"{g.filter.nb_frames} frames of {g.filter.nb_targets} targets are too many")
        _check_spectra("d_y", d_y, 4)
        d_y_view = d_y.view(np.float32)
        _take_spectra(&d_y_at, "d_y", d_y_view, &g.filter)
        if (d_mags.shape[0] != mags.shape[0] or d_mags.shape[1] != mags.shape[1]
                or d_mags.shape[2] != mags.shape[2] or d_mags.shape[3] != mags.shape[3]):
            _refuse(f"d_mags have shape {_shape(d_mags)}, mags {_shape(mags)}")
        _describe(&d_mags_at, "d_mags", &d_mags[0, 0, 0, 0], 4, 4, d_mags.shape, d_mags.strides)
        if _meet(&d_mags_at, &mix_at): _check_apart("d_mags", d_mags, "mix", mix)
        if _meet(&d_mags_at, &mags_at): _check_apart("d_mags", d_mags, "mags", mags)
        if _meet(&d_mags_at, &d_y_at): _check_apart("d_mags", d_mags, "d_y", d_y)
        if g.filter.nb_frames == 0 or bin_start == bin_stop:
            return
        g.filter.iterations = 1
        g.filter.eps, g.filter.max_abs = eps, max_abs
        g.d_y = &d_y_view[0, 0, 0, 0]
        g.d_mags = &d_mags[0, 0, 0, 0]
        with nogil:
            failed = self.table.wiener_gradient(&g)
        if failed:
            raise MemoryError("no scratch memory for the gradient of the Wiener filter")
