# Calls that other threads make, and waiting for them.
#
# Python runs the handler of a signal between any two steps of the main thread's bytecode, and what
# the handler raises (KeyboardInterrupt, mostly) leaves whatever was halfway done there: a condition
# half waited for, a thread that nobody knows. There is no bytecode here. Handlers run in one place
# only, inside `_wait` while it waits for a call, and what they raise there is let out when
# everything has been put in order. That is why this is compiled; it is not for speed.
#
# The same holds for what must be given back, which is in guards.pxi.

import atexit
import os
import sys
from _thread import start_new_thread
from collections import deque
from queue import SimpleQueue
from threading import Thread, get_ident, main_thread
from time import sleep
from weakref import ref

from umx_np.errors import UmxError

from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK,
    PY_LOCK_ACQUIRED,
    PY_LOCK_INTR,
    PyLockStatus,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)

cdef extern from *:
    # Of the stable ABI, Cython adds a line to a traceback by running a piece of Python, in which the
    # handler of a signal could run; what it raised would be lost. The lines of this file are left out.
    """
    #ifdef Py_LIMITED_API
    #define PyEval_EvalCode(code, globals, locals) ((PyObject *)NULL)
    #endif
    """

cdef extern from "pythread.h":
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long, int) nogil


# Microseconds after which a wait looks up: some systems do not wake it for a signal, and one that
# comes just before it begins wakes it nowhere.
cdef long long _SLICE = 50_000
# Slices that are waited for calls under way when the program is left.
cdef int _PATIENCE = 100

# Threads that make calls, and the queues that they get them from.
cdef dict _workers = {}
# What is not closed, to be closed when the program is left.
cdef dict _open = {}
# Threads that ended lately. Python has weak references to threads with callbacks, and an interrupt
# in a callback is lost. Errors know their threads, too; so threads are forgotten here when errors
# are, and in another thread than the main one.
cdef object _ended = deque(maxlen=256)
# Counts the forks that led to this process: what began before one has no threads here.
cdef int _generation = 0
# The thread in which handlers run.
cdef object _main = main_thread().ident


def after_fork():
    """Forget all threads, of which the child of a fork has none."""
    global _generation, _main
    _generation += 1
    _main = get_ident()
    _workers.clear()
    _open.clear()


def is_worker_of(queue):
    """Whether this thread is one that works on a queue."""
    return _workers.get(get_ident()) is queue


cdef class Call:
    """One call of a function, and what came of it."""

    cdef PyThread_type_lock _over
    cdef int _born
    cdef object _function, _item, _result, _error

    def __cinit__(self, function, item):
        self._over = PyThread_allocate_lock()
        if self._over == NULL:
            raise MemoryError("no lock can be made")
        PyThread_acquire_lock(self._over, NOWAIT_LOCK)
        self._born = _generation
        self._function, self._item = function, item

    def __dealloc__(self):
        if self._over != NULL:
            PyThread_free_lock(self._over)

    def make(self):
        """Make the call and tell who waits for it."""
        try:
            self._result = self._function(self._item)
        except BaseException as error:
            self._error = error
        self._end()

    cdef int _cancel(self) except -1:
        self._error = UmxError("what was asked for was closed before it was begun")
        return self._end()

    cdef int _end(self) except -1:
        # Whoever goes on may want the memory.
        self._function = self._item = None
        PyThread_release_lock(self._over)
        return 0

    cdef bint _wait(self, bint handling, int slices=-1) except -1:
        """Wait until the call is over and tell whether it is.

        Unless signals are handled meanwhile, their handlers run after the caller has returned.
        """
        cdef PyLockStatus status
        if self._born != _generation:
            raise UmxError("what was begun before a fork is not there in the child")
        if not PyThread_acquire_lock(self._over, NOWAIT_LOCK):
            while True:
                with nogil:
                    status = PyThread_acquire_lock_timed(self._over, _SLICE, handling)
                if status == PY_LOCK_ACQUIRED:
                    break
                if handling:
                    PyErr_CheckSignals()
                # Other threads make no step from now on.
                if sys.is_finalizing() or slices == 0:
                    return False
                slices -= slices > 0 and status != PY_LOCK_INTR
        PyThread_release_lock(self._over)
        return True

    cdef object _outcome(self, bint handling):
        if not self._wait(handling):
            raise UmxError("no thread runs any more, because the program is being left")
        if self._error is not None:
            raise self._error
        return self._result


def work(queue):
    """Make the calls of each list that comes from a queue, until None comes."""
    ident = get_ident()
    _workers[ident] = queue
    try:
        while (todo := queue.get()) is not None:
            _work_off(todo, False)
            todo = None
    finally:
        _workers.pop(ident, None)


def start_worker(queue, name):
    """Start a thread that works on a queue; not to be called in the main thread.

    It is a daemon: the program ends while it waits for more. What ends before the program does, in
    whichever thread, is waited for by whoever asked for it.
    """
    thread = Thread(target=work, args=(queue,), name=name, daemon=True)
    thread.start()
    return thread


