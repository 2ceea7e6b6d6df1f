"""What is promised to stay: names, signatures, options, and what files look like.

`collect` asks the package; tests/golden/make_public_api.py writes the answer down.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile as sf

import umx_np
from umx_np.catalog import plan
from umx_np.commands import COMMANDS, info, main, models, verifying
from umx_np.config import ModelConfig
from umx_np.evaluation import Evaluation, TrackScores
from umx_np.evaluation.bss import METRICS
from umx_np.evaluation.published import Reproduction
from umx_np.testing import random_bundle_of
from umx_np.training.checkpoint import FORMAT_VERSION, read_checkpoint
from umx_np.weights import load_safetensors_config, save_folder

from . import earlier

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "golden" / "public_api.json"
DOCUMENT = ROOT / "docs" / "stability.md"
BEGIN, END = "<!-- lists:begin -->", "<!-- lists:end -->"
ADVICE = "if it is meant, run `python tests/golden/make_public_api.py` and say so in CHANGELOG.md"


# Names and signatures


def public_modules() -> dict[str, ModuleType]:
    """The package and the modules among its public names."""
    found = {"umx_np": umx_np}
    for name in umx_np.__all__:
        if inspect.ismodule(module := getattr(umx_np, name)):
            found[f"umx_np.{name}"] = module
    return found


def names_of(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )


def signature_of(value: Callable[..., object], *, bound: bool = False) -> str:
    """The parameters of something and their defaults: without types, which promise nothing."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    parameters = list(signature.parameters.values())[int(bound) :]
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    empty = inspect.Signature.empty
    text = str(signature.replace(parameters=plain, return_annotation=empty))
    assert " at 0x" not in text, text
    return text.replace(umx_np.__version__, "VERSION")


def described(value: Any, promised: frozenset[type]) -> dict[str, Any] | str:
    """A function by its signature; a class by that of its constructor and what it has.

    What a class inherits is promised where that which has it is public itself.
    """
    if not inspect.isclass(value):
        return signature_of(value) if inspect.isroutine(value) else "constant"
    if issubclass(value, BaseException):
        return {"bases": [base.__name__ for base in value.__bases__]}
    members = {}
    for name, member in inspect.getmembers_static(value):
        owner = next(base for base in value.__mro__ if name in vars(base))
        if owner not in promised or (name.startswith("_") and name != "__call__"):
            continue
        if isinstance(member, property):
            members[name] = "property"
        elif isinstance(member, (classmethod, staticmethod)):
            members[name] = signature_of(getattr(value, name))
        elif inspect.isfunction(member):
            members[name] = signature_of(member, bound=True)
    return {"signature": signature_of(value), "members": members}


def api() -> dict[str, Any]:
    modules = public_modules()
    values = {
        (module_name, name): getattr(module, name)
        for module_name, module in modules.items()
        for name in names_of(module)
    }
    promised = frozenset(value for value in values.values() if inspect.isclass(value))
    found: dict[str, Any] = {module_name: {} for module_name in modules}
    for (module_name, name), value in values.items():
        if not inspect.ismodule(value):
            found[module_name][name] = described(value, promised)
    return found


def commands() -> dict[str, list[str]]:
    """The options of each command."""
    return {
        name: sorted(
            {flag for action in command.parser()._actions for flag in action.option_strings}
        )
        for name, command in COMMANDS.items()
    }


def variables() -> list[str]:
    """Environment variables that the package reads."""
    sources = ((ROOT / "umx_np").rglob("*.py"), (ROOT / "src_ext").rglob("*.[ch]"))
    texts = (path.read_text(encoding="utf-8") for paths in sources for path in paths)
    found = {name for text in texts for name in re.findall(r"""["'](UMX_NP_[A-Z_]+)["']""", text)}
    return sorted(name for name in found if not name.startswith("UMX_NP_TEST"))


# Files


def keys(value: Any, depth: int = 1) -> Any:
    """The keys of a document; objects below the depth, whose keys are the user's, are {}."""
    if not isinstance(value, dict):
        return "value"
    if not depth:
        return {}
    found = {key: keys(inner, depth - 1) for key, inner in sorted(value.items())}
    return list(found) if found and set(map(str, found.values())) == {"value"} else found


def stored_keys(path: Path, depth: int = 1) -> Any:
    return keys(json.loads(path.read_text(encoding="utf-8")), depth)


