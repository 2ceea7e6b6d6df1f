"""The only place with numbers: how far a result may be from its oracle, and why so far.

``TOL[operation][dtype]`` bounds the root mean square of the error:
``atol + rtol * rms(expected)``. `dtype` is the precision of the computation under test. Where a
bound is set by measurement it is at most ten times the largest error seen, which `why` gives.
"""

from __future__ import annotations

from typing import NamedTuple


class Tolerance(NamedTuple):
    """Largest allowed root mean square of an error."""

    rtol: float
    atol: float
    why: str


def decibels(level: float) -> float:
    """Relative error whose level is `level` dB below the signal."""
    return 10.0 ** (-level / 20.0)


TOL: dict[str, dict[str, Tolerance]] = {
    "stft": {
        "float32": Tolerance(5e-7, 0.0, "measured 5.1e-8, a float32 FFT against one in float64"),
        "float64": Tolerance(4e-15, 0.0, "measured 4.9e-16, another FFT of the same precision"),
    },
    "istft": {
        "float32": Tolerance(9e-7, 0.0, "measured 9.3e-8, FFT and overlap-add in float32"),
        "float64": Tolerance(
            2e-13, 0.0, "measured 2.9e-14, at ends where the windows add to little"
        ),
    },
    "filterbank_torch": {
        "float64": Tolerance(3e-15, 0.0, "measured 3.3e-16"),
    },
    "filterbank_asteroid": {
        "float64": Tolerance(3e-7, 0.0, "measured 3.3e-8, asteroid keeps its filters in float32"),
    },
    "network": {
        "float32": Tolerance(3e-6, 0.0, "measured 3.6e-7, sums of up to 4098 float32 products"),
        "float64": Tolerance(7e-15, 0.0, "measured 7.3e-16"),
    },
    "onnx": {
        "float32": Tolerance(4e-6, 0.0, "measured 4.4e-7 by ONNX Runtime on a processor"),
    },
    "onnx_song": {
        "float32": Tolerance(1.5e-6, 0.0, "measured 1.5e-7, as the network"),
    },
    "wiener": {
        "float32": Tolerance(6e-7, 0.0, "measured 6.5e-8: float64 inside, float32 in and out"),
        "float64": Tolerance(2e-14, 0.0, "measured 2.7e-15"),
    },
    "wiener_near_mono": {
        "float32": Tolerance(4e-7, 0.0, "measured 4.3e-8: float64 inside, float32 in and out"),
        "float64": Tolerance(
            1e-7, 0.0, "measured 1.4e-8: upstream's determinant cancels, -60 dB side"
        ),
    },
    "separator": {
        "float32": Tolerance(decibels(100.0), 0.0, "measured 1.6e-6 (116 dB); 100 dB is the aim"),
        "float64": Tolerance(3e-12, 0.0, "measured 3.7e-13: the filter amplifies rounding"),
    },
    "separator_asteroid": {
        "float32": Tolerance(4e-6, 0.0, "measured 4.3e-7"),
    },
    "separator_single_frames": {
        "float32": Tolerance(
            3e-4, 0.0, "measured 6.2e-5 (CPU 1.3e-5): of one frame every covariance is singular"
        ),
    },
    "separator_near_mono": {
        "float32": Tolerance(5e-6, 0.0, "measured 5.5e-7"),
    },
    "sum_of_stems": {
        "float32": Tolerance(1e-6, 0.0, "measured 1.1e-7: four float32 additions and a round trip"),
    },
    "gemm": {
        "float32": Tolerance(3e-6, 0.0, "sums of up to 600 products; 3e-7 seen"),
        "bfloat16": Tolerance(2e-6, 0.0, "against rounded factors; 2e-7 seen"),
    },
    "lstm_scan": {
        "float32": Tolerance(5e-6, 1e-12, "40 steps with weights of twice PyTorch's"),
        "bfloat16": Tolerance(4e-5, 0.0, "against rounded weights; the state has 16 bits"),
        "int8": Tolerance(1e-6, 1e-7, "exact products; 1.3e-7 seen, of the activations"),
    },
    "int8": {"float32": Tolerance(1e-6, 0.0, "exact products; sums of blocks and the epilogue")},
    "separator_fast": {
        "bfloat16": Tolerance(decibels(40.0), 0.0, "bfloat16 has 8 bits"),
        "tf32": Tolerance(decibels(55.0), 0.0, "TF32 has 11 bits"),
    },
    "separator_int8": {"int8": Tolerance(decibels(20.0), 0.0, "random weights, tiny networks")},
    "blockwise": {"float32": Tolerance(1e-6, 0.0, "full scale; bit for bit equal in practice")},
    "filter_gradient_same": {
        "float32": Tolerance(2e-7, 0.0, "measured 2.5e-8: the results rounded to float32"),
        "float64": Tolerance(8e-15, 0.0, "measured 8e-16: another order of the sums"),
    },
    "wiener_gradient": {
        "float32": Tolerance(4e-7, 0.0, "measured 4e-8: float64 inside, float32 in and out"),
    },
    "wiener_gradient_one_frame": {
        "float32": Tolerance(
            4e-5, 0.0, "measured 4e-6, the oracle's error as well: the rest of cancelling terms"
        ),
    },
    "end_to_end_device": {"float32": Tolerance(2e-5, 0.0, "measured 1.8e-6")},
    "end_to_end_device_gradient": {
        "float32": Tolerance(3e-4, 0.0, "measured 3.6e-5: the filter amplifies rounding")
    },
    "gradient_steps": {
        "float64": Tolerance(1.3e-9, 0.0, "measured 1.4e-10: finite differences of fourth order"),
    },
    "adjoint": {
        "float64": Tolerance(7e-16, 0.0, "measured 7.5e-17, of the product of the norms"),
    },
    "end_to_end_same": {
        "float32": Tolerance(2e-5, 0.0, "measured 3.2e-6: two engines"),
        "float64": Tolerance(5e-12, 0.0, "measured 1.5e-12: the filter amplifies rounding"),
    },
    "end_to_end_steps": {
        "float64": Tolerance(1.3e-8, 0.0, "measured 1.4e-9: finite differences of fourth order"),
    },
    "end_to_end_gradient": {
        "float32": Tolerance(1e-4, 0.0, "measured 6.5e-5; 2.4e-4 where rounding the mix moves it"),
        "float64": Tolerance(1e-9, 0.0, "measured 1.4e-11; 1e-9 is the aim"),
    },
    "gradients": {
        "float32": Tolerance(1e-4, 0.0, "measured 1.9e-5 for a state of one unit, 7e-6 otherwise"),
        "float64": Tolerance(3e-13, 0.0, "measured 2.8e-14; 1e-9 is the aim"),
    },
    "train_gemm": {
        "float32": Tolerance(2e-6, 0.0, "measured 4.8e-7, sums of 512 products in a row"),
        "float64": Tolerance(4e-15, 0.0, "measured 8.6e-16"),
    },
    "ten_losses": {
        "float32": Tolerance(2e-6, 0.0, "measured 1.9e-7; 1e-4 is the aim"),
        "float64": Tolerance(5e-15, 0.0, "measured 5.6e-16"),
    },
    "ten_statistics": {
        "float32": Tolerance(1e-5, 0.0, "measured 1.1e-6"),
        "float64": Tolerance(2e-10, 0.0, "measured 1.8e-11: Adam's steps of a gradient that is 0"),
    },
    "ten_weights": {
        "float32": Tolerance(3e-6, 0.0, "measured 3.4e-7"),
        "float64": Tolerance(3e-14, 0.0, "measured 3.2e-15"),
    },
}
