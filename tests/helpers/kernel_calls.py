"""Direct calls of every entry of the compiled extensions, right ones and wrong ones, at random.

``python -m helpers.kernel_calls --seconds 60 --seed 1`` in ``tests`` prints figures; a right call
that is refused, a wrong one that is accepted and an array that was written to though it was none of
the outputs end it. What reads beside an array is for the sanitizers to tell: see
``tests/sanitize.py``.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from umx_np._kernels import cpu, stft

# Raised on purpose: by the checks, or by Cython on what is no array or no size at all.
REFUSALS = (ValueError, TypeError, OverflowError, BufferError, MemoryError)
SPECIAL = (np.nan, np.inf, -np.inf, 1e-42, -1e-42, 3e38, -3e38, 0.0, -0.0)


@dataclass(frozen=True)
class Call:
    """One call of an entry.

    Attributes
    ----------
    name : str
        Which entry.
    entry : callable
        The entry.
    arrays : dict of str to ndarray
        Arguments that are arrays.
    outputs : tuple of str
        Those that are written to.
    others : dict of str to object
        The other arguments.
    """

    name: str
    entry: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    outputs: tuple[str, ...]
    others: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> None:
        self.entry(**self.arrays, **self.others)

    def with_(self, name: str, value: Any) -> Call:
        """Return the call with another argument."""
        if name in self.arrays:
            return replace(self, arrays={**self.arrays, name: value})
        return replace(self, others={**self.others, name: value})


def _size(rng: np.random.Generator, limit: int) -> int:
    """A size that is often small, odd, or beside a multiple of what vectors and blocks hold."""
    kind = rng.integers(4)
    if kind == 0:
        return int(rng.integers(1, 4))
    if kind == 1:
        return max(1, min(limit, int(rng.choice([16, 32, 64, 256, 512]) + rng.integers(-1, 2))))
    return int(rng.integers(1, limit + 1))


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Ordinary numbers, in one of four arrays with some that are not."""
    dtype = np.dtype(dtype)
    x = rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "c":
        x += dtype.type(1j) * rng.standard_normal(shape).astype(dtype)
    if x.size and rng.random() < 0.25:
        flat = x.reshape(-1).view(x.real.dtype)
        where = rng.integers(0, flat.size, max(1, flat.size // 8))
        flat[where] = rng.choice(SPECIAL, len(where))
    return x


def _rows(rng: np.random.Generator, shape: tuple[int, int], dtype: Any = np.float32) -> np.ndarray:
    """A matrix whose rows may be apart, or in reverse order."""
    rows, columns = shape
    kind = rng.integers(3)
    if kind == 0:
        return _numbers(rng, shape, dtype)
    storage = _numbers(rng, (2 * rows + 1, columns + 5), dtype)
    x = storage[: 2 * rows : 2, 2 : 2 + columns]
    return x[::-1] if kind == 1 else x


def frame_call(rng: np.random.Generator) -> Call:
    dtype = rng.choice([np.float32, np.float64])
    n_fft, n_hop, frames = _size(rng, 600), _size(rng, 300), int(rng.integers(0, 9))
    channels, length = int(rng.integers(0, 4)), n_fft + max(frames - 1, 0) * n_hop
    return Call(
        "frame",
        stft.frame,
        {
            "x": _rows(rng, (channels, length + int(rng.integers(0, 5))), dtype),
            "window": _numbers(rng, (n_fft,), dtype),
            "out": np.zeros((channels, frames, n_fft), dtype),
        },
        ("out",),
        {"n_hop": n_hop},
    )


def overlap_add_call(rng: np.random.Generator) -> Call:
    call = frame_call(rng)
    arrays = call.arrays
    frames = _numbers(rng, arrays["out"].shape, arrays["out"].dtype)
    arrays = {"frames": frames, "window": arrays["window"], "out": arrays["x"]}
    return Call("overlap_add", stft.overlap_add, arrays, ("out",), call.others)


def magnitude_call(rng: np.random.Generator) -> Call:
    dtype = rng.choice([np.complex64, np.complex128])
    channels, frames, bins = int(rng.integers(1, 4)), int(rng.integers(0, 9)), _size(rng, 300)
    mono = bool(rng.integers(2))
    shape = (frames, 1 if mono else channels, int(rng.integers(1, bins + 1)))
    spectrum = _numbers(rng, (channels, 2 * frames, bins), dtype)[:, ::2]
    out = np.zeros(shape, spectrum.real.dtype)
    if rng.integers(2):
        out = np.zeros((shape[1], shape[0], shape[2]), out.dtype).transpose(1, 0, 2)
    return Call(
        "magnitude", stft.magnitude, {"spectrum": spectrum, "out": out}, ("out",), {"mono": mono}
    )


def gemm_call(rng: np.random.Generator, kernels: cpu.Kernels) -> Call:
    m, n, k = int(rng.integers(0, 40)), _size(rng, 150), _size(rng, 1100)
    bf16 = kernels.has_bf16_gemm and bool(rng.integers(2))
    arrays = {
        "a": _rows(rng, (m, k)),
        "w": kernels.pack_linear(_numbers(rng, (n, k), np.float32), bf16=bf16),
        "out": _rows(rng, (m, n)),
    }
    if rng.integers(2):
        arrays["a_shift"], arrays["a_scale"] = _numbers(rng, (2, k), np.float32).copy()
    for name in ("scale", "bias"):
        if rng.integers(2):
            arrays[name] = _numbers(rng, (n,), np.float32)
    if rng.integers(2):
        arrays["gain"] = _rows(rng, (m, n))
    others: dict[str, Any] = {
        "accumulate": bool(rng.integers(2)),
        "finish": bool(rng.integers(2)),
        "act": [None, "tanh", "relu"][rng.integers(3)],
    }
    if not bf16 and rng.integers(2):
        # Weights of eight bits are an object that cannot be made wrong.
        del arrays["w"]
        others["w"] = _packed_int8(kernels.pack_linear, rng, n, k)
    return Call("gemm", kernels.gemm, arrays, ("out",), others)


def _packed_int8(
    pack: Callable[..., Any], rng: np.random.Generator, n: int, k: int
) -> cpu.Int8Weights:
    weight = rng.integers(-128, 128, (n, k)).astype(np.int8)
    return pack(weight, scale=_numbers(rng, (n,), np.float32))


def lstm_scan_call(rng: np.random.Generator, kernels: cpu.Kernels) -> Call:
    hidden, frames = _size(rng, 70), int(rng.integers(0, 6))
    padded = kernels.padded_size(hidden)
    weights = _numbers(rng, (4 * hidden, hidden), np.float32)
    arrays = {
        "gates": _numbers(rng, (frames, 4 * padded), np.float32),
        "w": kernels.pack_recurrent(weights, bf16=bool(rng.integers(2))),
        "h": _numbers(rng, (padded,), np.float32),
        "c": _numbers(rng, (padded,), np.float32),
        "out": _rows(rng, (frames, hidden)),
    }
    others: dict[str, Any] = {"reverse": bool(rng.integers(2))}
    if rng.integers(3) == 0:
        del arrays["w"]
        others["w"] = _packed_int8(kernels.pack_recurrent, rng, 4 * hidden, hidden)
    return Call("lstm_scan", kernels.lstm_scan, arrays, ("h", "c", "out"), others)


def _window(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    channels, frames, bins = int(rng.integers(1, 3)), int(rng.integers(0, 7)), _size(rng, 300)
    start, stop = sorted(int(i) for i in rng.integers(0, bins + 1, 2))
    shape = (int(rng.integers(1, 5)), frames, int(rng.choice([1, channels])), bins)
    arrays = {
        "mix": _numbers(rng, (channels, frames, bins), np.complex64),
        "mags": _numbers(rng, shape, np.float32),
    }
    others = {"bin_start": start, "bin_stop": stop}
    others |= {"max_abs": float(rng.choice([1e-30, 1.0, 1e30])), "eps": 1e-10}
    return arrays, others


def wiener_call(rng: np.random.Generator, kernels: cpu.Kernels) -> Call:
    arrays, others = _window(rng)
    residual, iterations = bool(rng.integers(2)), int(rng.integers(0, 4))
    others |= {"iterations": iterations, "residual": residual, "softmask": bool(rng.integers(2))}
    sources = len(arrays["mags"]) + residual
    outputs = []
    if rng.integers(2):
        arrays["r"] = rng.random((iterations, sources, 4, arrays["mix"].shape[2]))
    if "r" in arrays and iterations and rng.integers(2):
        others |= {"level": int(rng.integers(iterations)), "y": None}
        outputs.append("r")
    else:
        arrays["y"] = np.zeros((sources, *arrays["mix"].shape), np.complex64)
        outputs.append("y")
    return Call("wiener", kernels.wiener, arrays, tuple(outputs), others)


def wiener_gradient_call(rng: np.random.Generator, kernels: cpu.Kernels) -> Call:
    arrays, others = _window(rng)
    shape = (len(arrays["mags"]), *arrays["mix"].shape)
    arrays["d_y"] = _numbers(rng, shape, np.complex64)
    arrays["d_mags"] = np.zeros_like(arrays["mags"])
    return Call("wiener_gradient", kernels.wiener_gradient, arrays, ("d_mags",), others)


STFT = (frame_call, overlap_add_call, magnitude_call)
LEVELLED = (gemm_call, lstm_scan_call, wiener_call, wiener_gradient_call)


def calls(rng: np.random.Generator, kernels: cpu.Kernels) -> Iterator[Call]:
    """Right calls without end, of all entries in turn."""
    while True:
        for make in STFT:
            yield make(rng)
        for levelled in LEVELLED:
            yield levelled(rng, kernels)


def _misaligned(x: np.ndarray) -> np.ndarray:
    storage = np.zeros(x.nbytes + 1, np.uint8)
    moved = storage[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def _odd_stride(x: np.ndarray) -> np.ndarray:
    """Rows that lie at no multiple of the size of a number."""
    step = x.shape[-1] * x.itemsize + 1
    rows = x.size // x.shape[-1]
    storage = np.zeros(rows * step + x.itemsize, np.uint8)
    strides = [x.itemsize]
    for size in reversed(x.shape[1:]):
        strides.insert(0, step if len(strides) == 1 else strides[0] * size)
    if x.ndim > 2:
        strides[:-1] = [step * int(np.prod(x.shape[i + 1 : -1])) for i in range(x.ndim - 1)]
    return np.ndarray(x.shape, x.dtype, storage, 0, tuple(strides))


def _on_itself(x: np.ndarray) -> np.ndarray:
    """Rows that are all the same memory."""
    strides = (0, *x.strides[1:])
    return np.lib.stride_tricks.as_strided(x, x.shape, strides)


FREE = {
    ("frame", "x"): 1,
    ("frame", "out"): 1,
    ("overlap_add", "frames"): 1,
    ("overlap_add", "out"): 1,
    ("magnitude", "spectrum"): 2,
    ("magnitude", "out"): 2,
    # The last panel of the weights is filled up,
    ("gemm", "out"): 1,
}
# and so is the last pair of bfloat16.
PADDED = {"gemm": "a", "lstm_scan": "out"}


def wrong_arrays(call: Call, name: str) -> dict[str, Any]:
    """Everything that an array may not be, by a name for it."""
    x = call.arrays[name]
    complex_ = x.dtype.kind == "c"
    wrong: dict[str, Any] = {
        "a list": x.tolist(),
        "text": "x",
        "no dimension": x[(0,) * x.ndim] if x.size else np.float32(0),
        "a dimension less": x.reshape(-1) if x.ndim > 1 else x.sum(),
        "a dimension more": x[None],
        "integers": np.zeros(x.shape, np.int64),
        "half precision": np.zeros(x.shape, np.float16),
        "the other byte order": x.astype(x.dtype.newbyteorder()),
        "objects": np.zeros(x.shape, object),
        "another precision": x.astype(
            {"f": np.float64, "c": np.complex128, "u": np.float32}[x.dtype.kind]
            if x.dtype not in (np.float64, np.complex128)
            else (np.complex64 if complex_ else np.float32)
        ),
        "real for complex" if complex_ else "complex for real": (
            x.real.copy() if complex_ else x.astype(np.complex64)
        ),
    }
    if name not in ("a_shift", "a_scale", "scale", "bias", "gain", "r"):
        wrong["None"] = None
    if x.size and x.itemsize > 1:
        wrong["misaligned"] = _misaligned(x)
        if x.ndim > 1 and x.size > x.shape[-1]:
            wrong["rows at odd addresses"] = _odd_stride(x)
        if x.shape[-1] > 1:
            wrong["every second number"] = np.repeat(x, 2, axis=-1)[..., ::2]
            wrong["reversed numbers"] = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    if name in call.outputs:
        locked = x.copy()
        locked.flags.writeable = False
        wrong["read-only"] = locked
        if x.ndim > 1 and x.size and x.shape[0] > 1:
            wrong["rows on one another"] = _on_itself(x)
    # There may be more samples, or fewer frames and bins, than arguments have room for.
    free = FREE.get((call.name, name))
    halves = "w" in call.arrays and call.arrays["w"].dtype == np.uint16
    if call.name in PADDED and halves and name == PADDED[call.name]:
        free = 1
    for axis in range(x.ndim):
        shorter = x.take(range(x.shape[axis] - 1), axis) if x.shape[axis] else None
        longer = np.concatenate([x, x.take([0], axis)], axis) if x.shape[axis] else None
        if call.others.get("mono") and name == "spectrum" and axis == 0:
            continue
        if name == "mix" and axis == 0 and "y" in call.others:
            continue  # the statistics are of any number of channels
        channels = name == "mags" and axis == 2
        if longer is not None and axis != free and not (channels and x.shape[2] == 1):
            wrong[f"longer in axis {axis}"] = longer
        if shorter is not None and axis != free and not (channels and x.shape[2] == 2):
            wrong[f"shorter in axis {axis}"] = shorter
    return wrong


def wrong_scalars(call: Call) -> list[tuple[str, Any]]:
    """Numbers and words that no call may have."""
    wrong: list[tuple[str, Any]] = []
    if "n_hop" in call.others:
        wrong += [("n_hop", v) for v in (0, -1, -(2**63), 2**64, 0.5, None, "x")]
        frames = call.arrays["out" if call.name == "frame" else "frames"].shape[1]
        if frames > 1:
            wrong += [("n_hop", v) for v in (2**62, 2**63 - 1, 2**63 // (frames - 1) + 1)]
    if "act" in call.others:
        wrong += [("act", v) for v in ("sigmoid", 1, "")]
    if "bin_start" in call.others:
        bins = call.arrays["mix"].shape[2]
        wrong += [("bin_start", v) for v in (-1, bins + 1, 2**62, -(2**63), 2**64, None)]
        wrong += [("bin_stop", v) for v in (-1, bins + 1, 2**62, -(2**63), 2**64, None)]
        wrong += [("max_abs", v) for v in (0.0, -1.0, np.nan, None)]
        wrong += [("eps", v) for v in (-1.0, np.nan, None)]
    if "iterations" in call.others:
        wrong += [("iterations", v) for v in (-1, 2**31, 2**64, None)]
        wrong += [("level", v) for v in (-1, 2**31, 0.5, "x")]
    return wrong


def overlapping(call: Call) -> Iterator[tuple[str, Call]]:
    """Calls whose outputs are also inputs, where the shapes allow it."""
    for name in call.outputs:
        x = call.arrays[name]
        for other, y in call.arrays.items():
            if other != name and y.shape == x.shape and y.dtype == x.dtype and x.size:
                yield f"{name} is {other}", call.with_(other, x)


def accepted(call: Call) -> bool:
    """Whether an entry does what it is called for; what it refuses is an error of its own."""
    before = {n: a.copy() for n, a in call.arrays.items() if isinstance(a, np.ndarray)}
    try:
        call()
        done = True
    except REFUSALS:
        done = False
    for name, array in before.items():
        if not done or name not in call.outputs:
            unchanged = np.array_equal(array, call.arrays[name], equal_nan=array.dtype.kind != "O")
            assert unchanged, f"{call.name} wrote to {name}"
    return done


def all_wrong(call: Call) -> Iterator[tuple[str, Call]]:
    """Every way to make a right call a wrong one, with a description."""
    for name in call.arrays:
        for what, value in wrong_arrays(call, name).items():
            yield f"{call.name}: {name} is {what}", call.with_(name, value)
    for name, value in wrong_scalars(call):
        yield f"{call.name}: {name}={value!r}", call.with_(name, value)
    for what, wrong in overlapping(call):
        yield f"{call.name}: {what}", wrong


def fuzz(seed: int, *, seconds: float = 0.0, rounds: int = 0, share: float = 0.3) -> Counter[str]:
    """Call every entry of every level that this processor runs.

    Parameters
    ----------
    seed : int
        Where the arguments come from.
    seconds, rounds : float, int
        How long; rounds are of one right call of every entry.
    share : float
        Part of the wrong calls that is made.

    Returns
    -------
    Counter
        Right and wrong calls of each entry.
    """
    rng = np.random.default_rng(seed)
    levels = [cpu.Kernels(name) for name, runs in cpu.levels().items() if runs]
    sources = [calls(rng, level) for level in levels]
    counts: Counter[str] = Counter()
    end, done = time.monotonic() + seconds, 0
    with np.errstate(all="ignore"):
        while done < rounds or time.monotonic() < end:
            for source in sources:
                for _ in range(len(STFT) + len(LEVELLED)):
                    call = next(source)
                    for what, wrong in all_wrong(call):
                        if rng.random() < share:
                            assert not accepted(wrong), f"accepted: {what}"
                            counts[f"{call.name}, wrong"] += 1
                    assert accepted(call), f"refused: {call}"
                    counts[f"{call.name}, right"] += 1
            done += 1
    return counts


def main() -> None:
    """Print how many calls were made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.3)
    options = parser.parse_args()
    counts = fuzz(options.seed, seconds=options.seconds, rounds=options.rounds, share=options.share)
    for name, count in sorted(counts.items()):
        print(f"{name:24s}{count:9d}")
    print(f"{'all':24s}{sum(counts.values()):9d}")


if __name__ == "__main__":
    main()
