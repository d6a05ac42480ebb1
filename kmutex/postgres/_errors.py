"""What can go wrong with a server, beside what can go wrong with any keyed mutex."""

from __future__ import annotations

from kmutex._errors import KMutexError


class LockLostError(KMutexError, ConnectionError):
    """The session on the server is over, and with it all that it held or waited for. Others may hold it by now."""


class UnusableServerError(KMutexError):
    """The server answers, and can't keep a queue. One line: why, and what to do. Nothing was asked of it."""
