"""The errors of a server, in addition to those of any keyed mutex."""

from __future__ import annotations

from kmutex._errors import KMutexError


class LockLostError(KMutexError, ConnectionError):
    """The session on the server has ended, with all its locks and waits. Others may hold the keys by now."""


class UnusableServerError(KMutexError):
    """The server answers but can't keep a queue. The message says why, and what to do. Nothing was requested."""
