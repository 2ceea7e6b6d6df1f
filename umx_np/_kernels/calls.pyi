from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

def is_worker_of(queue: SimpleQueue[Any]) -> bool: ...
def start_worker(queue: SimpleQueue[Any], name: str) -> Thread: ...
def uninterrupted(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **_: Arguments.kwargs
) -> Result: ...
def cancellable(
    function: Callable[[], Result], cancel: Callable[[], object], seconds: float
) -> Result: ...
def close_lost(file: Any) -> None: ...
def run_all(
    queue: SimpleQueue[Any], nb_workers: int, function: Callable[[Item], Result], items: list[Item]
) -> list[Result]: ...

class Guard:
    def __init__(
        self,
        function: Callable[Arguments, object],
        *arguments: Arguments.args,
        **_: Arguments.kwargs,
    ) -> None: ...
    def __call__(self) -> None: ...

class Loan:
    __array_interface__: dict[str, Any]
    def __init__(self, memory: np.ndarray, shelf: list[np.ndarray]) -> None: ...

class Stop:
    asked: bool

class Ahead(Iterator[Result], Generic[Result]):
    def __init__(
        self,
        threads: int,
        name: str,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        ahead: int,
        on_close: Callable[[], None] | None = None,
        stop: Stop | None = None,
    ) -> None: ...
    def __next__(self) -> Result: ...
    def close(self) -> None: ...
    def __enter__(self) -> Ahead[Result]: ...
    def __exit__(self, *exception: object) -> None: ...
