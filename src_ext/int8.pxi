# Weights of eight bits, included by cpu.pyx.

# Sums of so many products of bytes do not overflow 32 bits, whatever is added to the bytes.
cdef Py_ssize_t _MAX_INT8_HIDDEN = 2**16


cdef class Int8Weights:
    """A matrix of int8 as `Kernels.pack_linear` or `Kernels.pack_recurrent` packed it.

    Attributes
    ----------
    panels : ndarray of int8 [shape=(panels, ceil(k / 4), width, 4)]
        Four neighbouring k side by side, zero padded.
    scale : ndarray of float32 [shape=(panels * width,)]
        What a product of bytes is multiplied by.
    sums : ndarray of int32 [shape=(blocks, panels * width)]
        What sums begin with, by blocks of 512 k or of all; without blocks where they begin with 0.
    """

    cdef readonly object panels, scale, sums
    cdef Py_ssize_t k
    cdef const signed char *panels_at
    cdef const float *scale_at
    cdef const int *sums_at

    def __init__(self):
        raise TypeError("weights of eight bits are made by Kernels.pack_linear and pack_recurrent")


cdef Int8Weights _pack_int8(
    rows, scale, Py_ssize_t width, Py_ssize_t block, int offset
):
    # rows (panels * width, k) int8, a scale for each. Blocks of `block` k have sums of their own.
    cdef const signed char[:, :, :, ::1] panels_view
    cdef const float[::1] scale_view
    cdef const int[:, ::1] sums_view
    cdef Int8Weights packed = Int8Weights.__new__(Int8Weights)
    count, k = rows.shape
    quads = (k + 3) // 4
    panels = np.zeros((count // width, quads, width, 4), np.int8)
    for panel, some in zip(panels, rows.reshape(-1, width, k)):
        padded = np.zeros((width, 4 * quads), np.int8)
        padded[:, :k] = some
        panel[...] = padded.reshape(width, quads, 4).swapaxes(0, 1)
    blocks = range(0, k, block) if offset else ()
    sums = np.zeros((len(blocks), count), np.int32)
    for i, start in enumerate(blocks):
        sums[i] = -offset * rows[:, start : start + block].sum(axis=1, dtype=np.int32)
    packed.panels, packed.scale, packed.sums = panels, np.array(scale, np.float32), sums
    for array in (packed.panels, packed.scale, packed.sums):
        array.flags.writeable = False
    panels_view, scale_view, packed.k = packed.panels, packed.scale, k
    packed.panels_at, packed.scale_at = &panels_view[0, 0, 0, 0], &scale_view[0]
    packed.sums_at = NULL
    if offset:
        sums_view = packed.sums
        packed.sums_at = &sums_view[0, 0]
    return packed


def _checked_int8(str name, weight, scale):
    # A matrix of int8 and a scale for each of its rows, as arrays.
    weight, scale = np.asarray(weight), np.asarray(scale)
    if weight.ndim != 2 or weight.dtype != np.int8 or 0 in weight.shape:
        _refuse(f"{name} is {weight.dtype} of shape {weight.shape}, int8 of 2 dimensions is needed "
                "with a scale")
    if scale.shape != weight.shape[:1] or scale.dtype != np.float32:
        _refuse(f"scale is {scale.dtype} of shape {scale.shape}, float32 of {weight.shape[:1]} is "
                "needed: one a row")
    return weight, scale
