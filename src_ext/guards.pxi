# What no handler of a signal interrupts, and what gives back what was got so: a part of calls.pyx.
#
# A file that was opened and not yet kept, a process that was started, are lost to a handler. So they
# are got by `uninterrupted`, in another thread, and kept by a `Guard` that gives them back when it is
# lost: a finaliser in Python's bytecode could be interrupted as well, and Python drops what is raised
# there.

def _apply(both):
    function, arguments = both
    return function(*arguments)


def uninterrupted(function, *arguments):
    """``function(*arguments)`` where no handler of a signal interrupts it.

    Python runs handlers in the main thread only, so that is in another one.
    """
    cdef Call call
    if get_ident() != _main or sys.is_finalizing():
        return function(*arguments)
    call = Call(_apply, (function, arguments))
    try:
        start_new_thread(call.make, ())
    except RuntimeError:
        call.make()  # no thread is to be had
    return call._outcome(False)


def cancellable(function, cancel, double seconds):
    """``function()``, which may take long, where no handler of a signal interrupts it.

    Handlers run meanwhile. When one raises, or the time is over, ``cancel()`` is called, which must
    make the function end: it has ended when this returns or raises.
    """
    cdef Call call = Call(_apply, (function, ()))
    start_new_thread(call.make, ())
    try:
        if not call._wait(True, <int>(seconds * 1e6 / _SLICE)):
            uninterrupted(cancel)
    except BaseException:
        uninterrupted(cancel)
        raise
    finally:
        call._wait(False)
    return call._outcome(False)


# `__del__` belongs to classes of Python, whose finalizers the stable ABI knows; those of extension
# types it does not.

cdef class _Guard:
    """All of `Guard` but its end."""

    cdef object _function, _arguments
    cdef int _born
    cdef object __weakref__

    def __init__(self, function, *arguments):
        self._born = _generation
        self._function, self._arguments = function, arguments
        _open[id(self)] = ref(self)

    def __call__(self):
        function, self._function = self._function, None
        arguments, self._arguments = self._arguments, None
        if function is not None:
            _open.pop(id(self), None)
            if self._born == _generation:
                uninterrupted(function, *arguments)


class Guard(_Guard):
    """Makes a call once: when it is called itself, or nobody holds it any more.

    No handler of a signal interrupts it. The child of a fork does not make it.

    Parameters
    ----------
    function : callable
        Must not know who holds this.
    *arguments
        What it is called with.
    """

    __slots__ = ()

    def __del__(self):
        self()


cdef class _Loan:
    """All of `Loan` but its end."""

    cdef readonly object __array_interface__
    cdef object _memory
    cdef list _shelf

    def __init__(self, memory, list shelf):
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._shelf = memory, shelf


class Loan(_Loan):
    """Owner of an array that is out of house: its memory returns when nobody holds it any more.

    Parameters
    ----------
    memory : ndarray
        ``numpy.asarray`` of this is it.
    shelf : list
        Where it returns to.
    """

    __slots__ = ()

    def __del__(self):
        (<_Loan>self)._shelf.append((<_Loan>self)._memory)


def close_lost(file):
    """Close a `soundfile.SoundFile` that nobody holds any more: its ``__del__``."""
    if file._file is not None:
        uninterrupted(file.close)
