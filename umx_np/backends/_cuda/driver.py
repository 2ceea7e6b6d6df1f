"""Calls of CUDA's driver that CuPy does not have."""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import cache

logger = logging.getLogger(__name__)

_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION


class _Attribute(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_int),
        ("padding", ctypes.c_char * 4),
        ("value", ctypes.c_uint * 16),
    )


class _LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("nb_attributes", ctypes.c_uint),
    )


@cache
def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def max_active_clusters(function: int, *, block: int, shared: int, cluster: int) -> int:
    """Clusters of a kernel that are resident at a time, or 0 if the driver does not say.

    Parameters
    ----------
    function : int
        Handle of the kernel (CUfunction).
    block : int
        Threads of a block.
    shared : int
        Bytes of dynamic shared memory of a block.
    cluster : int
        Blocks of a cluster.
    """
    ask = getattr(_library(), "cuOccupancyMaxActiveClusters", None)
    if ask is None:
        return 0
    attribute = _Attribute(id=_CLUSTER_DIMENSION)
    attribute.value[:3] = cluster, 1, 1
    config = _LaunchConfig(
        grid=(ctypes.c_uint * 3)(cluster, 1, 1),
        block=(ctypes.c_uint * 3)(block, 1, 1),
        shared_bytes=shared,
        attributes=ctypes.pointer(attribute),
        nb_attributes=1,
    )
    count = ctypes.c_int(0)
    status = ask(ctypes.byref(count), ctypes.c_void_p(function), ctypes.byref(config))
    if status:
        logger.info("cuOccupancyMaxActiveClusters: error %d", status)
        return 0
    return count.value
