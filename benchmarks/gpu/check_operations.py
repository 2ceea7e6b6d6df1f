"""The section ``operations``: everything around the recurrence, against the reference in float64.

Inputs are those of the float32 kernels; the reference gets the same numbers in float64.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from umx_np.backends.contracts import FilterInput, WienerOptions, scale_of
from umx_np.backends.reference import ReferenceBackend, ReferenceNetwork
from umx_np.dsp.stft import istft, stft
from umx_np.errors import DeviceError
from umx_np.framing.geometry import StftGeometry

from . import material
from .context import Context
from .record import Case, Recorder, Skip

if TYPE_CHECKING:
    from umx_np.cuda.backend import CudaBackend

# Relative errors. Each is some ten times that of the same operation on a processor.
_FRAMES, _MAGNITUDES, _STFT, _NETWORK, _WIENER = 1e-7, 5e-7, 1e-6, 5e-6, 1e-6
# Operands keep 24, 11 and 8 bits.
_PRODUCTS = {"float32": 5e-6, "tf32": 1e-3, "bf16": 1e-2}

_REFERENCE = ReferenceBackend()


def cases(context: Context) -> list[Case]:
    """Transforms, networks, filter, products."""
    found = [
        Case("frames and magnitudes", partial(_frames, context)),
        Case("STFT and inverse", partial(_transform, context)),
        Case("network around the recurrence", partial(_network, context)),
        Case("Wiener filter", partial(_wiener, context)),
        Case("Wiener filter over a whole track", partial(_wiener_whole, context)),
    ]
    for math in _PRODUCTS:
        found.append(Case(f"products, {math}", partial(_products, context, math)))
    return found


def backend_of(context: Context, precision: str = "full") -> CudaBackend:
    """The backend of the card, with used memory to allocate from."""
    from umx_np.cuda.backend import CudaBackend

    context.poison()
    return CudaBackend(context.device, precision)


def _frames(context: Context, recorder: Recorder) -> None:
    from umx_np.cuda.ops import Spectra

    context.poison()
    xp, rng, spectra = context.xp, context.rng("frames"), Spectra(context.device)
    nb_frames = context.size(101, 7)
    for n_fft, n_hop in context.size([(4096, 1024), (1023, 300)], [(64, 16), (15, 7)]):
        x = rng.standard_normal((2, (nb_frames - 1) * n_hop + n_fft), np.float32)
        window = rng.standard_normal(n_fft, np.float32)
        sizes = {"n_hop": n_hop, "nb_frames": nb_frames}
        frames = spectra.frame(xp.asarray(x), xp.asarray(window), **sizes)
        expected = _REFERENCE.frame(wide(x), wide(window), **sizes)
        recorder.check(f"frames of {n_fft}", expected, xp.asnumpy(frames), bound=_FRAMES)
        mix, _ = material.spectra(rng, 1, 2, nb_frames, n_fft // 2 + 1)
        for mono in (False, True):
            recorder.check(
                f"magnitudes of {n_fft}, mono={mono}",
                _REFERENCE.magnitude(wide(mix), nb_bins=n_fft // 3, mono=mono),
                xp.asnumpy(spectra.magnitude(xp.asarray(mix), nb_bins=n_fft // 3, mono=mono)),
                bound=_MAGNITUDES,
            )


def _transform(context: Context, recorder: Recorder) -> None:
    from umx_np.cuda.transform import DeviceTransform, make_tables

    ops, rng = backend_of(context), context.rng("transform")
    n_fft, n_hop = context.size((4096, 1024), (64, 16))
    x = material.song(rng, context.size(3 * material.RATE + 77, 900))
    expected = stft(wide(x), n_fft, n_hop, device="reference")
    mix = stft(x, n_fft, n_hop, device=ops)
    recorder.check("STFT", expected, mix, bound=_STFT)
    recorder.check(
        "inverse STFT",
        istft(wide(mix), n_hop, length=x.shape[1], n_fft=n_fft, device="reference"),
        istft(mix, n_hop, length=x.shape[1], n_fft=n_fft, device=ops),
        bound=_STFT,
    )
    geometry = StftGeometry(n_fft, n_hop)
    nb_frames = geometry.nb_frames(x.shape[1])
    with context.device.active():
        tables = make_tables(context.device, geometry, None)
    on_card = DeviceTransform(context.device, geometry, tables)
    first = nb_frames // 3
    part = on_card.forward(context.xp.asarray(x), first=first, nb_frames=nb_frames - first)
    recorder.check(
        "STFT that stays on the card",
        expected.transpose(0, 2, 1)[:, first:],
        context.xp.asnumpy(part),
        bound=_STFT,
    )


def _network(context: Context, recorder: Recorder) -> None:
    ops, rng = backend_of(context), context.rng("network")
    for name in ("umxhq", "umxse"):
        (weights,) = material.bundle(context, name, 1).targets.values()
        config = weights.config
        ours = ops.network(config, weights.state)
        exact = ReferenceNetwork(config, weights.state)
        mags = material.magnitudes(rng, context.size(333, 9), config)
        read = np.ascontiguousarray(mags[:, :, : config.nb_input_bins])
        encoded = ours.encode(read)
        recorder.check(f"{name}: encode", exact.encode(wide(read)), encoded, bound=_NETWORK)
        width = config.lstm_hidden_size
        layers = [
            rng.uniform(-1.0, 1.0, (len(mags), width)).astype(np.float32)
            for _ in range(config.nb_directions)
        ]
        parts = [encoded, *layers]
        combined = ours.combine(parts)
        expected = exact.combine([wide(part) for part in parts])
        recorder.check(f"{name}: combine", expected, combined, bound=_NETWORK)
        out = np.full_like(mags, np.nan)
        ours.decode(combined, mags, out=out)
        recorder.check(
            f"{name}: decode", exact.decode(wide(combined), wide(mags)), out, bound=_NETWORK
        )


def _wiener(context: Context, recorder: Recorder) -> None:
    ops, rng = backend_of(context), context.rng("wiener")
    nb_frames, nb_bins = context.size((300, 257), (9, 33))
    choices = [
        # targets, channels, channels of the magnitudes, iterations, softmask, residual, side
        (4, 2, 2, 1, False, False, 1.0),
        (4, 2, 2, 2, False, True, 1.0),
        (4, 2, 2, 1, False, False, 0.0),
        (4, 2, 2, 1, False, True, 1e-3),
        (1, 2, 2, 1, False, True, 1.0),
        (2, 1, 1, 3, True, False, 1.0),
        (2, 2, 1, 1, True, True, 1.0),
        (4, 2, 2, 0, False, False, 1.0),
        (3, 2, 2, 0, True, True, 1.0),
    ]
    for targets, channels, mag_channels, iterations, softmask, residual, side in choices:
        mix, mags = material.spectra(
            rng, targets, channels, nb_frames, nb_bins, mag_channels=mag_channels, side=side
        )
        options = WienerOptions(softmask, residual)
        max_abs = scale_of(float(np.abs(mix).max())) if iterations else 1.0
        shape = (targets + residual, *mix.shape)
        out = np.full(shape, np.nan, np.complex64)
        ops.wiener(options).window(FilterInput(mix, mags, max_abs), iterations, out)
        recorder.check(
            f"{targets} targets, {channels} channels, {mag_channels} of the magnitudes, "
            f"{iterations} iterations, softmask={softmask}, residual={residual}, side {side:g}",
            _REFERENCE.wiener(options).window(
                FilterInput(wide(mix), wide(mags), max_abs), iterations
            ),
            out,
            bound=_WIENER,
        )


def _wiener_whole(context: Context, recorder: Recorder) -> None:
    ops, rng = backend_of(context), context.rng("whole track")
    nb_frames, nb_bins = context.size((431, 257), (11, 33))
    mix, mags = material.spectra(rng, 4, 2, nb_frames, nb_bins)
    options, max_abs = WienerOptions(residual=True), scale_of(float(np.abs(mix).max()))
    half = nb_frames // 2

    def filtered(backend: Any, x: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        statistics, wiener = np.zeros((2, 5, 4, nb_bins)), backend.wiener(options)
        for level in range(len(statistics)):
            for part in (slice(0, half), slice(half, None)):
                some = np.ascontiguousarray(x[:, part]), np.ascontiguousarray(m[:, part])
                wiener.accumulate(FilterInput(*some, max_abs), statistics, level)
        return statistics, wiener.apply(FilterInput(x, m, max_abs), statistics)

    expected = filtered(_REFERENCE, wide(mix), wide(mags))
    actual = filtered(ops, mix, mags)
    for what, e, a in zip(("statistics", "estimates"), expected, actual, strict=True):
        recorder.check(what, e, a, bound=_WIENER)


def _products(context: Context, math: str, recorder: Recorder) -> None:
    device, xp, rng = context.device, context.xp, context.rng(f"products {math}")
    m, k, n = context.size((777, 1024, 515), (7, 9, 5))
    context.poison()
    for trans_a, trans_b, batch in ((False, False, 1), (False, True, 1), (True, False, 3)):
        a = rng.standard_normal((batch, *((k, m) if trans_a else (m, k))), np.float32)
        b = rng.standard_normal((batch, *((n, k) if trans_b else (k, n))), np.float32)
        # Rows that are longer than what is multiplied.
        out = context.nan((batch, m, n + 3))[:, :, :n]
        wide_a, wide_b = (xp.asarray(np.pad(x, ((0, 0), (0, 0), (0, 5)))) for x in (a, b))
        try:
            device.gemm(
                wide_a[:, :, : a.shape[2]],
                wide_b[:, :, : b.shape[2]],
                out,
                trans_a=trans_a,
                trans_b=trans_b,
                math=math,
            )
        except DeviceError as error:
            raise Skip(str(error)) from error
        left = wide(a).transpose(0, 2, 1) if trans_a else wide(a)
        right = wide(b).transpose(0, 2, 1) if trans_b else wide(b)
        what = f"{batch} products, transposed: {trans_a}, {trans_b}"
        recorder.check(what, left @ right, xp.asnumpy(out), bound=_PRODUCTS[math])


def wide(array: np.ndarray) -> np.ndarray:
    """The same numbers in double precision."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
