"""Contents that the pickle inside a torch file may have: storages, tensors, and nothing that acts.

Tensors are first read as descriptions (`TensorRecord`), each checked when it is made. Numbers are
read from the file only for those that belong to the state dict, so that the optimiser state in a
training checkpoint costs nothing.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import WeightsError, shortened
from ._pickle import Constructor, Ignored

# More dimensions than any layer has; NumPy itself stops at 32 or 64.
MAX_DIMENSIONS = 16
# Tensors may share a storage (tied weights, slices), so that a file can describe more numbers than
# it holds. This bounds how many more.
MAX_SHARED_BYTES = 64 << 20
# torch names tensors by the path of modules to them.
MAX_NAME_LENGTH = 500
_MAX_SIZE = 1 << 40


@dataclass(frozen=True)
class StorageType:
    """Element type of a storage: how it lies in the file and how it is returned."""

    name: str
    stored: np.dtype
    bfloat16: bool = False

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """Turn stored elements into numbers; bfloat16 becomes float32, without loss."""
        if self.bfloat16:
            return widen_bfloat16(raw)
        if self.name == "BoolStorage":
            return raw != 0
        return raw


def widen_bfloat16(raw: np.ndarray) -> np.ndarray:
    """Turn bfloat16, stored as uint16, into float32 without loss."""
    # bfloat16 is the upper half of a float32.
    wide = raw.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
}
STORAGE_TYPES = {
    name: StorageType(name, np.dtype(code), bfloat16=name == "BFloat16Storage")
    for name, code in _DTYPES.items()
}
# How the writer names a NumPy dtype; bfloat16 has none.
STORAGE_NAMES = {
    np.dtype(code): name
    for name, code in _DTYPES.items()
    if name not in ("BFloat16Storage", "BoolStorage")
} | {np.dtype(bool): "BoolStorage"}


@dataclass(frozen=True)
class StorageRecord:
    """A part of a storage of `total` elements, called `key` in the file."""

    type: StorageType
    key: str
    total: int
    start: int
    length: int


@dataclass(frozen=True)
class TensorRecord:
    """A strided view of a storage; every index is known to lie inside it."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_whole_storage(self) -> bool:
        """Whether the tensor is the storage, reshaped."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return self.offset == 0 and self.size == self.storage.total


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def storage_from_id(identity: object, *, legacy: bool) -> StorageRecord:
    """Check a persistent id and turn it into a storage.

    Parameters
    ----------
    identity : object
        ``("storage", type, key, location, total)``, in the legacy format with a sixth field: None
        or ``(key, offset, length)`` for a part of the storage. The location (the device that the
        tensor was on) does not matter here.
    legacy : bool
        Which of the two forms to expect.

    Raises
    ------
    WeightsError
        If the id has any other form.
    """
    if isinstance(identity, tuple) and identity[:1] == ("module",):
        raise WeightsError("the file holds a whole pickled module; save its state_dict() instead")
    if (
        not isinstance(identity, tuple)
        or len(identity) != (6 if legacy else 5)
        or identity[0] != "storage"
        or not isinstance(identity[1], StorageType)
        or not isinstance(identity[2], str)
        or not isinstance(identity[3], str)
        or not _is_count(identity[4])
    ):
        raise WeightsError("the pickle holds a malformed reference to a storage; file is damaged")
    _, kind, key, _, total = identity[:5]
    start, length = 0, total
    view = identity[5] if legacy else None
    if view is not None:
        if not (
            isinstance(view, tuple)
            and len(view) == 3
            and all(map(_is_count, view[1:]))
            and view[1] + view[2] <= total
        ):
            raise WeightsError(
                f"storage={shortened(key)} has a malformed view; the file is damaged"
            )
        start, length = view[1], view[2]
    return StorageRecord(kind, key, total, start, length)


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *further: object
) -> TensorRecord:
    """Check ``torch._utils._rebuild_tensor[_v2]``; two of the further fields concern autograd."""
    if not isinstance(storage, StorageRecord):
        raise WeightsError("a tensor has no storage; the file is damaged")
    # Then there may be a dict of marks: a view of which all numbers are negated or conjugated.
    if len(further) > 2 and further[2]:
        raise _wrong_tensor(
            storage,
            f"is a view marked as {shortened(further[2])}; call .resolve_neg() and .resolve_conj() "
            "before saving it",
        )
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise _wrong_tensor(storage, "has no shape or strides; the file is damaged")
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise _wrong_tensor(
            storage, f"has {len(shape)} sizes and {len(strides)} strides; the file is damaged"
        )
    if not (_is_count(offset) and all(map(_is_count, shape)) and all(map(_is_count, strides))):
        raise _wrong_tensor(storage, "has a size, stride or offset that is no count")
    assert isinstance(offset, int)
    # Python integers do not overflow, so these comparisons hold for any number in the file.
    if math.prod(max(size, 1) for size in shape) > _MAX_SIZE:
        raise _wrong_tensor(
            storage, f"has an impossible shape={shortened(shape)}; the file is damaged"
        )
    if 0 in shape:
        return TensorRecord(storage, 0, shape, (0,) * len(shape))
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= storage.length:
        raise _wrong_tensor(
            storage,
            f"with shape={shortened(shape)}, strides={shortened(strides)}, offset={offset} reaches "
            f"beyond the {storage.length} elements of the storage; the file is damaged",
        )
    record = TensorRecord(storage, offset, shape, strides)
    if record.size > storage.length:
        raise _wrong_tensor(
            storage,
            f"with shape={shortened(shape)} repeats elements of a storage of {storage.length}; "
            "call .contiguous() on expanded tensors before saving them",
        )
    return record


def _wrong_tensor(storage: StorageRecord, problem: str) -> WeightsError:
    return WeightsError(f"a tensor of storage={shortened(storage.key)} {problem}")


def _rebuild_parameter(data: object, *_: object) -> TensorRecord:
    """Unwrap a parameter; whether it wants a gradient is of no interest here."""
    if not isinstance(data, TensorRecord):
        raise WeightsError("a parameter has no tensor; the file is damaged")
    return data


def _ordered_dict(*arguments: object) -> OrderedDict[object, object]:
    # Python 3 writes an empty one and sets its items afterwards.
    if arguments:
        raise WeightsError(
            "the pickle makes an OrderedDict from arguments, as Python 2 did; "
            "load and save the file once with a current version of torch"
        )
    return OrderedDict()


def _size(*arguments: object) -> tuple[int, ...]:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple):
        raise WeightsError("a torch.Size is malformed; the file is damaged")
    return arguments[0]


def _constructor(name: str, build: Callable[..., object], minimum: int) -> Constructor:
    def checked(*arguments: object) -> object:
        if len(arguments) < minimum:
            raise WeightsError(f"{name} has {len(arguments)} arguments; the file is damaged")
        return build(*arguments)

    return Constructor(name, checked)


def _ignored_value(name: str) -> Constructor:
    def make(*_: object) -> Ignored:
        return Ignored(name)

    return Constructor(name, make)


_PATHS = "PosixPath WindowsPath PurePosixPath PureWindowsPath"
# What checkpoints hold beside weights, and no network needs: settings, histories, scores. No
# such value is made; something that stands for it is, and is left out with what it belongs to.
_IGNORED = {
    "torch": "device float16 float32 float64 bfloat16 bool uint8 int8 int16 int32 int64",
    "collections": "Counter",
    "builtins": "set",
    "__builtin__": "set",
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    # NumPy's numbers and arrays, such as the mean of losses.
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "_codecs": "encode",
}
ALLOWED_GLOBALS: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): Constructor("collections.OrderedDict", _ordered_dict),
    ("torch", "Size"): Constructor("torch.Size", _size),
    ("torch._utils", "_rebuild_tensor"): _constructor("_rebuild_tensor", _rebuild_tensor, 4),
    ("torch._utils", "_rebuild_tensor_v2"): _constructor("_rebuild_tensor_v2", _rebuild_tensor, 6),
    ("torch._utils", "_rebuild_parameter"): _constructor(
        "_rebuild_parameter", _rebuild_parameter, 3
    ),
    **{
        (module, name): _ignored_value(f"{module}.{name}")
        for module, names in _IGNORED.items()
        for name in names.split()
    },
    **{("torch", name): kind for name, kind in STORAGE_TYPES.items()},
    # Very old files name the class of the device that the tensor was on.
    **{("torch.cuda", name): kind for name, kind in STORAGE_TYPES.items()},
}


def build_arrays(
    state: dict[str, TensorRecord], read_storage: Callable[[StorageRecord], np.ndarray]
) -> dict[str, np.ndarray]:
    """Read the numbers of every tensor.

    Parameters
    ----------
    state : dict of str to TensorRecord
        The tensors.
    read_storage : callable
        Returns a fresh array [shape=(total,)] of the stored elements, in native byte order.

    Returns
    -------
    dict of str to ndarray
        C-contiguous, writable arrays that share no memory.
    """
    check_sharing(state)
    # A storage is read when the first of its tensors is made, and let go after the last.
    nb_left = Counter(record.storage.key for record in state.values())
    storages: dict[str, np.ndarray] = {}
    given_away: set[str] = set()
    arrays: dict[str, np.ndarray] = {}
    for name, record in state.items():
        key = record.storage.key
        if key not in storages:
            storages[key] = record.storage.type.decode(read_storage(record.storage))
        if record.is_whole_storage and key not in given_away:
            # The common case: no second copy of the numbers.
            given_away.add(key)
            arrays[name] = storages[key].reshape(record.shape)
        else:
            arrays[name] = _copy(record, storages[key])
        nb_left[key] -= 1
        if not nb_left[key]:
            del storages[key]
    return arrays


def _copy(record: TensorRecord, base: np.ndarray) -> np.ndarray:
    """Return the elements of a tensor from those of its storage."""
    step = base.itemsize
    view: np.ndarray = np.ndarray(
        record.shape,
        base.dtype,
        # The constructor checks the bounds once more.
        buffer=base.data if base.size else b"",
        offset=(record.storage.start + record.offset) * step if record.size else 0,
        strides=[stride * step for stride in record.strides],
    )
    return view.copy(order="C")


def check_sharing(state: dict[str, TensorRecord]) -> None:
    """Refuse a file in which storages disagree, or whose tensors are far larger than the file."""
    kinds: dict[str, tuple[StorageType, int]] = {}
    nb_bytes = 0
    for record in state.values():
        storage = record.storage
        kind = (storage.type, storage.total)
        if kinds.setdefault(storage.key, kind) != kind:
            raise WeightsError(
                f"storage={shortened(storage.key)} is described in two ways; the file is damaged"
            )
        nb_bytes += record.size * storage.type.stored.itemsize
    stored_bytes = sum(kind.stored.itemsize * total for kind, total in kinds.values())
    if nb_bytes > stored_bytes + MAX_SHARED_BYTES:
        raise WeightsError(
            f"the tensors share their storages so often that {nb_bytes} bytes would be made from "
            f"{stored_bytes} (limit: {MAX_SHARED_BYTES} more); save copies of them, with .clone()"
        )
