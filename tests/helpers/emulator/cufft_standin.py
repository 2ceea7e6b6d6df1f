"""The plans of CuPy's cuFFT that the package makes, with NumPy's transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import empty, plain, use_of
from .streams import operate

CUFFT_FORWARD = -1
CUFFT_INVERSE = 1
CUFFT_R2C = 0x2A
CUFFT_C2R = 0x2C


class CuFFTError(RuntimeError):
    """A call with arguments that cuFFT refuses, or would read or write beside arrays with."""


class Plan1d:
    """`batch` transforms of `nx` real numbers, float32; as cuFFT's, C2R destroys its input."""

    def __init__(self, nx: int, fft_type: int, batch: int) -> None:
        if nx < 1 or batch < 1 or fft_type not in (CUFFT_R2C, CUFFT_C2R):
            raise CuFFTError("CUFFT_INVALID_VALUE")
        self.nx, self.fft_type, self.batch = nx, fft_type, batch
        # cuFFT may need as much as the data takes.
        self.work_area = empty((batch, nx), np.float32)

    def fft(self, a: Any, out: Any, direction: int) -> None:
        real, spectrum = (self.batch, self.nx), (self.batch, self.nx // 2 + 1)
        forward = self.fft_type == CUFFT_R2C
        shapes = (real, spectrum) if forward else (spectrum, real)
        dtypes = (np.float32, np.complex64) if forward else (np.complex64, np.float32)
        for array, shape, dtype in zip((a, out), shapes, dtypes, strict=True):
            if (
                array.dtype != dtype
                or array.size != np.prod(shape)
                or not array.flags.c_contiguous
                or array.data.ptr % array.itemsize
            ):
                raise CuFFTError(f"array {array.dtype} {array.shape} for {np.dtype(dtype)} {shape}")
        if direction != (CUFFT_FORWARD if forward else CUFFT_INVERSE):
            raise CuFFTError("CUFFT_INVALID_VALUE")
        written = [use_of(out), use_of(self.work_area), *([] if forward else [use_of(a)])]
        operate("fft", [use_of(a)], written)
        arrival = plain(a).reshape(shapes[0])
        if forward:
            plain(out).reshape(spectrum)[...] = np.fft.rfft(arrival)
        else:
            plain(out).reshape(real)[...] = np.fft.irfft(arrival, self.nx, norm="forward")
            arrival[...] = np.nan
