"""Signs, in the contents of sound files, of a data set that was put together wrongly."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import AudioError, UmxError
from .aligned import AlignedDataset
from .files import Clip
from .folders import FileDataset
from .sourcefolder import SourceFolderDataset

logger = logging.getLogger(__name__)

# What is looked at of each track, from its middle.
_SECONDS = 1.0
# Tracks that are looked at where each look decodes what comes before.
_SLOW_TRACKS = 3
# Of two files of one size, what lies here tells whether they are equal.
_HEAD = 1 << 16
# One step of 16 bits: what each of the sources of a sum may be off by.
_STEP = 1.0 / 32768.0


def report_contents(train: FileDataset, valid: FileDataset) -> None:
    """Log what cannot be meant: each thing is one warning, and nothing is left out.

    Parameters
    ----------
    train, valid : FileDataset
        What is trained and validated with.
    """
    for dataset in (train, valid):
        groups = dataset.groups()
        _report_sums(dataset, groups)
        _report_silence(dataset, groups)
        if isinstance(dataset, SourceFolderDataset):
            _report_own_interferers(dataset)
    shared = equal_files(_clips(train), _clips(valid))
    if shared:
        valid.report(
            "%d files to validate with are also trained with, so that the validation tells nothing "
            "of other music: %s",
            shared,
        )


def equal_files(clips: Iterable[Clip], others: Iterable[Clip]) -> list[Clip]:
    """Find which of `others` are files with the contents of one of `clips`, or links to it."""
    by_size: dict[int, list[Clip]] = {}
    for clip in clips:
        if (size := _size(clip)) is not None:
            by_size.setdefault(size, []).append(clip)
    known: dict[Clip, bytes] = {}
    found = []
    for other in sorted(set(others)):
        alike = by_size.get(_size(other) or -1, [])
        if any(_head(clip, known) == _head(other, known) for clip in alike):
            found.append(other)
    return found


def _clips(dataset: FileDataset) -> set[Clip]:
    return {clip for group in dataset.groups() for clip in group}


def _size(clip: Clip) -> int | None:
    try:
        return clip.path.stat().st_size
    except OSError:
        return None


def _head(clip: Clip, known: dict[Clip, bytes]) -> bytes:
    """Digest of the beginning and the middle of a file, and its stream."""
    if clip not in known:
        try:
            with clip.path.open("rb") as file:
                data = file.read(_HEAD)
                file.seek((_size(clip) or 0) // 2)
                data += file.read(_HEAD)
        except OSError:
            data = str(clip).encode("utf-8", "surrogateescape")
        known[clip] = hashlib.blake2b(data, salt=str(clip.stream).encode()).digest()
    return known[clip]


def _report_sums(dataset: FileDataset, groups: Sequence[tuple[Clip, ...]]) -> None:
    """Tell of sources that are the sum of all others, and so would be mixed in twice."""
    sums: list[Clip] = []
    slow = 0
    for group in groups:
        if len(group) < 2:
            continue
        if not all(dataset.files.info(clip).quick for clip in group):
            slow += 1
            if slow > _SLOW_TRACKS:
                continue
        sums.extend(_sums(dataset, group))
    if sums and isinstance(dataset, AlignedDataset):
        dataset.report("in %d tracks the input is the output: %s", sums[::2])
    elif sums:
        dataset.report(
            "%d sources are the sum of the others of their track within rounding, so that the "
            "mixture holds them twice; if they are mixtures, take them out of the folders: %s",
            sums,
        )


def _sums(dataset: FileDataset, group: tuple[Clip, ...]) -> list[Clip]:
    """Sources that equal the sum of the others in the middle of a track."""
    rate, length = dataset.files.info(group[0]).rate, dataset.length(group)
    count = max(1, min(length, round(_SECONDS * rate)))
    try:
        parts = [dataset.files.read(clip, (length - count) // 2, count) for clip in group]
    except AudioError:
        return []  # told when it is used
    total = np.zeros((1, count), np.float64)
    for part in parts:
        total = total + part
    tolerance = len(group) * _STEP
    return [
        clip
        for clip, part in zip(group, parts, strict=True)
        # Of what is soft, rounding leaves too little to tell by.
        if np.abs(part).max() > 32.0 * tolerance
        and np.abs(2.0 * part.astype(np.float64) - total).max() <= tolerance
    ]


def _report_silence(dataset: FileDataset, groups: Sequence[tuple[Clip, ...]]) -> None:
    """Tell of data sets in which all targets are silent, or all that is mixed with them."""
    groups = [group for group in groups if len(group) > 1]
    if not groups or isinstance(dataset, AlignedDataset):
        return
    for what, clips in (
        ("the target", [group[0] for group in groups]),
        ("what is mixed with the target", [clip for group in groups for clip in group[1:]]),
    ):
        if all(_is_silent(dataset, clip) for clip in clips):
            logger.warning(
                "%s: %s is silent in all tracks: there is nothing to learn", dataset.folder, what
            )


def _report_own_interferers(dataset: SourceFolderDataset) -> None:
    """Tell of files of the target that lie among the interferers too."""
    tracks = dict(dataset.source_tracks)
    targets = tracks.pop(dataset.target_dir)
    own = equal_files(targets, (clip for clips in tracks.values() for clip in clips))
    if own:
        dataset.report("%d interferers are files of the target too: %s", own)


def _is_silent(dataset: FileDataset, clip: Clip) -> bool:
    try:
        return not dataset.files.read(clip).any()
    except UmxError:
        return False
