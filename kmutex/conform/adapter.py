"""An adapter as a process: its start, its messages, and its end without traces, whatever it does.

Every wait for the adapter has a limit: for its replies, for it to read, and for its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from kmutex._text import printable
from kmutex.engine.watchdog import Watchdog

MOST_BYTES = 65_536
"""The most bytes of one line (specs/protocol.md)."""
MOST_REPLIES = 10_000
"""The most unread replies. An adapter that sends more does not answer commands."""
LAST_WORDS = 2_000
"""The bytes of its standard error that are kept."""
PROTOCOL = 1
_CAUSE = re.compile(
    r"(fatal error|panic): |thread '.*' .*panicked at |terminate called |Exception in thread |"
    r"[\w.]+(Error|Exception)(: |$)"
)
"""The beginning of a line with the reason why a process ends, in many languages, before or after a stack."""


class AdapterError(Exception):
    """The adapter broke the protocol, or has ended. The message is one line."""


class Adapter:
    """A running adapter. `end` kills it, and all processes that it started."""

    def __init__(self, command: Sequence[str], *, patience: float) -> None:
        """command: what starts it. patience: seconds for a reply that is due at once.

        AdapterError: it can't be started.
        """
        self._patience = patience
        self.last_id = 0
        """Of the commands that were sent."""
        self.usual_answer = 0.0
        """Seconds from a command to what is said of it, a moving average."""
        self._unsent = b""
        self._unread = b""
        self._stderr = b""
        self._replies: list[dict[str, Any]] = []
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise AdapterError(f"can't start {command[0]}: {error.strerror}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._selector = selectors.DefaultSelector()
        for stream in (self._process.stdout, self._process.stderr):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)
        os.set_blocking(self._process.stdin.fileno(), False)
        self.name = ""
        self.features: frozenset[str] = frozenset()

    def hello(self, seconds: float) -> None:
        """Ask for its name and features. AdapterError: it does not say them within the time, or not as it should."""
        reply = self.ask("hello", seconds=seconds, protocol=PROTOCOL)
        features = reply.get("features")
        if reply.get("protocol") != PROTOCOL or not isinstance(reply.get("name"), str):
            raise AdapterError(f"its hello is not a hello of protocol {PROTOCOL}: {_cut(json.dumps(reply))}")
        if not isinstance(features, list) or not all(isinstance(feature, str) for feature in features):
            raise AdapterError(f"its hello has no list of features: {_cut(json.dumps(reply))}")
        self.name = _cut(reply["name"])
        self.features = frozenset(features)

    def send(self, op: str, **fields: Any) -> int:
        """Send a command; its id. It goes out with what is sent next, or when replies are asked for.

        So the commands of one move come in one piece, and meet in an adapter that takes what there is to read at once.
        """
        self.last_id += 1
        self._unsent += json.dumps({"op": op, "id": self.last_id, **fields}).encode() + b"\n"
        return self.last_id

    def flush(self) -> None:
        """Let out what has not gone out."""
        self._write()

    def ask(self, op: str, *, seconds: float | None = None, **fields: Any) -> dict[str, Any]:
        """Send a command whose reply is due at once, and wait for that. Other replies stay to be taken."""
        number = self.send(op, **fields)
        self._write()
        limit = self._patience if seconds is None else seconds
        watchdog = self.watchdog()
        left = limit
        while True:
            for place, reply in enumerate(self._replies):
                if reply["id"] == number:
                    return self._replies.pop(place)
            if not self._read(left):
                left = limit - watchdog.silent()
                if left <= 0:
                    raise AdapterError(f"no reply to {op} within {limit:g} s{self._words()}")

    def answers_within(self, seconds: float) -> None:
        """Take note of how long it has taken to answer a command."""
        self.usual_answer += (seconds - self.usual_answer) / 8

    def watchdog(self) -> Watchdog:
        """What counts its silence from now on: a busy machine fails no port."""
        return Watchdog(self._process.pid)

    def replies(self, seconds: float) -> list[dict[str, Any]]:
        """The replies that have come, waiting at most so long for the first."""
        self._write()
        if not self._replies:
            self._read(seconds)
        taken, self._replies = self._replies, []
        return taken

    def kill(self) -> None:
        """Kill it and its process group, also while another thread waits for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and leave nothing of it."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that runs as another user can't be killed from here.
            self._process.wait(self._patience)
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def bye(self) -> None:
        """Let it end by itself. AdapterError: it does not, or with another status than 0."""
        self.ask("bye")
        watchdog = self.watchdog()
        while (status := self._process.poll()) is None:
            if watchdog.silent() >= self._patience:
                raise AdapterError(f"it is still there {self._patience:g} s after bye")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        if status != 0:
            raise AdapterError(f"it ended with status {status} after bye")

    def _write(self) -> None:
        assert self._process.stdin is not None
        data, self._unsent = self._unsent, b""
        watchdog = self.watchdog()
        while data:
            try:
                data = data[os.write(self._process.stdin.fileno(), data) :]
            except BlockingIOError:
                if watchdog.silent() > self._patience:
                    raise AdapterError(f"it has not read its commands for {self._patience:g} s") from None
                self._read(0.01)
            except OSError:
                raise self._gone() from None

    def _read(self, seconds: float) -> bool:
        """Take in what it says within the time: False where that is over and it said nothing."""
        ready = self._selector.select(max(0.0, seconds))
        for key, _ in ready:
            with contextlib.suppress(BlockingIOError):
                data = os.read(key.fd, MOST_BYTES)
                if key.fileobj is self._process.stderr:
                    self._stderr = (self._stderr + data)[-LAST_WORDS:]
                    if not data:
                        self._selector.unregister(key.fileobj)
                elif data:
                    self._take(data)
                else:
                    raise self._gone()
        return bool(ready)

    def _take(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > MOST_BYTES:
            raise AdapterError(f"it wrote a line of more than {MOST_BYTES} bytes: {_cut(repr(self._unread))}")
        for line in lines:
            try:
                reply = json.loads(line.decode())
            except (ValueError, RecursionError):
                raise AdapterError(f"it wrote a line that is not JSON: {_cut(repr(line))}") from None
            if not isinstance(reply, dict) or type(reply.get("id")) is not int:
                raise AdapterError(f"it wrote a reply without a number as its id: {_cut(line.decode())}")
            if not 0 < reply["id"] <= self.last_id:
                raise AdapterError(
                    f"it wrote a reply to {reply['id']}, which no command has as its id: {_cut(repr(line))}"
                )
            self._replies.append(reply)
        if len(self._replies) > MOST_REPLIES:
            raise AdapterError(f"it wrote more than {MOST_REPLIES} replies without a command")

    def _gone(self) -> AdapterError:
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return AdapterError(f"it has closed its output and still runs{self._words()}")
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        half = f", amid the line {_cut(repr(self._unread))}" if self._unread else ""
        return AdapterError(f"it {how} while it was needed{half}{self._words()}")

    def _words(self) -> str:
        with contextlib.suppress(OSError):
            assert self._process.stderr is not None
            self._stderr = (self._stderr + (os.read(self._process.stderr.fileno(), MOST_BYTES) or b""))[-LAST_WORDS:]
        text = self._stderr.decode(errors="replace").strip()
        lines = text.splitlines()
        # Of a stack, the line with the cause, and what Rust says on the next.
        causes = [number for number, line in enumerate(lines) if _CAUSE.match(line)]
        said = lines[-1:] if not causes else lines[causes[-1] :][: 1 + lines[causes[-1]].endswith(":")]
        return f"; its last words: {_cut(' '.join(said))}" if text else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # Real-time signals have no names of their own.


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= 120 else text[:117] + "..."
