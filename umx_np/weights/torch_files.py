"""Reading weights from PyTorch files, without PyTorch and without running anything in them.

Both formats are known. **zip** (torch 1.6 and later): an uncompressed archive of ``data.pkl``,
one entry per storage under ``data/``, ``version`` and ``byteorder``. **legacy** (before): a magic
number, a protocol number, system information, the object and the list of storage keys, each a
pickle, then for every key an element count and the raw numbers, little-endian.

Every size in a file is compared with the bytes that are there before memory is asked for. In a zip
file every entry that is used must match its CRC-32, so a damaged file is either refused or read
correctly. The legacy format has no checksum: its structure must be exact to the last byte, but a
flipped bit within the numbers goes unnoticed (downloads are verified by their hash instead).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .._support.inputs import open_input
from ..errors import WeightsError, shortened
from ._archive import START, Archive, fill
from ._pickle import MAX_PICKLE_BYTES, read_pickle
from ._torch_contents import select_state
from ._torch_records import (
    ALLOWED_GLOBALS,
    StorageRecord,
    build_arrays,
    storage_from_id,
)
from .bundle import StateDict
from .finding import listed

logger = logging.getLogger(__name__)

ReadStorage = Callable[[StorageRecord], np.ndarray]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
# The magic number, the protocol and the system information are a few values.
_MAX_HEAD_WORK = 1000
_MAX_NAME_WORK = 100_000
# Versions of the zip layout that torch has written so far start at 1; it refuses those above 10.
_ZIP_VERSIONS = range(1, 11)


def load_torch(path: str | os.PathLike[str]) -> StateDict:
    """Read a state dict from a file written by ``torch.save``.

    Parameters
    ----------
    path : path-like
        A ``.pth``, ``.pt`` or ``.ckpt`` file with a state dict, or a training checkpoint that holds
        one: Open-Unmix's ``.chkpnt``, Lightning's, or any dict, however nested, in which one state
        dict has the names of an Open-Unmix network, or lies under a usual key such as
        ``"state_dict"``. The log names what is ignored.

    Returns
    -------
    dict of str to ndarray
        C-contiguous arrays that share no memory, under the names in the file and in its order.
        They keep their dtype, except that bfloat16 comes back as float32, which holds it exactly.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, names anything that could run code, is no torch file, or
        holds several state dicts that could be meant.

    Notes
    -----
    Nothing in the file is ever executed; see `umx_np.weights._pickle`.
    """
    name = os.fspath(path)
    with open_input(name) as (file, size):
        try:
            start = file.read(64)
            if start.startswith(START):
                content, read_storage = _load_zip(file, size)
            elif start.startswith(b"\x80"):
                content, read_storage = _load_legacy(file, size)
            else:
                raise WeightsError(_unknown_content(start))
            state, ignored = select_state(content)
            if ignored:
                logger.info("%s: ignored what is not weights: %s", name, listed(ignored))
            return build_arrays(state, read_storage)
        except WeightsError as error:
            raise WeightsError(f"path={name!r}: {error}") from error


def _unknown_content(start: bytes) -> str:
    """Say what a file that is no torch file looks like."""
    text = start.lstrip().lower()
    if not start:
        return "the file is empty; download or save it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "the file is a web page, so the download went wrong; download it again"
    if text.startswith(b"version https://git-lfs"):
        return "the file is a Git LFS pointer; fetch the real file with `git lfs pull`"
    return "the file is not one that torch.save writes (neither zip nor legacy)"


# Zip format


def _load_zip(file: BinaryIO, size: int) -> tuple[object, ReadStorage]:
    archive = Archive(file, size)
    roots = [
        name[: -len("/data.pkl")]
        for name in archive.sizes
        if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(roots) != 1:
        raise WeightsError("the zip archive has no data.pkl, so torch.save did not write it")
    root = roots[0]
    if f"{root}/constants.pkl" in archive.sizes:
        raise WeightsError("the file is a TorchScript program; save the model's state_dict()")
    _check_version(archive, root)
    big_endian = _is_big_endian(archive, root)

    def read_storage(storage: StorageRecord) -> np.ndarray:
        entry = f"{root}/data/{storage.key}"
        stored = storage.type.stored
        if entry not in archive.sizes:
            raise WeightsError(f"storage={shortened(storage.key)} is not in the archive")
        if archive.sizes[entry] != storage.total * stored.itemsize:
            raise WeightsError(
                f"storage={shortened(storage.key)} has {archive.sizes[entry]} bytes instead of "
                f"{storage.total} elements of {stored.itemsize} bytes; the file is damaged"
            )
        array = np.empty(storage.total, stored)
        archive.read_into(entry, array)
        order = stored.newbyteorder(">" if big_endian else "<")
        # Nothing is copied when the order of the file is that of the machine.
        return array.view(order).astype(stored, copy=False)

    content, _ = read_pickle(
        archive.read(f"{root}/data.pkl", MAX_PICKLE_BYTES),
        allowed=ALLOWED_GLOBALS,
        persistent_load=lambda identity: storage_from_id(identity, legacy=False),
    )
    return content, read_storage


def _check_version(archive: Archive, root: str) -> None:
    entry = f"{root}/version"
    if entry not in archive.sizes:
        raise WeightsError("the archive does not say its version; the file is damaged")
    text = archive.read(entry, 16).strip()
    if not text.isdigit() or int(text) not in _ZIP_VERSIONS:
        raise WeightsError(f"version={text!r} of the file is not known; save it with torch 2")


def _is_big_endian(archive: Archive, root: str) -> bool:
    entry = f"{root}/byteorder"
    if entry not in archive.sizes:
        # torch before 2.1 did not write the entry and ran on little-endian machines.
        return False
    order = archive.read(entry, 16)
    if order not in (b"little", b"big"):
        raise WeightsError(f"byteorder={order!r} must be b'little' or b'big'; the file is damaged")
    return order == b"big"


# Legacy format


def _load_legacy(file: BinaryIO, size: int) -> tuple[object, ReadStorage]:
    file.seek(0)
    # Five pickles: all but the object are tiny.
    head = file.read(min(size, MAX_PICKLE_BYTES + (MAX_PICKLE_BYTES >> 1)))
    # The magic number is the only integer of ten bytes.
    magic, position = read_pickle(head, 0, allowed={}, max_int_bytes=10, max_work=_MAX_HEAD_WORK)
    if magic != LEGACY_MAGIC:
        raise WeightsError("the file is a pickle, but torch.save did not write it")
    protocol, position = read_pickle(head, position, allowed={}, max_work=_MAX_HEAD_WORK)
    if type(protocol) is not int or protocol != LEGACY_PROTOCOL:
        raise WeightsError(
            f"protocol={shortened(protocol)} is not {LEGACY_PROTOCOL}; the file is damaged"
        )
    system, position = read_pickle(head, position, allowed={}, max_work=_MAX_HEAD_WORK)
    if not isinstance(system, dict) or system.get("protocol_version") != LEGACY_PROTOCOL:
        raise WeightsError("the system information in the file is damaged")

    storages: dict[str, StorageRecord] = {}

    def remember(identity: object) -> StorageRecord:
        storage = storage_from_id(identity, legacy=True)
        known = storages.setdefault(storage.key, storage)
        if (known.type, known.total) != (storage.type, storage.total):
            raise WeightsError(f"storage={shortened(storage.key)} is described in two ways")
        return storage

    content, position = read_pickle(
        head, position, allowed=ALLOWED_GLOBALS, persistent_load=remember
    )
    keys, position = read_pickle(head, position, allowed={}, max_work=_MAX_NAME_WORK)
    begins = _locate_legacy_storages(file, size, position, keys, storages)

    def read_storage(storage: StorageRecord) -> np.ndarray:
        stored = storage.type.stored
        file.seek(begins[storage.key])
        array = np.empty(storage.total, stored)
        fill(file, array)
        # The format is little-endian on every machine.
        return array.view(stored.newbyteorder("<")).astype(stored, copy=False)

    return content, read_storage


def _locate_legacy_storages(
    file: BinaryIO, size: int, position: int, keys: object, storages: dict[str, StorageRecord]
) -> dict[str, int]:
    """Walk over the storages behind the pickles; the last one must end where the file ends."""
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or len(set(keys)) != len(keys)
        or set(keys) != set(storages)
    ):
        raise WeightsError("the list of storages does not match the tensors; the file is damaged")
    begins: dict[str, int] = {}
    for key in keys:
        total = storages[key].total
        file.seek(position)
        if file.read(8) != total.to_bytes(8, "little"):
            raise WeightsError(
                f"storage={shortened(key)} does not hold the {total} elements of its tensors; "
                "the file is truncated or damaged"
            )
        begins[key] = position + 8
        position += 8 + total * storages[key].type.stored.itemsize
        if position > size:
            raise WeightsError(f"storage={shortened(key)} is truncated")
    if position != size:
        raise WeightsError(f"the file has {size - position} bytes too many; it is damaged")
    return begins


def is_torch_suffix(path: str | os.PathLike[str]) -> bool:
    """Whether a file name ends like a torch file (``.pth``, ``.pt``, ``.ckpt``, ``.chkpnt``)."""
    return Path(path).suffix.lower() in (".pth", ".pt", ".ckpt", ".chkpnt")
