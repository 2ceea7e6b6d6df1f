"""Places of songs, stems and ledgers: folders and object stores, under one contract.

What exactly-once results need of a store is `create`: of several writers of one key one wins, and
no reader sees half of a value. Folders give it by hard links, object stores by conditional writes.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .._support.atomic import TemporaryFile
from ..errors import CatalogError

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Opened

# Of file systems without hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
# Folder of values that are being written.
_UNNAMED = ".unfinished"


@dataclass(frozen=True)
class Entry:
    """A value in a store: its key, its size in bytes, and when it was written, in seconds."""

    key: str
    size: int
    written: float


class Store(Protocol):
    """A folder or a prefix of an object store; keys are relative, with ``/``.

    Failures of the system are `OSError`; a value that is not there is no failure for `get` and
    `delete`.
    """

    url: str

    def get(self, key: str) -> bytes | None:
        """Read a value; None if there is none."""

    def put(self, key: str, value: bytes) -> None:
        """Write a value, replacing one that is there."""

    def create(self, key: str, value: bytes) -> bool:
        """Write a value unless there is one; return whether it was written."""

    def delete(self, key: str) -> None:
        """Remove a value, if it is there."""

    def delete_all(self, prefix: str) -> None:
        """Remove all values below a prefix."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """List what is below a prefix, in any order."""

    @contextmanager
    def reading(self, key: str, scratch: Path) -> Iterator[Path]:
        """Give the file of a value, or the folder of all below a prefix.

        Where the store has no files, they are made in `scratch` and removed again.
        """

    @contextmanager
    def writing(self, prefix: str, scratch: Path) -> Iterator[Path]:
        """Give a folder whose files are in the store below `prefix` when the block has ended."""


def open_store(url: str) -> Store:
    """Open a folder or a prefix of an object store.

    Parameters
    ----------
    url : str
        A folder, or an address such as ``s3://bucket/prefix`` or ``gs://bucket/prefix``. Keys and
        endpoints of object stores come from the usual environment variables (``AWS_ENDPOINT_URL``,
        ``AWS_ACCESS_KEY_ID``, ...).

    Returns
    -------
    Store

    Raises
    ------
    CatalogError
        If the address is not usable, or obstore (the extra ``cluster``) is not installed.
    """
    if "://" in url and not url.startswith("file://"):
        return ObjectStore(url)
    return FolderStore(Path(url.removeprefix("file://")).expanduser())


class FolderStore:
    """A folder, on a disk of this machine or one that several machines share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.url = str(self.folder)

    def get(self, key: str) -> bytes | None:
        try:
            return (self.folder / key).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, key: str, value: bytes) -> None:
        with self._written(value) as temporary:
            temporary.rename(self._made(key))

    def create(self, key: str, value: bytes) -> bool:
        path = self._made(key)
        with self._written(value) as temporary:
            # Nothing that depends on it may survive a failure of the power without it.
            os.fsync(temporary.descriptor)
            try:
                os.link(temporary.path, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise CatalogError(
                    f"{path.parent}: this file system has no hard links, by which results are "
                    "published once; put the plan on another disk or an object store"
                ) from error
        return True

    def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)

    def delete_all(self, prefix: str) -> None:
        shutil.rmtree(self.folder / prefix, ignore_errors=True)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        top = self.folder / prefix
        for folder, folders, names in os.walk(top, onerror=_raise_unless_missing):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # removed by another process meanwhile
                    status = path.stat()
                    yield Entry(
                        path.relative_to(self.folder).as_posix(), status.st_size, status.st_mtime
                    )

    @contextmanager
    def reading(self, key: str, scratch: Path) -> Iterator[Path]:
        yield self.folder / key

    @contextmanager
    def writing(self, prefix: str, scratch: Path) -> Iterator[Path]:
        folder = self.folder / prefix
        folder.mkdir(parents=True, exist_ok=True)
        yield folder

    @contextmanager
    def _written(self, value: bytes) -> Iterator[TemporaryFile]:
        """Write a value to a file that has no name yet, apart from folders with many files."""
        temporary = TemporaryFile(self._made(f"{_UNNAMED}/x").parent)
        try:
            with os.fdopen(temporary.descriptor, "wb", closefd=False) as file:
                file.write(value)
            yield temporary
        finally:
            temporary.discard()

    def _made(self, key: str) -> Path:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class ObjectStore:
    """A prefix of an object store, by obstore."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._store: Opened = _opened(self.url)

    def get(self, key: str) -> bytes | None:
        import obstore

        try:
            with _as_os_errors():
                return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            return None

    def put(self, key: str, value: bytes) -> None:
        self._put(key, value, "overwrite")

    def create(self, key: str, value: bytes) -> bool:
        try:
            self._put(key, value, "create")
        except FileExistsError:
            return False
        return True

    def delete(self, key: str) -> None:
        import obstore

        with suppress(FileNotFoundError), _as_os_errors():
            obstore.delete(self._store, key)

    def delete_all(self, prefix: str) -> None:
        import obstore

        keys = [entry.key for entry in self.list(prefix)]
        if keys:
            with suppress(FileNotFoundError), _as_os_errors():
                obstore.delete(self._store, keys)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        import obstore

        with _as_os_errors():
            for chunk in obstore.list(self._store, prefix or None):
                for found in chunk:
                    written = found["last_modified"].timestamp()
                    yield Entry(found["path"], found["size"], written)

    @contextmanager
    def reading(self, key: str, scratch: Path) -> Iterator[Path]:
        import obstore

        with tempfile.TemporaryDirectory(prefix="umx-np-", dir=scratch) as folder:
            top = Path(folder, key.rpartition("/")[2])
            keys = [entry.key for entry in self.list(key)] or [key]
            for each in keys:
                path = top / each.removeprefix(key).lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                with _as_os_errors(), path.open("wb") as file:
                    for chunk in obstore.get(self._store, each):
                        file.write(chunk)
            yield top

    @contextmanager
    def writing(self, prefix: str, scratch: Path) -> Iterator[Path]:
        import obstore

        with tempfile.TemporaryDirectory(prefix="umx-np-", dir=scratch) as name:
            folder = Path(name)
            yield folder
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                with _as_os_errors():
                    obstore.put(self._store, key, path)

    def _put(self, key: str, value: bytes, mode: Any) -> None:
        import obstore

        with _as_os_errors():
            obstore.put(self._store, key, value, mode=mode)


def _opened(url: str) -> Opened:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise CatalogError(
            f"{url}: object stores need the extra cluster: pip install 'umx-np[cluster]'"
        ) from error
    options: dict[str, Any] = {}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["client_options"] = {"allow_http": True}
    try:
        return from_url(url, **options)
    except (BaseError, ValueError) as error:
        raise CatalogError(f"{url} is no address of an object store: {error}") from error


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Let the errors of obstore be those of the system, which callers know how to meet."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError

    try:
        yield
    except AlreadyExistsError as error:
        raise FileExistsError(str(error)) from error
    except PermissionDeniedError as error:
        raise PermissionError(str(error)) from error
    except BaseError as error:
        if isinstance(error, OSError):
            raise
        raise OSError(str(error)) from error