def version_of(path: Path) -> list[Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    return [document["format"], document["format_version"]]


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def formats() -> dict[str, Any]:
    """Write a file of each kind, and say what is in it."""
    with tempfile.TemporaryDirectory() as name, _working_in(Path(name)):
        return {
            **_model_formats(Path("model")),
            **_separation_formats(Path("song.wav")),
            **_training_formats(Path("run")),
            **_evaluation_formats(),
            "plan.json of a catalogue": {
                "version": [plan.FORMAT, plan.FORMAT_VERSION],
                "keys": sorted(field.name for field in fields(plan.Plan)),
            },
            "umx-np info --json": keys(info.collect()),
            "umx-np models --json": keys(models.collect()[0]),
            "umx-np models --verify --report": {
                "keys": keys(verifying._document([verifying.Verified("x")], "x"), 3)
            },
        }


def _model_formats(folder: Path) -> dict[str, Any]:
    config = ModelConfig(nb_bins=129, hidden_size=8, max_bin=100)
    bundle = random_bundle_of(config, ("vocals", "drums"), sample_rate=8000.0)
    for kind in ("safetensors", "pth"):
        save_folder(bundle, folder / kind, kind)
    described_model = umx_np.pretrained.folders.bundled_folder("umxm")
    stored, _ = load_safetensors_config(folder / "safetensors" / "vocals.safetensors")
    header = (folder / "safetensors" / "vocals.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    metadata = json.loads(header[8 : 8 + length])["__metadata__"]["umx_np"]
    assert stored is not None
    return {
        "model folder": {
            kind: sorted(path.name for path in (folder / kind).iterdir())
            for kind in ("safetensors", "pth")
        },
        "separator.json": stored_keys(described_model / "separator.json"),
        "<target>.json of a saved model": stored_keys(folder / "pth" / "vocals.json", 2),
        "<target>.safetensors": {
            "version": json.loads(metadata)["version"],
            "metadata": keys(json.loads(metadata), 2),
        },
    }


def _separation_formats(song: Path) -> dict[str, Any]:
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (4000, 2))
    sf.write(song, noise, 8000)
    said = io.StringIO()
    words = ["separate", str(song), "--model", "model/pth", "--quiet"]
    as_json = "--json" in commands()["separate"]
    with contextlib.redirect_stdout(said):
        status = main([*words, "--json"] if as_json else words)
    assert status == 0
    record = next(path for path in Path().rglob(".*umx-np*.json"))
    found = {"record of stems": {"version": version_of(record), "keys": stored_keys(record, 2)}}
    if as_json:
        line = Path("line.json")
        line.write_text(said.getvalue(), encoding="utf-8")
        found["umx-np separate --json"] = {
            "version": version_of(line),
            "keys": stored_keys(line),
        }
    return found


def _training_formats(folder: Path) -> dict[str, Any]:
    earlier.train(folder, epochs=1)
    tree = read_checkpoint(folder / "tone.chkpnt")
    inner = {"config", "record", "scheduler", "early_stopping", "cosine"}
    return {
        "folder of a run": sorted(path.name for path in folder.iterdir() if path.suffix != ".png"),
        "<target>.json of a run": stored_keys(folder / "tone.json"),
        "<target>.chkpnt": {
            "version": FORMAT_VERSION,
            "keys": {key: keys(tree[key], int(key in inner)) for key in sorted(tree)},
        },
    }


def _evaluation_formats() -> dict[str, Any]:
    frames = {metric: np.zeros(2) for metric in METRICS}
    track = TrackScores("song", {"vocals": frames, "drums": frames})
    result = Evaluation({"song": track}, settings={}, name="umxhq")
    track.write("song.json")
    scores = json.loads(Path("song.json").read_text(encoding="utf-8"))
    summary = json.loads(result.summary().to_json())
    reproduction = json.loads(Reproduction.of(result, "umxhq").to_json())
    return {
        "<track>.json of scores": {
            "keys": keys(scores),
            "of a target": keys(scores["targets"][0]),
            "of a frame": keys(scores["targets"][0]["frames"][0], 2),
        },
        "<subset>_summary.json": keys(summary),
        "<subset>_published.json": {
            "version": [reproduction["format"], reproduction["format_version"]],
            "keys": keys(reproduction),
        },
    }


def collect() -> dict[str, Any]:
    """All that the list has."""
    return {
        "names": api(),
        "commands": commands(),
        "variables": variables(),
        "formats": formats(),
    }


# Writing


def render(document: dict[str, Any]) -> str:
    """The lists of docs/stability.md."""
    parts = ["<!-- made by python tests/golden/make_public_api.py -->"]
    for module, names in document["names"].items():
        lines = [line for name, value in names.items() for line in _name_lines(name, value)]
        parts.append(f"### {module}\n\n```text\n" + "\n".join(lines) + "\n```")
    options = [f"{name}: {' '.join(flags)}" for name, flags in document["commands"].items()]
    parts.append(
        "### Options of the commands\n\n```text\n" + "\n".join(map(_wrapped, options)) + "\n```"
    )
    names = ", ".join(f"`{name}`" for name in document["variables"])
    parts.append(f"### Environment variables\n\n{textwrap.fill(names, 100)}")
    files = json.dumps(document["formats"], indent=1, sort_keys=True)
    parts.append(
        "### What files and JSON hold\n\n"
        "Keys; where some of them are objects, the others are `value`.\n\n"
        f"```json\n{_folded(files)}\n```"
    )
    return "\n\n".join(parts)


def _folded(text: str) -> str:
    """Write innermost objects and lists in as few lines as they need."""

    def fold(found: re.Match[str]) -> str:
        indent = len(found[1])
        return textwrap.fill(
            " ".join(found[0].split()), 100, initial_indent=found[1],
            subsequent_indent=" " * (indent + 1), break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip

    return re.sub(r'^( *)(?:"[^"\n]*": )?[\[{][^\[\]{}]*[\]}]', fold, text, flags=re.MULTILINE)


def _name_lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield _wrapped(name + value if value.startswith("(") else f"{name}: {value}")
    elif "bases" in value:
        yield f"{name}({', '.join(value['bases'])})"
    else:
        yield _wrapped(f"class {name}{value['signature']}")
        for member, signature in value["members"].items():
            yield _wrapped(
                f"    .{member}" if signature == "property" else f"    .{member}{signature}"
            )


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 8)
    return textwrap.fill(
        line, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True,
    )  # fmt: skip


def split_document(text: str) -> tuple[str, str, str]:
    """What stands before the lists, the lists, and what stands behind them."""
    before, _, rest = text.partition(BEGIN)
    lists, _, after = rest.partition(END)
    return before, lists, after
