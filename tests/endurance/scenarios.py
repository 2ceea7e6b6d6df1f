"""The commands that are disturbed, on material that takes them a fraction of a second."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import soundfile as sf
from helpers import signals
from helpers.runs import assert_same_checkpoint, assert_same_results

from umx_np.config import ModelConfig
from umx_np.errors import UmxError
from umx_np.testing import random_bundle_of
from umx_np.training.checkpoint import read_checkpoint
from umx_np.weights import convert, load_torch, save_folder

from .commands import Scenario, Zygote, unreadable

RATE = 8000
STEMS = ("vocals", "drums", "bass", "other")


def write_model(folder: Path, seed: int, hidden_size: int = 16, nb_channels: int = 2) -> Path:
    """Write a random model of four targets, or of two if it is for one channel."""
    config = ModelConfig(nb_bins=257, nb_channels=nb_channels, hidden_size=hidden_size, max_bin=200)
    stems = STEMS[: 2 * nb_channels]
    save_folder(random_bundle_of(config, stems, seed=seed, sample_rate=float(RATE)), folder)
    return folder


def separate(base: Path) -> Scenario:
    """Two songs, through a temporary file; the older stems are those of another model."""
    songs = base / "songs"
    songs.mkdir()
    for name, seconds in (("one", 12), ("two", 7)):
        sound = signals.music(seconds * RATE, seed=seconds)[0]
        sf.write(songs / f"{name}.flac", sound.T, RATE)
    options = ["--outdir", "out", "--max-memory", "0", "--quiet", "--threads", "2", "--model"]
    argv = ["separate", str(songs), *options, str(write_model(base / "model", 1))]
    other = ["separate", str(songs), *options, str(write_model(base / "other", 2))]

    def again(folder: Path) -> list[str]:
        # The second run need not do again what the first has done.
        is_new = not (folder / "older").exists()
        return [*argv, "--skip-existing"] if is_new else argv

    def older(starter: Zygote, folder: Path) -> None:
        (folder / "older").touch()
        starter.run(folder, other)

    return Scenario(
        main="umx_np.commands",
        argv=argv,
        older=older,
        again=again,
        # The record of what the stems were made of: it holds times, and goes before they change.
        problem=unreadable_document,
        same=same_but_for_times,
        passing=(".json",),
        preload=(
            "umx_np.separation.files",
            "umx_np.separation.separator",
            "umx_np.engines.host",
            "umx_np.backends.cpu",
        ),
    )


def without_times(document: object) -> object:
    """A document without what says when and how long."""
    if isinstance(document, dict):
        varying = ("time", "seconds", "date", "mtime")
        return {
            key: without_times(value)
            for key, value in document.items()
            if not any(word in key for word in varying)
        }
    if isinstance(document, list):
        return [without_times(value) for value in document]
    return document


def unreadable_document(path: Path) -> str | None:
    """What is wrong with a JSON document; other files have the bytes of before or after."""
    if path.suffix != ".json":
        return unreadable(path)
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        return str(error)
    return None


def same_but_for_times(one: Path, other: Path) -> bool:
    """Whether two JSON documents say the same."""
    if one.suffix != ".json":
        return False
    found, wanted = (without_times(json.loads(path.read_bytes())) for path in (one, other))
    return found == wanted


def convert_folder(base: Path) -> Scenario:
    """PyTorch files to safetensors; the older ones are those of another model."""
    folders = []
    for seed in (1, 2):
        written = write_model(base / f"safe{seed}", seed, hidden_size=96)
        convert(written, base / f"torch{seed}", format="pth")
        folders.append(base / f"torch{seed}")

    def argv(source: Path) -> list[str]:
        return ["convert", str(source), "out", "--format", "safetensors", "--overwrite"]

    return Scenario(
        main="umx_np.commands",
        argv=argv(folders[0]),
        older=lambda starter, folder: starter.run(folder, argv(folders[1])),
        preload=("umx_np.weights.conversion", "umx_np.weights.safetensors_files"),
    )


def train(base: Path) -> Scenario:
    """A run of some epochs that saves after each batch; the older one had another seed."""
    rng = np.random.default_rng(7)
    for split, count in (("train", 5), ("valid", 2)):
        for track in range(count):
            folder = base / "tracks" / split / f"track{track}"
            folder.mkdir(parents=True)
            for name in ("vocals", "drums"):
                sound = 0.1 * rng.standard_normal((RATE, 2))
                sf.write(folder / f"{name}.wav", sound, RATE)
    options = (
        "--dataset trackfolder_var --target-file vocals.wav --target vocals --seq-dur 0.25 "
        "--nfft 256 --nhop 128 --hidden-size 8 --bandwidth 3000 --batch-size 3 --epochs 3 "
        "--checkpoint-every 1 --device reference --no-plot --quiet --overwrite --output out"
    )
    argv = [*options.split(), "--root", str(base / "tracks")]

    def again(folder: Path) -> list[str]:
        checkpoint = folder / "out" / "vocals.chkpnt"
        if checkpoint.exists() and read_checkpoint(checkpoint)["arguments"]["seed"] == 42:
            return ["--checkpoint", "out", "--quiet"]
        return argv

    def problem(path: Path) -> str | None:
        try:
            if path.suffix == ".chkpnt":
                read_checkpoint(path)
            elif path.suffix == ".pth":
                load_torch(path)
            else:
                json.loads(path.read_text())
        except (UmxError, ValueError) as error:
            return str(error)
        return None

    def same(one: Path, other: Path) -> bool:
        if one.suffix == ".chkpnt":
            assert_same_checkpoint(one, other)
        elif one.name == "vocals.json":
            assert_same_results(one, other)
        else:
            return False
        return True

    return Scenario(
        main="umx_np.train",
        argv=argv,
        older=lambda starter, folder: starter.run(folder, [*argv, "--seed", "7"]),
        again=again,
        problem=problem,
        same=same,
        # An older run must not be continued as if it were the new one.
        passing=(".chkpnt", ".safetensors", ".png"),
        preload=("umx_np.training.trainer", "umx_np.data", "umx_np.weights"),
    )


def evaluate(base: Path) -> Scenario:
    """Three songs with their stems; older scores are of another number of iterations."""
    rng = np.random.default_rng(3)
    for track in ("one", "two", "three"):
        folder = base / "songs" / "test" / track
        folder.mkdir(parents=True)
        for name in STEMS[:2]:
            sf.write(folder / f"{name}.wav", 0.1 * rng.standard_normal((RATE, 1)), RATE)
    model = write_model(base / "model", 1, nb_channels=1)
    options = "--dataset folder --evaldir scores --outdir stems --device cpu --threads 2 --quiet"
    argv = [*options.split(), "--root", str(base / "songs"), "--model", str(model)]
    argv += ["--niter", "0"]

    def again(folder: Path) -> list[str]:
        settings = folder / "scores" / "test_settings.json"
        is_new = settings.exists() and json.loads(settings.read_text())["niter"] == 0
        return argv if is_new else [*argv, "--overwrite"]

    return Scenario(
        main="umx_np.evaluate",
        argv=[*argv, "--overwrite"],
        older=lambda starter, folder: starter.run(folder, [*argv, "--niter", "1"]),
        again=again,
        same=same_but_for_times,
        # Scores of other settings must not be taken for those of this run.
        passing=(".json", ".csv", ".settings"),
        preload=("umx_np.evaluation.runner", "umx_np.separation.separator", "umx_np.backends.cpu"),
    )


class _Handler(BaseHTTPRequestHandler):
    """Gives a file slowly, from where it is asked to."""

    content: bytes
    continued: list[int]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if begin >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.continued.append(begin)
            last = len(self.content) - 1
            self.send_header("Content-Range", f"bytes {begin}-{last}/{len(self.content)}")
        self.send_header("Content-Length", str(len(self.content) - begin))
        self.send_header("ETag", '"one"')
        self.end_headers()
        try:
            for place in range(begin, len(self.content), 20_000):
                self.wfile.write(self.content[place : place + 20_000])
                time.sleep(0.002)
        except OSError:
            self.close_connection = True  # the other side was killed


@contextmanager
def download(base: Path) -> Iterator[tuple[Scenario, list[int]]]:
    """A model of one file, from a server on this machine; what is in the cache is damaged.

    Also yields the places at which downloads were continued.
    """
    content = np.random.default_rng(0).bytes(600_000)
    continued: list[int] = []
    handler = type("Handler", (_Handler,), {"content": content, "continued": continued})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    file = {
        "target": "vocals",
        "filename": "vocals.pth",
        "url": f"http://127.0.0.1:{http.server_address[1]}/vocals.pth",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }

    def older(starter: Zygote, folder: Path) -> None:
        path = folder / "home" / "tiny" / file["filename"]
        path.parent.mkdir(parents=True)
        path.write_bytes(content[:-1] + b"x")

    try:
        yield (
            Scenario(
                main="umx_np.commands",
                argv=["download", "tiny", "--quiet"],
                older=older,
                same=lambda one, other: one.name.endswith(".verified.json"),
                problem=lambda path: (
                    None if path.name.endswith(".verified.json") else "other bytes"
                ),
                # The part is what the next run continues.
                kept=(".part", ".part.json"),
                preload=("umx_np.pretrained", "requests"),
                environment={"NO_PROXY": "127.0.0.1", "UMX_NP_MIRROR": "", "UMX_NP_OFFLINE": ""},
                model={"name": "tiny", "files": [file]},
            ),
            continued,
        )
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@contextmanager
def scenario(name: str, base: Path) -> Iterator[Scenario]:
    """One of the commands by its name."""
    base.mkdir(parents=True)
    if name == "download":
        with download(base) as (found, _):
            yield found
    else:
        makers = {
            "separate": separate,
            "convert": convert_folder,
            "train": train,
            "evaluate": evaluate,
        }
        yield makers[name](base)


NAMES = ("separate", "convert", "download", "train", "evaluate")
