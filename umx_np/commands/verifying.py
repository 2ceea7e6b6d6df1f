"""``umx-np models --verify``: published files as they are, and their stems beside PyTorch's."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .._support.atomic import atomic_write
from .._support.console import say, show
from ..errors import UmxError
from .frame import format_size, status_of, table
from .upstream_stems import NOT_INSTALLED

if TYPE_CHECKING:
    import numpy as np

    from ..pretrained.models import ModelInfo

logger = logging.getLogger(__name__)

SONG = "examples/song.ogg"
SECONDS = 10.0
# How far the difference from PyTorch's Open-Unmix in double precision has to be below a stem. In
# tests it is at 115 dB; of a stem that is quiet in the excerpt, less far.
AGREEMENT_DB = 80.0
FORMAT_VERSION = 1
_ALGORITHMS = ("sha256", "sha512", "md5")


@dataclass
class Verified:
    """Findings about a model.

    Attributes
    ----------
    model : str
        Its name.
    files : dict of str to dict
        By target: name, address, size, hashes, and how many bits of them were known before.
    agreement_db : dict of str to float
        By stem: how far below it the difference from PyTorch's Open-Unmix is.
    not_verified : list of str
        What was left out, and why.
    error : str or None
        What is wrong.
    """

    model: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    agreement_db: dict[str, float] = field(default_factory=dict)
    not_verified: list[str] = field(default_factory=list)
    error: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of verifying to the parser of ``umx-np models``."""
    group = parser.add_argument_group("verifying")
    group.add_argument(
        "--verify",
        nargs="+",
        metavar="NAME",
        help="download models, record the whole hashes of their files, and compare their stems "
        "with those of PyTorch's Open-Unmix where it is installed",
    )
    group.add_argument(
        "--song",
        default=SONG,
        metavar="FILE",
        help=f"what to separate: its first {SECONDS:g} seconds (default: {SONG})",
    )
    group.add_argument("--report", metavar="FILE", help="write all of it as JSON, too")


def run(args: argparse.Namespace) -> int:
    """Verify models; return 3 if some are not as they should be, 1 if none is."""
    from ..pretrained import get_model_info

    infos = [get_model_info(name) for name in dict.fromkeys(args.verify)]
    results = []
    for info in infos:
        if not args.quiet:
            say(f"{info.name}: licence {info.license or 'not stated here'}; see {info.page}")
        results.append(verify(info, args.song, progress=not args.quiet))
    document = _document(results, args.song)
    if args.report is not None:
        with atomic_write(args.report) as file:
            file.write((json.dumps(document, indent=2) + "\n").encode())
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        _show(results)
    failed = sum(result.error is not None for result in results)
    return status_of(len(results) - failed, failed)


def verify(info: ModelInfo, song: str, *, progress: bool = False) -> Verified:
    """Verify one model.

    Parameters
    ----------
    info : ModelInfo
        The model; its files are downloaded, and hashed again if they are here.
    song : str
        Sound file to separate.
    progress : bool
        Whether to show bars.

    Returns
    -------
    Verified
        With `error` where something is wrong: nothing is raised for it.
    """
    from ..pretrained import download

    result = Verified(info.name)
    try:
        paths = download(info.name, verify=True, progress=progress)
        _verify_files(info, paths, result)
        _verify_stems(info, paths, Path(song), result)
    except (UmxError, OSError) as error:
        logger.error("error: %s: %s", info.name, error)
        result.error = str(error)
    return result


def _verify_files(info: ModelInfo, paths: dict[str, Path], result: Verified) -> None:
    """Record what the files are, and read the weights."""
    from ..pretrained import load_model
    from ..pretrained.hashes import digests

    for target, path in paths.items():
        known = info.files.get(target)
        with open(path, "rb") as file:
            found = digests(file, _ALGORITHMS)
        result.files[target] = {
            "file": path.name,
            "url": known.url if known is not None else None,
            "bytes": path.stat().st_size,
            **found,
            "known_bits": known.nb_verified_bits if known is not None else 0,
        }
    weak = [target for target, file in result.files.items() if file["known_bits"] < 128]
    if weak and not info.is_bundled:
        bits = max(result.files[target]["known_bits"] for target in weak)
        result.not_verified.append(
            f"files of {', '.join(weak)}: only {bits} bits of their hashes are published"
        )
    # Of which every tensor is checked, and the architecture.
    load_model(info.name, offline=True)


