"""What is fuzzed: five kinds of files, seeds for each, and the rule that every file is held to.

The rule: any bytes get an answer within a second of the processor and 100 MB over their size, and
if the answer is an error it is a short `UmxError` without control characters.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers import torch_bytes as tb
from umx_np.errors import TrainingError, UmxError
from umx_np.training.checkpoint import read_checkpoint, write_checkpoint
from umx_np.weights import load_folder, load_safetensors, load_torch, save_safetensors, save_torch
from umx_np.weights.safetensors_files import load_safetensors_config
from umx_np.weights.state import check_state, infer_config

MAX_MESSAGE = 500
MAX_SECONDS = 1.0
MAX_BYTES = 100 << 20

Rng = np.random.Generator


class RuleError(AssertionError):
    """A file that was not answered as the rule says."""


@dataclass(frozen=True)
class Target:
    """One kind of files."""

    suffix: str
    read: Callable[[Path], object]
    seeds: Callable[[Path], list[bytes]]
    # Makes a file out of bytes at a deeper level, such as the pickle in an archive.
    wrap: Callable[[bytes], bytes]
    # The deeper level of a seed.
    core: Callable[[bytes], bytes]


def check(target: Target, data: bytes, folder: Path) -> str | None:
    """Let a file be read; return the message of the error, None if there is none.

    Raises
    ------
    RuleError
        If the rule is broken.
    """
    path = folder / f"x{target.suffix}"
    path.write_bytes(data)
    before = _peak_bytes()
    begin = time.process_time()
    message = None
    try:
        target.read(path)
    except UmxError as error:
        message = str(error)
    except BaseException as error:
        raise RuleError(f"{type(error).__name__}: {str(error)[:200]}") from error
    seconds = time.process_time() - begin
    grown = _peak_bytes() - before
    if seconds > MAX_SECONDS:
        raise RuleError(f"{seconds:.2f} s of the processor")
    if grown > MAX_BYTES + len(data):
        raise RuleError(f"{grown >> 20} MB for {len(data)} bytes")
    if message is not None:
        # The name of the file is the caller's.
        shown = message.replace(str(path), "").replace(str(folder), "")
        if len(shown) > MAX_MESSAGE or not shown.isprintable():
            raise RuleError(f"message of {len(shown)} characters: {shown[:300]!r}")
        if "more memory than there is" in shown:
            raise RuleError(shown)
    return message


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# Torch files

_STATE = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.float16([1, 2]),
    "n": np.array(7),
    "flag": np.array([True, False]),
}
_NETWORK = tb.tiny_state()
_CHECKPOINT = {
    "epoch": 3,
    "state_dict": {f"model.{name}": array for name, array in _NETWORK.items()},
    "optimizer_states": [{"state": {0: {"step": 7.0}}, "param_groups": [{"betas": (0.9, 0.99)}]}],
    "hyper_parameters": {"root": b"cpathlib\nPosixPath\n(" + tb.text("/") + b"tR"},
}


def _saved(state: dict[str, np.ndarray], legacy: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        save_torch(state, path, legacy=legacy)
        return path.read_bytes()


def _pickles(legacy: bool) -> list[bytes]:
    stored = tb.storage(legacy=legacy)
    tensor = tb.tensor(stored)
    state = tb.state_pickle(x=tensor, y=tensor)
    checkpoint = (
        tb.PROTOCOL + b"}(" + tb.text("epoch") + b"K\x05" + tb.text("state_dict")
        + state[2:-1] + tb.text("optimizer") + b"}](N\x88\x89G\x00\x00\x00\x00\x00\x00\x00\x00"
        + b"ets)\x85\x86\x94h\x00u."
    )  # fmt: skip
    parameter = (
        tb.PROTOCOL + b"}" + tb.text("p") + b"ctorch._utils\n_rebuild_parameter\n("
        + tensor + b"\x88" + tb.ORDERED_DICT + b"tRs."
    )  # fmt: skip
    nested = tb.PROTOCOL + b")" + b"q\x00h\x00\x86" * 40 + b"."
    strings = tb.PROTOCOL + b"}(\x8c\x01a\x8d\x01\0\0\0\0\0\0\0bU\x01cT\x01\0\0\0d\x94u."
    return [state, checkpoint, parameter, nested, strings]


_VALUES = np.arange(6, dtype="<f4").tobytes()


def _zip_wrap(pickle: bytes) -> bytes:
    return tb.zip_file(pickle, {"0": _VALUES})


def _legacy_wrap(pickle: bytes) -> bytes:
    return tb.legacy_file(pickle, {"0": (6, _VALUES)})


def _zip_seeds(_: Path) -> list[bytes]:
    saved = [_saved(_STATE, False), _saved(_NETWORK, False), tb.torch_file(_CHECKPOINT)]
    return [*saved, *map(_zip_wrap, _pickles(False))]


def _legacy_seeds(_: Path) -> list[bytes]:
    saved = [_saved(_STATE, True), _saved(_NETWORK, True), tb.torch_file(_CHECKPOINT, legacy=True)]
    return [*saved, *map(_legacy_wrap, _pickles(True))]


def _read_torch(path: Path) -> object:
    state = load_torch(path)
    return check_state(state, infer_config(state))


# Safetensors


def with_header(header: bytes, numbers: bytes = b"") -> bytes:
    """Make a safetensors file."""
    return len(header).to_bytes(8, "little") + header + numbers


def header_of(data: bytes) -> bytes:
    """Return the JSON of a safetensors file."""
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def _safetensors_seeds(folder: Path) -> list[bytes]:
    path = folder / "seed.safetensors"
    seeds = []
    for dtype in (None, "float16", "int8"):
        save_safetensors(_NETWORK, path, tb.TINY, {"more": "text"}, dtype=dtype)
        seeds.append(path.read_bytes())
    save_safetensors(_STATE, path)
    seeds.append(path.read_bytes())
    wide = {"x": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}
    seeds.append(with_header(json.dumps(wide).encode(), b"abcd"))
    return seeds


def _read_safetensors(path: Path) -> object:
    load_safetensors_config(path)
    state = load_safetensors(path)
    return check_state(state, infer_config(state))


# JSON of a model folder

_SEPARATOR = {"nfft": 8, "nhop": 4, "sample_rate": 44100.0, "nb_channels": 2, "license": "MIT"}
_DESCRIPTION = {
    "args": {"nfft": 8, "nhop": 4, "nb_channels": 2, "hidden_size": 4, "unidirectional": False},
    "best_loss": 0.5,
    "train_loss_history": [1.0, 0.5],
}


def _json_seeds(_: Path) -> list[bytes]:
    return [json.dumps(document).encode() for document in (_SEPARATOR, _DESCRIPTION)]


def _read_json(path: Path) -> object:
    folder = path.parent / "model"
    good = {"separator.json": _SEPARATOR, "vocals.json": _DESCRIPTION}
    if not folder.exists():
        folder.mkdir()
        save_safetensors(_NETWORK, folder / "vocals.safetensors", tb.TINY)
        for name, document in good.items():
            (folder / name).write_text(json.dumps(document))
    data = path.read_bytes()
    # The content says which of the two it is meant to be.
    name = "vocals.json" if b'"args"' in data else "separator.json"
    (folder / name).write_bytes(data)
    try:
        return load_folder(folder)
    finally:
        (folder / name).write_text(json.dumps(good[name]))


# Checkpoints of a training


def _tree() -> dict[str, Any]:
    moments = {name: np.zeros_like(value) for name, value in _NETWORK.items()}
    return {
        "config": {"target": "vocals", "lr": 0.001, "seed": 42, "nfft": 8},
        "arguments": {"root": "/data", "workers": 2},
        "network": dict(_NETWORK),
        "optimizer": {"moments": moments, "step": 3, "lr": np.array(0.001)},
        "record": {"epoch": 2, "batch": 0, "train_loss_history": [1.0, 0.5]},
        "random": {"state": 2**100, "inc": 7},
        "sample_rate": 44100.0,
        "nb_items": 10,
    }


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    path = folder / "seed.chkpnt"
    write_checkpoint(path, _tree())
    whole = path.read_bytes()
    write_checkpoint(path, {"n": 1, "a": np.zeros(2)})
    return [whole, path.read_bytes()]


def _read_checkpoint(path: Path) -> object:
    tree = read_checkpoint(path)
    if not isinstance(tree.get("network"), dict):
        raise TrainingError("no network")
    if not all(isinstance(value, np.ndarray) for value in tree["network"].values()):
        raise TrainingError("no arrays")
    return infer_config(tree["network"])


def _document_wrap(text: bytes) -> bytes:
    """Put the text of a checkpoint's document into the metadata, without tensors."""
    inner = {"version": 1, "metadata": {"checkpoint": text.decode("utf-8", "replace")}}
    header = {"__metadata__": {"umx_np": json.dumps(inner)}}
    return with_header(json.dumps(header).encode())


