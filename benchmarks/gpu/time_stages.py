"""The section ``stages``: where the time of a separation goes.

Events are recorded around the steps of a real separation, so what is timed is what is run. Steps
of the card follow each other in one stream; copies to the host have another, and what counts of
them is how long the host waits.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import numpy as np

from umx_np import Separator
from umx_np.cuda import separation as device_streaming
from umx_np.cuda.backend import CudaBackend
from umx_np.cuda.network import NetworkStack
from umx_np.cuda.ops import OverlapAdder, Spectra, WienerFilter
from umx_np.cuda.outlet import Outlet
from umx_np.cuda.transform import DeviceTransform

from . import material
from .card import working_status
from .context import Context
from .record import Case, Recorder

_SECONDS = 180.0
_REPEATS = 3
# Steps of the card, in the order of a separation.
_STEPS: list[tuple[type, str, str]] = [
    (DeviceTransform, "forward", "STFT (both passes)"),
    (Spectra, "magnitude", "magnitudes (both passes)"),
    (NetworkStack, "encode", "encode"),
    (NetworkStack, "gates", "input products"),
    (NetworkStack, "scan", "scans"),
    (NetworkStack, "combine", "combine"),
    (NetworkStack, "decode", "decode"),
    (WienerFilter, "windows", "Wiener filter"),
    (DeviceTransform, "inverse", "inverse FFT"),
    (OverlapAdder, "add", "overlap-add"),
]


def cases(context: Context) -> list[Case]:
    """The two sizes of published models, in both precisions."""
    return [
        Case(f"{name}, {precision}", partial(_profile, context, name, precision), 60.0)
        for name in ("umxhq", "umxl")
        for precision in ("full", "fast")
    ]


class Profile:
    """Time of every step of the separations that run while it is attached.

    Parameters
    ----------
    xp : module
        CuPy.

    Attributes
    ----------
    waits : dict of str to float
        Seconds of the host.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._events: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self.waits: dict[str, float] = defaultdict(float)
        self._layer = 0

    def steps(self) -> dict[str, float]:
        """Seconds of the card in every step, when all is done."""
        elapsed = self._xp.cuda.get_elapsed_time
        return {
            step: sum(elapsed(first, last) for first, last in pairs) / 1e3
            for step, pairs in self._events.items()
        }

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time what the steps do from here on."""
        with _replaced(
            [(kind, name, partial(self._timed, step)) for kind, name, step in _STEPS]
            + [
                (Outlet, "receive", partial(self._waited, "wait for copies to the host")),
                (device_streaming._Track, "_samples", partial(self._waited, "copy to the card")),
            ]
        ):
            yield

    def _timed(self, step: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            name = step
            if step == "input products":
                self._layer = args[1]
            if step in ("input products", "scans"):
                name = f"{step}, layer {self._layer}"
            first, last = self._xp.cuda.Event(), self._xp.cuda.Event()
            first.record()
            result = method(*args, **kwargs)
            last.record()
            self._events[name].append((first, last))
            return result

        return timed

    def _waited(self, what: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def waited(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = method(*args, **kwargs)
            self.waits[what] += time.perf_counter() - start
            return result

        return waited


@contextmanager
def _replaced(methods: list[tuple[type, str, Any]]) -> Iterator[None]:
    """Put something around methods of classes for a while."""
    before = [(kind, name, getattr(kind, name)) for kind, name, _ in methods]
    for (kind, name, method), (_, _, around) in zip(before, methods, strict=True):
        setattr(kind, name, around(method))
    try:
        yield
    finally:
        for kind, name, method in before:
            setattr(kind, name, method)


def _profile(context: Context, name: str, precision: str, recorder: Recorder) -> None:
    bundle = material.bundle(context, name)
    separator = Separator.from_bundle(bundle, device=CudaBackend(context.device, precision))
    nb_timesteps = context.size(round(_SECONDS * material.RATE), 1500)
    song = material.song(context.rng("stages"), nb_timesteps)[None]
    nb_frames = separator.geometry.nb_frames(nb_timesteps)
    separator(song)
    context.device.synchronize()
    runs = []
    for _ in range(context.size(_REPEATS, 1)):
        profile = Profile(context.xp)
        with profile.attached():
            start = time.perf_counter()
            separator(song)
            context.device.synchronize()
            whole = time.perf_counter() - start
        runs.append({**profile.steps(), **profile.waits, "all of it": whole})
    medians = {step: float(np.median([run[step] for run in runs])) for step in runs[0]}
    recorder.detail(f"{name}, {precision}", {"seconds": medians, "repeats": runs})
    recorder.detail(f"status_after_{name}_{precision}", working_status(context))
    kernel = f"{nb_timesteps / material.RATE:.0f} s, {name}, {precision}"
    for step, seconds in medians.items():
        per_frame = 1e6 * seconds / nb_frames
        recorder.rung(
            kernel,
            step,
            1e3 * seconds,
            time_unit="ms",
            rate=per_frame,
            unit="us a frame",
            brief=(name, precision) == ("umxhq", "full"),
        )
