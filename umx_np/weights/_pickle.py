"""A pickle reader that can run nothing.

A pickle is a program for a small stack machine, and two of its instructions fetch and call any
function of the interpreter that reads it. This machine has no such instructions: it never imports,
and the only names it knows are those in the table it is given, which stand for functions of this
package. Every other name is refused with its name in the message, and so is every instruction that
a state dict does not need. The standard library's unpickler is not involved.

Resources are bounded as well: by the size of the pickle, the number of instructions, the width of
integers, and by allowing only strings and integers as dictionary keys (hashing a deeply nested
tuple would overflow the C stack). Nothing here recurses, however deep the data is nested.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsError, shortened

# The pickle of a state dict is about 7 kB, of a checkpoint with its optimiser 30 kB.
MAX_PICKLE_BYTES = 8 << 20
MAX_INSTRUCTIONS = 300_000
# A call takes as long as so many other instructions, and what it makes is as large.
_WORK_OF_A_CALL = 12
# torch writes sizes and strides of at most 64 bits.
MAX_INT_BYTES = 8
_MAX_NAME_BYTES = 256
_HIGHEST_PROTOCOL = 5


@dataclass(frozen=True)
class Constructor:
    """A function of this package that stands for a global name in a pickle."""

    name: str
    build: Callable[..., object]


@dataclass(frozen=True)
class Ignored:
    """Something that stands for a value which no weights need; the value itself is not made."""

    name: str


Globals = Mapping[tuple[str, str], object]
PersistentLoad = Callable[[object], object]


def read_pickle(
    data: bytes,
    start: int = 0,
    *,
    allowed: Globals,
    persistent_load: PersistentLoad | None = None,
    max_int_bytes: int = MAX_INT_BYTES,
    max_work: int | None = None,
) -> tuple[Any, int]:
    """Read one pickle without running anything.

    Parameters
    ----------
    data : bytes
        Holds the pickle; bytes after it are left alone.
    start : int
        Where the pickle begins.
    allowed : mapping of (module, name) to object
        What each known global stands for. Only a `Constructor` can be called.
    persistent_load : callable, optional
        Turns a persistent id into an object. Without it persistent ids are refused.
    max_int_bytes : int
        Widest integer, in bytes.
    max_work : int, optional
        Most instructions; `MAX_INSTRUCTIONS` if not given. A call counts for several.

    Returns
    -------
    object
        Made of None, bool, int, float, str, tuple, list, dict, OrderedDict and whatever `allowed`
        and `persistent_load` return. It may contain itself.
    int
        Position behind the pickle.

    Raises
    ------
    WeightsError
        For a name that is not in `allowed`, an instruction that is not needed for weights, a
        truncated or malformed pickle, or one that exceeds a resource limit.
    """
    limit = MAX_INSTRUCTIONS if max_work is None else max_work
    return _Machine(data, start, allowed, persistent_load, max_int_bytes, limit).run()


class _Machine:
    """State of one reading: position, stack, open marks and memo."""

    def __init__(
        self,
        data: bytes,
        start: int,
        allowed: Globals,
        persistent_load: PersistentLoad | None,
        max_int_bytes: int,
        max_work: int,
    ) -> None:
        self.data = data
        self.position = start
        self.end = min(len(data), start + MAX_PICKLE_BYTES)
        self.allowed = allowed
        self.persistent_load = persistent_load
        self.max_int_bytes = max_int_bytes
        self.max_work = max_work
        self.max_calls = max_work // _WORK_OF_A_CALL
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        if self.take(1) != b"\x80":
            raise self.error("does not begin with a protocol number")
        if not 2 <= (protocol := self.unsigned(1)) <= _HIGHEST_PROTOCOL:
            raise self.error(f"protocol={protocol} is not one that torch writes (2 to 5)")
        for _ in range(self.max_work):
            code = self.take(1)
            if code == b".":
                result = self.pop()
                if self.stack or self.marks:
                    raise self.error("ends with values left over")
                return result, self.position
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise self.error(f"instruction={_describe(code)} is not needed for weights")
            instruction(self)
        raise self.error(f"has more than {self.max_work} instructions")

    def error(self, what: str) -> WeightsError:
        return WeightsError(f"the pickle {what} (byte={self.position}); the file was not loaded")

    # Input

    def take(self, count: int) -> bytes:
        stop = self.position + count
        if stop > self.end:
            raise self.error(f"is truncated or longer than {MAX_PICKLE_BYTES} bytes")
        piece = self.data[self.position : stop]
        self.position = stop
        return piece

    def unsigned(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def text(self, count: int) -> str:
        try:
            return self.take(count).decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("holds a string that is not UTF-8") from None

    def line(self) -> str:
        stop = self.data.find(b"\n", self.position, min(self.end, self.position + _MAX_NAME_BYTES))
        if stop < 0:
            raise self.error("holds a name that does not end")
        name = self.text(stop - self.position)
        self.position += 1
        return name

    # Stack

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.error("takes a value from an empty stack")
        return self.stack.pop()

    def peek(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise self.error("refers to a mark that was not set")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    # Values

    def integer(self, count: int) -> None:
        if count > self.max_int_bytes:
            raise self.error(f"holds an integer of {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def pop_tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def remember(self, index: int) -> None:
        self.memo[index] = self.peek()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise self.error(f"refers to memo={index}, which was not set")
        self.push(self.memo[index])

    def append(self, values: list[Any]) -> None:
        target = self.peek()
        if type(target) is not list:
            raise self.error(f"appends to a {type(target).__name__}")
        target.extend(values)

    def set_items(self, items: list[Any]) -> None:
        target = self.peek()
        if type(target) not in (dict, OrderedDict):
            raise self.error(f"sets items of a {type(target).__name__}")
        if len(items) % 2:
            raise self.error("sets an item without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise self.error(f"uses a {type(key).__name__} as a dictionary key")
            target[key] = value

    def set_item(self) -> None:
        value = self.pop()
        key = self.pop()
        self.set_items([key, value])

    # Names and calls

    def find(self, module: str, name: str) -> None:
        try:
            self.push(self.allowed[module, name])
        except KeyError:
            raise self.refusal(module, name) from None

    def refusal(self, module: str, name: str) -> WeightsError:
        return self.error(
            f"asks for global={shortened(f'{module}.{name}')}, which weights do not need and which "
            "could run code; save only the state dict of the model"
        )

    def global_(self) -> None:
        module = self.line()
        self.find(module, self.line())

    def instance(self) -> None:
        module = self.line()
        raise self.refusal(module, self.line())

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(module, str) and isinstance(name, str)):
            raise self.error("names a global with something other than strings")
        self.find(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Constructor):
            raise self.error(f"calls a {type(function).__name__}")
        if not isinstance(arguments, tuple):
            raise self.error(f"calls {function.name} without a tuple of arguments")
        self.count_call()
        self.push(function.build(*_bounded(arguments, self)))

    def count_call(self) -> None:
        self.max_calls -= 1
        if self.max_calls < 0:
            raise self.error("makes too many tensors")

    def build(self) -> None:
        # Only `OrderedDict._metadata` (module versions, written by Module.state_dict) is known.
        # It is dropped: no attribute of any object is ever set.
        state, target = self.pop(), self.peek()
        if isinstance(target, Ignored):
            return
        if type(target) is not OrderedDict or type(state) is not dict or set(state) - {"_metadata"}:
            raise self.error(f"sets attributes of a {type(target).__name__}")

    def persistent(self) -> None:
        if self.persistent_load is None:
            raise self.error("refers to a storage where none is expected")
        self.count_call()
        self.push(self.persistent_load(self.pop()))

    def frame(self) -> None:
        # A frame announces how many bytes follow; it only helps readers that buffer.
        if self.position + self.unsigned(8) > self.end:
            raise self.error("is truncated within a frame")


def _bounded(arguments: tuple[object, ...], machine: _Machine) -> tuple[object, ...]:
    """No function in the table takes more than eight arguments."""
    if len(arguments) > 8:
        raise machine.error(f"calls a function with {len(arguments)} arguments")
    return arguments


def _describe(code: bytes) -> str:
    names = {
        b"P": "PERSID", b"o": "OBJ", b"\x81": "NEWOBJ", b"\x92": "NEWOBJ_EX", b"\x82": "EXT1",
        b"\x83": "EXT2", b"\x84": "EXT4", b"B": "BINBYTES", b"C": "SHORT_BINBYTES",
        b"\x96": "BYTEARRAY8", b"\x97": "NEXT_BUFFER", b"\x8f": "EMPTY_SET", b"\x91": "FROZENSET",
    }  # fmt: skip
    return names.get(code, repr(code))


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    # constants
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    # numbers
    b"J": lambda m: m.integer(4),
    b"K": lambda m: m.push(m.unsigned(1)),
    b"M": lambda m: m.push(m.unsigned(2)),
    b"\x8a": lambda m: m.integer(m.unsigned(1)),
    b"\x8b": lambda m: m.integer(m.unsigned(4)),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    # strings; U and T are the byte strings of Python 2
    b"X": lambda m: m.push(m.text(m.unsigned(4))),
    b"\x8c": lambda m: m.push(m.text(m.unsigned(1))),
    b"\x8d": lambda m: m.push(m.text(m.unsigned(8))),
    b"U": lambda m: m.push(m.text(m.unsigned(1))),
    b"T": lambda m: m.push(m.text(m.unsigned(4))),
    # containers
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.pop_tuple(1),
    b"\x86": lambda m: m.pop_tuple(2),
    b"\x87": lambda m: m.pop_tuple(3),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.pop_mark()),
    b"}": lambda m: m.push({}),
    b"s": lambda m: m.set_item(),
    b"u": lambda m: m.set_items(m.pop_mark()),
    # stack and memo
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": lambda m: (m.pop(), None)[1],
    b"1": lambda m: (m.pop_mark(), None)[1],
    b"2": lambda m: m.push(m.peek()),
    b"q": lambda m: m.remember(m.unsigned(1)),
    b"r": lambda m: m.remember(m.unsigned(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.recall(m.unsigned(1)),
    b"j": lambda m: m.recall(m.unsigned(4)),
    b"\x95": lambda m: m.frame(),
    # names and calls, all through the table
    b"c": lambda m: m.global_(),
    b"i": lambda m: m.instance(),
    b"\x93": lambda m: m.stack_global(),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
    b"Q": lambda m: m.persistent(),
}
