"""What can go wrong with a lock, beside the ``TimeoutError`` and ``ValueError`` of the standard library."""


class KMutexError(Exception):
    """Any error that is this library's own."""


class UnheldKeyError(KMutexError, RuntimeError):
    """A release of a key that has no holder, or by a lease that no longer holds it (KM-UNHELD, KM-TOKEN)."""


class WrongLoopError(KMutexError, RuntimeError):
    """An async locker was used outside the event loop it belongs to just now (KM-LOOP)."""


class LeaseReusedError(KMutexError, RuntimeError):
    """A lease was entered a second time; ask the locker for a new one (KM-TOKEN)."""


def not_copied(locker: object) -> TypeError:
    """The error of whoever would copy or pickle a locker, or a lease: the copy would lock nothing out that it does."""
    return TypeError(f"{type(locker).__name__} can't be copied or pickled, for a copy would be another lock; share it")
