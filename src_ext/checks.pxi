# What both extensions look at before a pointer is taken. The C code trusts its arguments, so every
# entry describes each array, and an output must neither overlap an input nor itself.
#
# Messages are put together only where something is wrong: a check costs some nanoseconds.


cdef struct Extent:
    # Addresses of the first byte of an array and of the one after its last.
    size_t first, stop


cdef int _refuse(str message) except -1:
    raise ValueError(message)


cdef int _describe(
    Extent *extent, str name, const void *data, Py_ssize_t item, int ndim,
    const Py_ssize_t *shape, const Py_ssize_t *strides,
) except -1:
    # Where the array lies; all its elements have to be aligned.
    cdef Py_ssize_t reach, odd = <Py_ssize_t>(<size_t>data % <size_t>item)
    cdef int i
    extent.first = extent.stop = <size_t>data
    for i in range(ndim):
        if shape[i] == 0:
            return 0
        if shape[i] > 1:
            odd |= strides[i] % item
            reach = (shape[i] - 1) * strides[i]
            if reach < 0:
                extent.first += <size_t>reach
            else:
                extent.stop += <size_t>reach
    extent.stop += <size_t>item
    if odd:
        _refuse(f"{name} is not aligned: its numbers must lie at multiples of {item} bytes; copy it")
    return 0


cdef int _check_rows(
    str name, Py_ssize_t item, int ndim, const Py_ssize_t *shape, const Py_ssize_t *strides,
    bint written,
) except -1:
    # Numbers of a row must be adjacent, and rows that are written must not overlap: sorted by their
    # strides, each axis steps over all of the shorter ones.
    cdef Py_ssize_t step, best, covered
    cdef int i, axis, last = ndim - 1, done = 1 << last
    for i in range(ndim):
        if shape[i] == 0:
            # NumPy gives an array without numbers any strides.
            return 0
    if strides[last] != item and shape[last] > 1:
        _refuse(f"samples, bins or columns of {name} must be adjacent in memory, they are "
                f"{strides[last]} bytes apart")
    if not written:
        return 0
    covered = item * shape[last]
    for i in range(last):
        axis, best = -1, 0
        for j in range(last):
            step = -strides[j] if strides[j] < 0 else strides[j]
            if not done >> j & 1 and (axis < 0 or step < best):
                axis, best = j, step
        done |= 1 << axis
        if shape[axis] > 1:
            if best < covered:
                _refuse(f"rows of {name}, which is written to, overlap in memory")
            covered = best * shape[axis]
    return 0


cdef inline bint _meet(const Extent *one, const Extent *two) noexcept:
    return one.first < two.stop and two.first < one.stop


cdef int _check_apart(str name, output, str other_name, other) except -1:
    # For arrays that meet: rows may still lie between those of the other.
    output, other = np.asarray(output), np.asarray(other)
    if np.shares_memory(output, other):
        _refuse(f"{name} overlaps {other_name} in memory; copy one of them")
    return 0
