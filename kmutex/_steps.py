"""A log of each step of a lock table, for a mutex made with ``record=StepLog(file)``: specs/trace.md, "inside".

Any other mutex has a plain `LockTable` and does no extra step; tests/trace/test_steps.py counts them.

The lines of a step are written within the step, under the driver's guard, so their order is the order of the steps.
`refs` and `holder` are read from the table after the step; they are not derived from what the step should have done.

A line that can't be written never harms the lock: recording stops for good, the error is kept in `StepLog.error`, and
every call works as before. A log with a missing line in the middle could accuse a correct lock; a log that just ends
can't.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from json.encoder import encode_basestring_ascii

from kmutex._core import LockTable, Waker
from kmutex._entry import Ticket
from kmutex._errors import KMutexError, UnheldKeyError
from kmutex._protocol import Lines


class KeyTexts:
    """The text of each live key in a log: different keys have different texts, equal keys the same."""

    def __init__(self) -> None:
        self._of: dict[Hashable, str] = {}
        self._used: set[str] = set()

    def text(self, key: Hashable) -> str:
        """Return the text of ``key``, valid until `drop`. A str is its own text, unless it begins with "<"."""
        text = self._of.get(key)
        if text is None:
            plain = text = key if type(key) is str and not key.startswith("<") else f"<{type(key).__name__}> {key!r}"
            number = 1
            while text in self._used:  # Another key has the same repr.
                number += 1
                text = f"<{number}> {plain}"
            self._of[key] = text
            self._used.add(text)
        return text

    def drop(self, key: Hashable) -> None:
        """Forget ``key``, which is idle now."""
        text = self._of.pop(key, None)
        if text is not None:
            self._used.discard(text)


class StepLog:
    """The log of one mutex: ``KeyedMutex(record=StepLog(file))``, or an `AsyncKeyedMutex`."""

    def __init__(self, out: Lines) -> None:
        """Write the first line.

        Args:
            out: A text file, open for writing, or any object with ``write`` and ``flush``. Lines are written while the
                guard of the mutex is held, so a write should not block. Only `close` flushes it.
        """
        self.error: BaseException | None = None
        """The error that stopped the recording, else None."""
        self._out = out
        self._texts = KeyTexts()
        self._table: LockTable | None = None
        self._lines = self._strays = 0
        self._busy = self._closed = False
        out.write('{"trace": 1, "recorded": "inside"}\n')

    def close(self) -> None:
        """Write the last line, which claims that every call has returned and every key is unlocked.

        In a log without that line, the last calls count as unfinished. The file is flushed and stays open.

        Raises:
            BaseException: `error`, if one stopped the recording.
        """
        if self._begins():
            keys = 0 if self._table is None else len(self._table)
            self._lines += 1
            try:
                self._out.write(f'{{"event": "end", "keys": {keys}, "n": {self._lines}}}\n')
                self._out.flush()
            except Exception as error:
                self._stop(error)
            self._closed, self._busy = True, False
        if self.error is not None:
            raise self.error

    # -- for the table: each call is made under its guard ----------------------------------------------------------

    def _takes(self, table: LockTable) -> None:
        """Record the steps of this table.

        Raises:
            KMutexError: The log has another table.
        """
        if self._table is not None:
            raise KMutexError("this log has the steps of another mutex; each mutex needs a log of its own")
        self._table = table

    def _begins(self) -> bool:
        """Begin a step, which `_ends` ends; return False if recording has stopped."""
        # A signal handler or a __del__ may lock in the middle of a step of the same thread, or an interrupt may have
        # come between the last step and its lines. Either way lines are missing from here on.
        if self._busy:
            self._stop(KMutexError("interrupted between a step and its line"))
        if self.error is not None or self._closed:
            return False
        self._busy = True
        return True

    def _ends(self) -> None:
        self._busy = False

    def _stop(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def _stray(self) -> int:
        """Return a number for a call without a ticket."""
        self._strays += 1
        return -self._strays

    def _line(self, event: str, key: Hashable, call: int, holder: Ticket, refs: int, more: str = "") -> None:
        if self.error is not None:
            return
        try:
            text = encode_basestring_ascii(self._texts.text(key))
            self._lines += 1
            more += f', "holder": {holder}' if refs else ""
            self._out.write(
                f'{{"event": "{event}", "key": {text}, "call": {call}, "refs": {refs}{more}, '
                f'"at": {time.monotonic():.6f}, "n": {self._lines}}}\n'
            )
            if not refs:
                self._texts.drop(key)
        except Exception as error:
            self._stop(error)


class RecordedTable(LockTable):
    """A lock table that logs what another one does. The other one decides about grants."""

    __slots__ = ("_asked", "_last", "_log", "_loop", "_where", "inner")

    def __init__(self, inner: LockTable, log: StepLog, where: Callable[[], object] | None = None) -> None:
        """Wrap a table.

        Args:
            inner: The table that locks.
            log: Where the lines go.
            where: Returns the running event loop; None for threads, whose lines name no loop.
        """
        super().__init__()
        log._takes(inner)
        self.inner = inner
        self._entries = inner._entries  # Shared, so that the methods that only read need no override.
        self._log = log
        self._where = where
        self._last: object = None
        self._loop = 0
        self._asked = 0
        """How many keys the present request asks for at once; 0 for a request of one key."""

    def request(self, key: Hashable, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
        log, before = self._log, self._look(key)
        if not log._begins():
            return self.inner.request(key, ticket, make_waker)
        try:
            waker = self.inner.request(key, ticket, make_waker)
        except BaseException as error:
            self._broken_off(key, before, error)
            raise
        holder, refs = self._look(key)
        more = self._at_loop()
        log._line("request", key, ticket, holder, refs, f', "all": {self._asked}{more}' if self._asked else more)
        if waker is None:
            log._line("grant", key, ticket, holder, refs)
        log._ends()
        return waker

    def request_all(self, keys: Iterable[Hashable], ticket: Ticket, make_waker: Callable[[], Waker]) -> list[Waker]:
        several = tuple(keys)
        self._asked = len(several)
        try:
            return super().request_all(several, ticket, make_waker)
        finally:
            self._asked = 0

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        log, before = self._log, self._look(key)
        if not log._begins():
            return self.inner.release(key, ticket)
        more = ', "lease": true' if ticket is not None else ""
        try:
            waker = self.inner.release(key, ticket)
        except UnheldKeyError:
            holder, refs = self._look(key)
            call = ticket if ticket is not None and ticket > 0 else log._stray()
            log._line("unheld", key, call, holder, refs, more + self._at_loop())
            log._ends()
            raise
        except BaseException as error:
            self._broken_off(key, before, error)
            raise
        self._gone("release", key, ticket or before[0] or log._stray(), before, more)
        log._ends()
        return waker

    def cancel(self, key: Hashable, ticket: Ticket, why: str = "timeout") -> bool:
        log, before = self._log, self._look(key)
        if not log._begins():
            return self.inner.cancel(key, ticket, why)
        try:
            left = self.inner.cancel(key, ticket, why)
        except BaseException as error:
            self._broken_off(key, before, error)
            raise
        if left:
            self._gone("fail", key, ticket, before, f', "why": "{why}"')
        elif self._has(key, ticket):
            log._line("kept", key, ticket, *before, self._at_loop())
        log._ends()
        return left

    def withdraw(self, key: Hashable, ticket: Ticket, why: str = "cancelled") -> Waker | None:
        log, before = self._log, self._look(key)
        asked = self._has(key, ticket)
        if not log._begins():
            return self.inner.withdraw(key, ticket, why)
        try:
            waker = self.inner.withdraw(key, ticket, why)
        except BaseException as error:
            self._broken_off(key, before, error)
            raise
        if asked:
            self._gone("fail", key, ticket, before, f', "why": "{why}"')
        log._ends()
        return waker

    def about(self, key: Hashable) -> str:
        return self.inner.about(key)

    def _look(self, key: Hashable) -> tuple[Ticket, int]:
        """Return the holder of the key and its number of references; (0, 0) if it has no entry."""
        entry = self._entries.get(key)
        if entry is None:
            return 0, 0
        return (entry, 1) if isinstance(entry, int) else (next(iter(entry), 0), len(entry))

    def _has(self, key: Hashable, ticket: Ticket) -> bool:
        entry = self._entries.get(key)
        return entry is not None and (ticket == entry if isinstance(entry, int) else ticket in entry)

    def _gone(self, event: str, key: Hashable, call: int, before: tuple[Ticket, int], more: str) -> None:
        """Write the lines of a step in which a ticket has left: its own, and the grant to the next holder."""
        holder, refs = self._look(key)
        self._log._line(event, key, call, holder, refs, more + self._at_loop())
        if refs and holder != before[0]:
            self._log._line("grant", key, holder, holder, refs)

    def _broken_off(self, key: Hashable, before: tuple[Ticket, int], error: BaseException) -> None:
        """End a step that raised an unexpected error. If it has changed something, the log stops: its line is lost."""
        if self._look(key) != before:
            self._log._stop(error)
        self._log._ends()

    def _at_loop(self) -> str:
        """Return the number of the running event loop, a new one if the loop changed since the last step."""
        if self._where is None:
            return ""
        here = self._where()
        if here is None:
            # A leftover request of a loop that has ended.
            return ""
        if here is not self._last:
            self._last = here
            self._loop += 1
        return f', "loop": {self._loop}'