def _verify_stems(info: ModelInfo, paths: dict[str, Path], song: Path, result: Verified) -> None:
    """Compare the stems of an excerpt with those of PyTorch's Open-Unmix."""
    if info.is_bundled:
        result.not_verified.append("stems: Open-Unmix has no model of this name")
        return
    if not song.is_file():
        result.not_verified.append(f"stems: {str(song)!r} is not there; name a song with --song")
        return
    from ..audio import preprocess, read
    from ..pretrained import load_model
    from ..separation.separator import Separator

    bundle = load_model(info.name, offline=True)
    audio, rate = read(song, duration=SECONDS, rate=bundle.sample_rate)
    channels = audio.mean(0, keepdims=True) if bundle.nb_channels == 1 else audio
    mixture = preprocess(channels, rate, rate, nb_channels=bundle.nb_channels)
    separator = Separator.from_bundle(bundle, niter=1, device="cpu")
    ours = dict(zip(separator.stem_names, separator(mixture)[0], strict=True))
    theirs = _upstream_stems(info.name, paths.values(), mixture[0])
    if isinstance(theirs, str):
        result.not_verified.append(f"stems: openunmix is not here to compare with: {theirs}")
        return
    result.agreement_db = {name: _decibels(ours[name], theirs[name]) for name in ours}
    low = {name: dB for name, dB in result.agreement_db.items() if not dB >= AGREEMENT_DB}
    if low:
        worst = ", ".join(f"{name} {dB:.1f} dB" for name, dB in low.items())
        raise UmxError(
            f"stems of model={info.name!r} differ from those of openunmix: {worst} "
            f"(expected: {AGREEMENT_DB:g} dB)"
        )


def _upstream_stems(
    name: str, paths: Iterable[Path], mixture: np.ndarray
) -> dict[str, np.ndarray] | str:
    """Let PyTorch's Open-Unmix separate with the same files; return why not, if it cannot.

    Raises
    ------
    UmxError
        If it is here and fails.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="umx-np-") as folder:
        # It looks for its weights there before it downloads them.
        checkpoints = Path(folder) / "torch" / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for path in paths:
            _place(path.resolve(), checkpoints / path.name)
        song, stems = Path(folder) / "song.npy", Path(folder) / "stems.npz"
        np.save(song, mixture)
        done = subprocess.run(
            [sys.executable, "-m", "umx_np.commands.upstream_stems", name, song, stems],
            env={**os.environ, "TORCH_HOME": str(Path(folder) / "torch")},
            capture_output=True,
            text=True,
            errors="replace",
        )
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        if done.returncode == NOT_INSTALLED:
            return said
        if done.returncode:
            raise UmxError(f"openunmix cannot separate with model={name!r}: {said}")
        with np.load(stems) as arrays:
            return dict(arrays)


def _place(path: Path, link: Path) -> None:
    """Let a file be found elsewhere, too; where links need rights, as a copy."""
    try:
        link.symlink_to(path)
    except OSError:
        shutil.copyfile(path, link)


def _decibels(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the level of a stem over that of the difference from it, in dB."""
    import numpy as np

    if ours.shape != theirs.shape:
        return -np.inf
    difference = np.sum(np.square(ours - theirs), dtype=np.float64)
    whole = np.sum(np.square(theirs), dtype=np.float64)
    return float(10 * np.log10(whole / difference)) if difference else np.inf


def _document(results: Sequence[Verified], song: str) -> dict[str, Any]:
    """Return what is written as JSON, with null for a number that is infinite."""
    models = {result.model: asdict(result) for result in results}
    for model in models.values():
        del model["model"]
        agreement = model["agreement_db"]
        model["agreement_db"] = {k: v if abs(v) < 1e9 else None for k, v in agreement.items()}
    return {
        "format": "umx_np verification",
        "format_version": FORMAT_VERSION,
        "umx_np": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "song": os.path.basename(song),
        "seconds": SECONDS,
        "expected_agreement_db": AGREEMENT_DB,
        "models": models,
    }


def _show(results: Sequence[Verified]) -> None:
    rows = [["model", "stem", "size", "bits known", "agrees with openunmix", "SHA-256"]]
    for result in results:
        for target, file in result.files.items():
            agreement = result.agreement_db.get(target)
            rows.append(
                [
                    result.model,
                    target,
                    format_size(file["bytes"]),
                    str(file["known_bits"]) if file["url"] else "included",
                    "not compared" if agreement is None else f"to {agreement:.1f} dB",
                    file["sha256"],
                ]
            )
    show(table(rows))
    for result in results:
        for line in result.not_verified:
            show(f"{result.model}: not verified: {line}")
        if result.error is not None:
            show(f"{result.model}: WRONG: {result.error}")
