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

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import WeightsError
from ._pickle import MAX_PICKLE_BYTES, read_pickle
from ._torch_records import (
    ALLOWED_GLOBALS,
    StorageRecord,
    build_arrays,
    select_state,
    storage_from_id,
)
from .bundle import StateDict

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30
_MAX_ENTRIES = 20_000
# Versions of the zip layout that torch has written so far start at 1; it refuses those above 10.
_ZIP_VERSIONS = range(1, 11)


def load_torch(path: str | os.PathLike[str]) -> StateDict:
    """Read a state dict from a file written by ``torch.save``.

    Parameters
    ----------
    path : path-like
        A ``.pth`` file with a state dict, or a training checkpoint that holds one under
        ``"state_dict"`` (such as Open-Unmix's ``.chkpnt``; the rest of it is ignored).

    Returns
    -------
    dict of str to ndarray
        C-contiguous arrays that share no memory, under the names in the file and in its order.
        They keep their dtype, except that bfloat16 comes back as float32, which holds it exactly.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, names anything but weights, or is no torch file.

    Notes
    -----
    Nothing in the file is ever executed; see `umx_np.weights._pickle`.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(64)
            if start.startswith(_ZIP_START):
                return _load_zip(file, size)
            if start.startswith(b"\x80"):
                return _load_legacy(file, size)
            raise WeightsError(_unknown_content(start))
    except WeightsError as error:
        raise WeightsError(f"path={name!r}: {error}") from error
    except OSError as error:
        raise WeightsError(f"path={name!r} cannot be read: {error.strerror or error}") from error


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


def _fill(file: BinaryIO, array: np.ndarray) -> None:
    """Fill an array with the next bytes of a file."""
    target = array.view(np.uint8).data
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])  # type: ignore[attr-defined]
        if not count:
            raise WeightsError("the file is truncated")
        done += count


# Zip format


class _Archive:
    """Entries of an uncompressed zip archive, each checked against the bytes of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
        # The directory of a damaged archive makes zipfile raise all of these.
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError) as e:
            raise WeightsError(f"the archive is truncated or damaged: {e}") from e
        except (OSError, OverflowError) as e:
            raise WeightsError(f"the directory of the archive is damaged: {e}") from e
        if len(infos) > _MAX_ENTRIES:
            raise WeightsError(f"the archive has {len(infos)} entries (limit: {_MAX_ENTRIES})")
        self.entries: dict[str, tuple[int, int, int]] = {}
        for info in infos:
            if info.filename in self.entries:
                raise WeightsError(f"the archive holds entry={info.filename[:100]!r} twice")
            self.entries[info.filename] = (self._check(info, size), info.file_size, info.CRC)
        if sum(length for _, length, _ in self.entries.values()) > size:
            raise WeightsError("the entries of the archive overlap; the file is damaged")

    def _check(self, info: zipfile.ZipInfo, size: int) -> int:
        """Return where the bytes of an entry begin."""
        name = info.filename
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise WeightsError(
                f"entry={name[:100]!r} is compressed or encrypted, as torch.save never does; "
                "load and save the file with torch"
            )
        # The directory has no checksum of its own. Comparing it with the header in front of each
        # entry makes sure that no entry goes by the name of another.
        header = b""
        # A 64-bit offset from the file may be more than a seek accepts.
        if 0 <= info.header_offset < size:
            self.file.seek(info.header_offset)
            header = self.file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(_ZIP_START):
            raise WeightsError(f"entry={name[:100]!r} is not where the archive says it is")
        name_length, extra_length = struct.unpack("<HH", header[26:])
        encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
        if self.file.read(name_length) != info.orig_filename.encode(encoding):
            raise WeightsError(f"entry={name[:100]!r} has another name in its header")
        begin = info.header_offset + _LOCAL_HEADER_BYTES + name_length + extra_length
        if info.file_size != info.compress_size or begin + info.file_size > size:
            raise WeightsError(f"entry={name[:100]!r} is truncated")
        return begin

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a small entry."""
        length = self.entries[name][1]
        if length > limit:
            raise WeightsError(f"entry={name[:100]!r} has {length} bytes (limit: {limit})")
        array = np.empty(length, np.uint8)
        self.read_into(name, array)
        return array.tobytes()

    def read_into(self, name: str, array: np.ndarray) -> None:
        """Fill an array of exactly the entry's size, and verify its checksum."""
        begin, _, checksum = self.entries[name]
        self.file.seek(begin)
        _fill(self.file, array)
        if zlib.crc32(array.view(np.uint8).data) != checksum:
            raise WeightsError(
                f"entry={name[:100]!r} does not match its CRC-32; the file is damaged, get it again"
            )


