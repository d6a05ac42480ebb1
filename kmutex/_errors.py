"""The errors of a lock, in addition to ``TimeoutError`` and ``ValueError`` of the standard library."""


class KMutexError(Exception):
    """The base class of this library's errors."""


class UnheldKeyError(KMutexError, RuntimeError):
    """A key was released that nobody holds, or by a lease whose grant has ended (KM-UNHELD, KM-TOKEN)."""


class WrongLoopError(KMutexError, RuntimeError):
    """An async locker was used outside the event loop that it belongs to (KM-LOOP)."""


class LeaseReusedError(KMutexError, RuntimeError):
    """A lease was entered a second time; ask the locker for a new one (KM-TOKEN)."""


def not_copied(locker: object) -> TypeError:
    """The error for a try to copy or pickle a locker or a lease: the copy would not exclude the original."""
    return TypeError(f"{type(locker).__name__} can't be copied or pickled, for a copy would be another lock; share it")