def _document_of(data: bytes) -> bytes:
    inner = json.loads(json.loads(header_of(data))["__metadata__"]["umx_np"])
    return inner["metadata"]["checkpoint"].encode()


def _zip_core(data: bytes) -> bytes:
    begin = data.index(b"\x80")
    return data[begin : data.index(b"PK", begin)]


def _legacy_core(data: bytes) -> bytes:
    begin = data.index(b"\x80\x02", data.index(b"protocol_version"))
    return data[begin : data.index(b"\x80\x02](", begin)]


TARGETS = {
    "torch-zip": Target(".pth", _read_torch, _zip_seeds, _zip_wrap, _zip_core),
    "torch-legacy": Target(".pth", _read_torch, _legacy_seeds, _legacy_wrap, _legacy_core),
    "safetensors": Target(
        ".safetensors", _read_safetensors, _safetensors_seeds, with_header, header_of
    ),
    "json": Target(".json", _read_json, _json_seeds, bytes, bytes),
    "checkpoint": Target(
        ".chkpnt", _read_checkpoint, _checkpoint_seeds, _document_wrap, _document_of
    ),
}


# Mutation

_NUMBERS = (0, 1, 127, 255, 1 << 15, (1 << 16) - 1, (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1)
_OPCODES = b"().012BCFGIJKLMNPQRSTUVX]abcdeghijlopqrstu}" + bytes(range(0x80, 0x98))


def mutate_bytes(data: bytes, seeds: list[bytes], rng: Rng) -> bytes:
    """Change some bytes: flip, set, insert, delete, repeat, cut, or splice with another seed."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(len(result) + 1))
        kind = int(rng.integers(8))
        if kind == 0 and place < len(result):
            result[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            result[place : place + 1] = rng.bytes(1)
        elif kind == 2:
            number = _NUMBERS[rng.integers(len(_NUMBERS))]
            width = int(rng.choice([1, 2, 4, 8]))
            result[place : place + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
        elif kind == 3:
            result[place:place] = bytes([_OPCODES[rng.integers(len(_OPCODES))]])
        elif kind == 4:
            del result[place : place + int(rng.integers(1, 20))]
        elif kind == 5:
            piece = result[place : place + int(rng.integers(1, 40))]
            result[place:place] = piece * int(rng.integers(1, 200))
        elif kind == 6:
            del result[place:]
        else:
            other = seeds[rng.integers(len(seeds))]
            begin = int(rng.integers(len(other) + 1))
            result[place:place] = other[begin : begin + int(rng.integers(1, 200))]
    return bytes(result[: 1 << 20])


def _hostile(rng: Rng) -> Any:
    deep: Any = []
    for _ in range(int(rng.integers(1, 300))):
        deep = [deep]
    values = [
        None, True, False, 0, -1, 1, 3, 1e400, -1e400, float("nan"), 0.001, 1e8, 1e-320, 2**31,
        2**63, 2**64, 10**400, -(10**400), "", "text", "\x1b[31m\u202e", "a" * 5000, [], {}, [1, 2],
        {"a": 1}, {"$tensor": "a"}, {"$tensor": 3}, {"$tensor": "network/fc1.weight"}, deep,
        ["x"] * 1000, {str(i): i for i in range(1000)},
    ]  # fmt: skip
    return values[rng.integers(len(values))]


def mutate_tree(tree: Any, rng: Rng) -> Any:
    """Replace, remove, rename or copy something in a tree of JSON."""
    tree = json.loads(json.dumps(tree))
    places: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            places.append((node, key))
            if isinstance(value, (dict, list)):
                stack.append(value)
    for _ in range(int(rng.integers(1, 4))):
        if not places:
            break
        node, key = places[rng.integers(len(places))]
        if isinstance(node, dict) and key not in node:
            continue
        other, name = places[rng.integers(len(places))]
        kind = int(rng.integers(5))
        if kind <= 1:
            node[key] = _hostile(rng)
        elif kind == 2 and isinstance(node, dict):
            del node[key]
        elif kind == 3 and isinstance(node, dict):
            node["\x1bkey" * int(rng.integers(1, 500))] = node[key]
        elif isinstance(other, list) or name in other:
            node[key] = json.loads(json.dumps(other[name] if node is not other else None))
    return tree


def mutate_document(target: Target, seed: bytes, rng: Rng) -> bytes:
    """Change the JSON in a seed, at the outer or inner level; the numbers behind it stay."""
    if target.suffix == ".json":
        return json.dumps(mutate_tree(json.loads(seed), rng)).encode()
    header = json.loads(header_of(seed))
    numbers = seed[8 + len(header_of(seed)) :]
    if rng.random() < 0.5:
        header = mutate_tree(header, rng)
    elif "__metadata__" in header:
        inner = json.loads(header["__metadata__"]["umx_np"])
        if "checkpoint" in inner["metadata"] and rng.random() < 0.8:
            document = json.loads(inner["metadata"]["checkpoint"])
            inner["metadata"]["checkpoint"] = json.dumps(mutate_tree(document, rng))
        else:
            inner = mutate_tree(inner, rng)
        header["__metadata__"]["umx_np"] = json.dumps(inner)
    return with_header(json.dumps(header).encode(), numbers)


def mutant(target: Target, seeds: list[bytes], rng: Rng) -> bytes:
    """Make a file that no program wrote."""
    seed = seeds[rng.integers(len(seeds))]
    kind = rng.random()
    if target.suffix != ".pth" and kind < 0.5:
        return mutate_document(target, seed, rng)
    if kind < 0.8:
        try:
            core = target.core(seed)
        except (ValueError, KeyError):
            core = seed
        return target.wrap(mutate_bytes(core, seeds, rng))
    return mutate_bytes(seed, seeds, rng)
