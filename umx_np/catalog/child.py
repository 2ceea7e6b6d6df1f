"""The process that computes: what a bad song can kill, and nothing else with it.

A program for `umx_np.catalog.worker`, which writes to its standard input: first the work, then one
item a line, all in JSON. It answers with a line when it is ready, and for each item with the result
or why there is none. It ends
when the worker does, however that ends, also in the middle of a song.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UmxError
from .ledger import Failure

# Of the log of a song, this many warnings are kept.
_MOST_WARNINGS = 20


class Warnings(logging.Handler):
    """Keeps what is warned of while a song is worked on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if len(self.lines) < _MOST_WARNINGS:
            self.lines.append(record.getMessage())


def main() -> None:
    """Answer until the input ends."""
    # Whatever else prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warned = Warnings()
    logging.getLogger("umx_np").addHandler(warned)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    first = json.loads(lines.get())
    try:
        work = _WORKS[first["work"]](first)
    except Exception as error:
        print(json.dumps({"failure": str(error)}), file=answers, flush=True)
        return
    # From now on, what ends this process counts against the song that it works on.
    print(json.dumps({"ready": True}), file=answers, flush=True)
    while True:
        item = json.loads(lines.get())
        warned.lines.clear()
        begin = time.monotonic()
        answer: dict[str, Any] = {}
        try:
            result = work(Path(item["song"]), Path(item["folder"]))
            seconds = round(time.monotonic() - begin, 3)
            answer["result"] = {**result, "seconds": seconds, "warnings": list(warned.lines)}
        except Exception as error:
            answer["failure"] = asdict(Failure.of(error))
        print(json.dumps(answer), file=answers, flush=True)


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    # The worker is gone: nobody waits for what would come.
    os._exit(0)


def _nothing(first: dict[str, Any]) -> Callable[[Path, Path], dict[str, Any]]:
    return lambda song, folder: {}


def _separation(first: dict[str, Any]) -> Callable[[Path, Path], dict[str, Any]]:
    from .._support.keywords import pick
    from ..config import Computing, SeparationOptions
    from ..pretrained import load_model
    from ..separation.files import separate_file
    from ..separation.naming import record_path
    from ..separation.records import Record
    from ..separation.separator import Separator

    settings = dict(first["settings"])
    targets = settings.pop("targets", None)
    bundle = load_model(first["model"]["name"], targets)
    how, computing = pick(SeparationOptions, settings), pick(Computing, settings)
    computing_options = {**vars(computing), "threads": first["threads"]}
    separator = Separator.from_bundle(bundle, **vars(how), **computing_options)
    if targets is None:
        _check_model(separator.weights_digest, first["model"])
    taken = {*vars(how), *vars(computing)}
    options = {name: value for name, value in settings.items() if name not in taken}
    options["filename"] = "{stem}{ext}"

    def work(song: Path, folder: Path) -> dict[str, Any]:
        separate_file(song, folder, separator=separator, model=bundle.name, **options)
        place = record_path(
            song, folder, model=bundle.name, ext=options.get("ext", ".wav"), filename="{stem}{ext}"
        )
        record = Record.read(place)
        if record is None:
            raise OSError(f"{place}: the record of the stems could not be written")
        return {"record": asdict(record)}

    return work


def _evaluation(first: dict[str, Any]) -> Callable[[Path, Path], dict[str, Any]]:
    from ..evaluation import evaluate

    def work(track: Path, folder: Path) -> dict[str, Any]:
        # `evaluate` takes a whole data set: here one of a single track.
        with tempfile.TemporaryDirectory(prefix="umx-np-") as name:
            place = Path(name, "tracks", track.name)
            place.parent.mkdir()
            place.symlink_to(track.absolute(), target_is_directory=True)
            found = evaluate(
                place.parent,
                dataset="folder",
                subset="tracks",
                model=first["model"]["name"],
                evaldir=folder,
                threads=first["threads"],
                **first["settings"],
            )
        if found.failed:
            raise UmxError("; ".join(found.failed.values()))
        (path,) = folder.glob(f"tracks/{track.name}.json")
        return {"scores": json.loads(path.read_text(encoding="utf-8"))}

    return work


def _check_model(digest: str | None, model: dict[str, Any]) -> None:
    if digest != model["sha256"]:
        raise UmxError(
            f"model={model['name']!r} has other weights here than where the plan was made; bring "
            "the same to this machine, or make a new plan"
        )


_WORKS = {"separation": _separation, "evaluation": _evaluation, "nothing": _nothing}


if __name__ == "__main__":
    main()
