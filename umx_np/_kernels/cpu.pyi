from typing import Any

import numpy as np

def round_to_bf16(x: np.ndarray) -> np.ndarray: ...
def levels() -> dict[str, bool]: ...

class Int8Weights:
    panels: np.ndarray
    scale: np.ndarray
    sums: np.ndarray

class Kernels:
    level: str
    lanes: int
    has_bf16_gemm: bool
    int8_products: str
    def __init__(self, level: str = ...) -> None: ...
    def pack_linear(
        self, weight: np.ndarray, *, bf16: bool = ..., scale: np.ndarray | None = ...
    ) -> Any: ...
    def unpack_linear(self, packed: np.ndarray, n: int) -> np.ndarray: ...
    def gemm(
        self,
        a: np.ndarray,
        w: np.ndarray | Int8Weights,
        out: np.ndarray,
        *,
        a_shift: np.ndarray | None = ...,
        a_scale: np.ndarray | None = ...,
        accumulate: bool = ...,
        finish: bool = ...,
        scale: np.ndarray | None = ...,
        bias: np.ndarray | None = ...,
        act: str | None = ...,
        gain: np.ndarray | None = ...,
    ) -> None: ...
    def padded_size(self, hidden: int) -> int: ...
    def pack_gates(self, rows_of_gates: np.ndarray, hidden: int) -> np.ndarray: ...
    def unpack_gates(self, packed: np.ndarray, hidden: int) -> np.ndarray: ...
    def pack_recurrent(
        self, weight_hh: np.ndarray, *, bf16: bool = ..., scale: np.ndarray | None = ...
    ) -> Any: ...
    def unpack_recurrent(self, packed: np.ndarray) -> np.ndarray: ...
    def lstm_scan(
        self,
        gates: np.ndarray,
        w: np.ndarray | Int8Weights,
        h: np.ndarray,
        c: np.ndarray,
        out: np.ndarray,
        *,
        reverse: bool = ...,
    ) -> None: ...
    def wiener(
        self,
        mix: np.ndarray,
        mags: np.ndarray,
        y: np.ndarray | None,
        *,
        bin_start: int,
        bin_stop: int,
        iterations: int,
        max_abs: float,
        eps: float,
        softmask: bool = ...,
        residual: bool = ...,
        r: np.ndarray | None = ...,
        level: int | None = ...,
    ) -> Any: ...
    def wiener_gradient(
        self,
        mix: np.ndarray,
        mags: np.ndarray,
        d_y: np.ndarray,
        d_mags: np.ndarray,
        *,
        bin_start: int,
        bin_stop: int,
        max_abs: float,
        eps: float,
    ) -> None: ...