def _load_zip(file: BinaryIO, size: int) -> StateDict:
    archive = _Archive(file, size)
    roots = [
        name[: -len("/data.pkl")]
        for name in archive.entries
        if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(roots) != 1:
        raise WeightsError("the zip archive has no data.pkl, so torch.save did not write it")
    root = roots[0]
    if f"{root}/constants.pkl" in archive.entries:
        raise WeightsError("the file is a TorchScript program; save the model's state_dict()")
    _check_version(archive, root)
    big_endian = _is_big_endian(archive, root)

    def read_storage(storage: StorageRecord) -> np.ndarray:
        entry = f"{root}/data/{storage.key}"
        stored = storage.type.stored
        if entry not in archive.entries:
            raise WeightsError(f"storage={storage.key[:100]!r} is not in the archive")
        if archive.entries[entry][1] != storage.total * stored.itemsize:
            raise WeightsError(
                f"storage={storage.key[:100]!r} has {archive.entries[entry][1]} bytes instead of "
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
    return build_arrays(select_state(content), read_storage)


def _check_version(archive: _Archive, root: str) -> None:
    entry = f"{root}/version"
    if entry not in archive.entries:
        raise WeightsError("the archive does not say its version; the file is damaged")
    text = archive.read(entry, 16).strip()
    if not text.isdigit() or int(text) not in _ZIP_VERSIONS:
        raise WeightsError(f"version={text!r} of the file is not known; save it with torch 2")


def _is_big_endian(archive: _Archive, root: str) -> bool:
    entry = f"{root}/byteorder"
    if entry not in archive.entries:
        # torch before 2.1 did not write the entry and ran on little-endian machines.
        return False
    order = archive.read(entry, 16)
    if order not in (b"little", b"big"):
        raise WeightsError(f"byteorder={order!r} must be b'little' or b'big'; the file is damaged")
    return order == b"big"


# Legacy format


def _load_legacy(file: BinaryIO, size: int) -> StateDict:
    file.seek(0)
    # Five pickles: all but the object are tiny.
    head = file.read(min(size, MAX_PICKLE_BYTES + (MAX_PICKLE_BYTES >> 1)))
    # The magic number is the only integer of ten bytes.
    magic, position = read_pickle(head, 0, allowed={}, max_int_bytes=10)
    if magic != LEGACY_MAGIC:
        raise WeightsError("the file is a pickle, but torch.save did not write it")
    protocol, position = read_pickle(head, position, allowed={})
    if type(protocol) is not int or protocol != LEGACY_PROTOCOL:
        raise WeightsError(f"protocol={protocol!r} is not {LEGACY_PROTOCOL}; the file is damaged")
    system, position = read_pickle(head, position, allowed={})
    if not isinstance(system, dict) or system.get("protocol_version") != LEGACY_PROTOCOL:
        raise WeightsError("the system information in the file is damaged")

    storages: dict[str, StorageRecord] = {}

    def remember(identity: object) -> StorageRecord:
        storage = storage_from_id(identity, legacy=True)
        known = storages.setdefault(storage.key, storage)
        if (known.type, known.total) != (storage.type, storage.total):
            raise WeightsError(f"storage={storage.key[:100]!r} is described in two ways")
        return storage

    content, position = read_pickle(
        head, position, allowed=ALLOWED_GLOBALS, persistent_load=remember
    )
    keys, position = read_pickle(head, position, allowed={})
    begins = _locate_legacy_storages(file, size, position, keys, storages)

    def read_storage(storage: StorageRecord) -> np.ndarray:
        stored = storage.type.stored
        file.seek(begins[storage.key])
        array = np.empty(storage.total, stored)
        _fill(file, array)
        # The format is little-endian on every machine.
        return array.view(stored.newbyteorder("<")).astype(stored, copy=False)

    return build_arrays(select_state(content), read_storage)


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
                f"storage={key[:100]!r} does not hold the {total} elements of its tensors; "
                "the file is truncated or damaged"
            )
        begins[key] = position + 8
        position += 8 + total * storages[key].type.stored.itemsize
        if position > size:
            raise WeightsError(f"storage={key[:100]!r} is truncated")
    if position != size:
        raise WeightsError(f"the file has {size - position} bytes too many; it is damaged")
    return begins


def is_torch_suffix(path: str | os.PathLike[str]) -> bool:
    """Whether a file name ends like a torch file (``.pth``, ``.pt``, ``.chkpnt``)."""
    return Path(path).suffix.lower() in (".pth", ".pt", ".chkpnt")
