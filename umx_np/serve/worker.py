"""Separates one song in a process of its own, which ends with whoever started it.

What to do is a line of JSON on stdin, and what is done are lines of JSON on stdout: ``step``,
``progress`` (from 0 to 1), and at the end ``sound`` or ``error``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .._support.console import cleaning_up_when_terminated
from ..errors import UmxError
from .store import Choice

Tell = Callable[..., None]

# Bytes for what grows with the length of a song; more goes to a temporary file.
_MEMORY = 512_000_000
# Seconds between two lines about progress.
_PAUSE = 0.2
# Of the work of a song, this share is separation, the rest is the mixture and what is drawn.
_SEPARATION = 0.95


def main() -> int:
    """Do what stdin says; return the exit status."""
    # What a library prints is no line of ours.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii") as lines:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def tell(**what: Any) -> None:
            lines.write(json.dumps(what) + "\n")
            lines.flush()

        return _work(tell)


def _work(tell: Tell) -> int:
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # the page, and what it plays, go first
    logging.getLogger("umx_np").addHandler(logging.NullHandler())
    with cleaning_up_when_terminated():
        try:
            _separate(request, tell)
        except UmxError as error:
            tell(error={"type": type(error).__name__, "message": str(error)})
        except MemoryError:
            tell(error={"type": "MemoryError", "message": "there is not enough memory"})
        except Exception as error:
            traceback.print_exc()
            message = f"unexpected error: {type(error).__name__}: {error}"
            tell(error={"type": type(error).__name__, "message": message})
    return 0


def _end_with_the_server() -> None:
    # Nothing more is ever sent: it ends when the server does, in whatever way.
    sys.stdin.buffer.read()
    os._exit(1)


def _separate(request: dict[str, Any], tell: Tell) -> None:
    """Write stems, mixture and peaks to a folder."""
    from ..config import SeparationOptions
    from ..pretrained import load_model
    from ..separation.files import separate_file
    from ..separation.options import OutputPlan
    from ..separation.plan import targets_needed
    from ..separation.separator import Separator
    from .sounds import add_mixture

    song, folder = Path(request["song"]), Path(request["folder"])
    tempfile.tempdir = str(folder)  # which is removed, however this ends
    choice = Choice(**request["choice"])
    output = OutputPlan(two_stems=choice.two_stems)
    only = targets_needed(choice.targets, output, SeparationOptions(niter=choice.niter))
    tell(step="loading")
    bundle = load_model(
        choice.model,
        only,
        offline=request["offline"],
        progress=lambda name, there, size: _told_downloads(tell, name, there, size),
    )
    separator = Separator.from_bundle(
        bundle,
        niter=choice.niter,
        precision=choice.precision,
        device=request["device"],
        threads=request["threads"],
    )
    tell(step="separating")
    told = 0.0

    def progress(fraction: float) -> None:
        nonlocal told
        if time.monotonic() > told + _PAUSE:
            told = time.monotonic()
            tell(progress=_SEPARATION * min(fraction, 1.0))

    paths = separate_file(
        song,
        folder,
        separator=separator,
        two_stems=choice.two_stems,
        tags=False,  # after the samples, which are to be the end of these files
        filename="{stem}{ext}",
        progress=progress,
        max_memory=_MEMORY,
    )
    tell(step="finishing", progress=_SEPARATION)
    tell(sound=asdict(add_mixture(song, paths, folder)))


def _told_downloads(tell: Tell, name: str, there: int, size: int | None) -> None:
    tell(step=f"downloading {name}", **({"progress": there / size} if size else {}))


if __name__ == "__main__":
    sys.exit(main())