cdef int _work_off(todo, bint cancel) except -1:
    """Make the calls of a list, or let none of them begin.

    Who takes one from the list, a thread or this, has it alone.
    """
    cdef Call call
    while True:
        try:
            call = todo.popleft()
        except IndexError:
            return 0
        if cancel:
            call._cancel()
        else:
            call.make()


include "guards.pxi"


def run_all(queue, int nb_workers, function, list items):
    """``[function(item) for item in items]`` by some of the threads that `work` on a queue.

    When this returns or raises, none of the calls is under way.
    """
    cdef Call call
    cdef list calls = [Call(function, item) for item in items]
    todo = deque(calls)
    try:
        for _ in range(nb_workers):
            queue.put(todo)
        results = []
        for call in calls:
            results.append(call._outcome(True))
        return results
    finally:
        _work_off(todo, True)
        for call in calls:
            call._wait(False)


cdef class Stop:
    """Tells those at work whether nobody wants the results any more.

    Attributes
    ----------
    asked : bool
    """

    cdef public bint asked


cdef class _Ahead:
    """All of `Ahead` but its end."""

    cdef Stop _stop
    cdef object _function, _items, _on_close
    cdef Py_ssize_t _ahead
    # Calls that no thread has taken, and those whose results were not asked for.
    cdef object _todo, _pending
    cdef object _queue
    cdef list _threads
    cdef int _born
    # One of those who close has the token, and makes the last call.
    cdef Call _last
    cdef object _token
    cdef object __weakref__

    def __init__(
        self,
        int threads,
        str name,
        function,
        items,
        Py_ssize_t ahead,
        on_close=None,
        Stop stop=None,
    ):
        self._stop = Stop() if stop is None else stop
        self._born = _generation
        self._function, self._items, self._ahead = function, iter(items), ahead
        self._on_close = on_close
        self._todo, self._pending, self._queue = deque(), deque(), SimpleQueue()
        self._threads, self._last, self._token = [], Call(_end, None), deque((True,))
        _open[id(self)] = ref(self)
        uninterrupted(_begin, self._threads, self._queue, threads, name)

    def __iter__(self):
        return self

    def __next__(self):
        cdef Call call
        if self._stop.asked:
            raise StopIteration
        try:
            while len(self._pending) < self._ahead:
                try:
                    item = next(self._items)
                except StopIteration:
                    break
                call = Call(self._function, item)
                self._pending.append(call)
                self._todo.append(call)
                self._queue.put(self._todo)
            if self._pending:
                # It stays there meanwhile, for who closes this waits for what is there.
                result = (<Call>self._pending[0])._outcome(True)
                try:
                    self._pending.popleft()
                except IndexError:
                    pass  # another thread has closed this
                return result
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def close(self):
        """Let no further call begin, and wait for those under way and the end of the threads."""
        self._close(-1)

    cdef int _close(self, int slices) except -1:
        _open.pop(id(self), None)
        if self._stop is not None:
            self._stop.asked = True
        if self._last is None or self._born != _generation or sys.is_finalizing():
            return 0
        _work_off(self._todo, True)
        try:
            self._token.pop()
        except IndexError:
            pass  # somebody else is closing, or has closed
        else:
            self._last._item = (self._pending, self._threads, self._queue, self._on_close)
            try:
                start_new_thread(self._last.make, ())
            except RuntimeError:
                self._last.make()  # no thread is to be had
        # A thread of ours that drops the last reference would wait for itself.
        if not is_worker_of(self._queue):
            if self._last._wait(False, slices) and self._last._error is not None:
                raise self._last._error
        return 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Ahead(_Ahead):
    """Results of calls that threads of its own make ahead of time, in the order of the items.

    Parameters
    ----------
    threads : int
        How many.
    name : str
        Of the threads, before a number.
    function : callable
        What is called with each item.
    items : iterable
        Asked for the next item when the next result is asked for.
    ahead : int
        Calls that are waiting, under way or waited for.
    on_close : callable or None
        Called once, without arguments, when no thread is at work any more. It runs in another
        thread and must not close this.
    stop : Stop or None
        Is asked for as soon as this is closed; functions that look at it may end early.
    """

    __slots__ = ()

    def __del__(self):
        self.close()


def _begin(threads, queue, count, name):
    """Start the threads of `Ahead`: in another thread than the main one."""
    while len(threads) < count:
        thread = start_worker(queue, f"{name}_{len(threads)}")
        threads.append(thread)


def _end(last):
    """End the threads of `Ahead`: in another thread than the main one."""
    cdef list calls
    pending, threads, queue, on_close = last
    for _ in threads:
        queue.put(None)
    calls = list(pending)
    for call in calls:
        (<Call>call)._wait(False)
    for thread in threads:
        # `join` would leave an object for this thread behind, which Python has not started itself.
        while thread.is_alive():
            sleep(1e-4)
    _ended.extend(threads)
    call = thread = None
    calls.clear()
    pending.clear()
    threads.clear()
    if on_close is not None:
        on_close()


def close_all():
    """Close what is open when the program is left, but do not wait for ever."""
    for reference in list(_open.values()):
        left_open = reference()
        if isinstance(left_open, _Ahead):
            (<_Ahead>left_open)._close(_PATIENCE)
        elif left_open is not None:
            left_open()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
atexit.register(close_all)
