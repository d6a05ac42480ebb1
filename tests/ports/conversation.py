"""A conversation with an adapter, by the words of specs/protocol.md, and what can be asked of any port in it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

Reply = dict[str, Any]


class Conversation:
    """An adapter at work. A thread takes in its replies; a command is an id, by which its reply is asked for."""

    def __init__(self, command: Sequence[str], folder: Path, patience: float) -> None:
        """patience: seconds after which a reply or a state that does not come is an AssertionError."""
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._patience = patience
        self._last_id = 0
        self._replies: dict[int, Reply] = {}
        self._unasked: list[Reply] = []
        self._over = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(self._patience)
        self._reader.join(self._patience)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def say(self, op: str, **fields: Any) -> int:
        """Send one command."""
        (number,) = self.burst((op, fields))
        return number

    def burst(self, *commands: tuple[str, dict[str, Any]]) -> list[int]:
        """Send some commands in one write, so that the adapter gets them without a pause."""
        numbers = range(self._last_id + 1, self._last_id + 1 + len(commands))
        self._last_id += len(commands)
        lines = (
            json.dumps({"op": op, "id": number, **fields})
            for number, (op, fields) in zip(numbers, commands, strict=True)
        )
        self.write("".join(line + "\n" for line in lines))
        return list(numbers)

    def write(self, text: str) -> None:
        """Send text as it is."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """End the adapter's input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def reply(self, number: int) -> Reply:
        """The reply to the command with this id, which is waited for."""
        self.first_of([number])
        return self._replies[number]

    def result(self, number: int) -> str:
        """The word in that reply."""
        word: str = self.reply(number)["result"]
        return word

    def ask(self, op: str, **fields: Any) -> str:
        """Send a command and wait for its word."""
        return self.result(self.say(op, **fields))

    def first_of(self, numbers: Iterable[int]) -> int:
        """The first of these commands to have a reply; waits for one."""
        wanted = set(numbers)
        with self._news:
            self._news.wait_for(lambda: self._over or wanted & self._replies.keys(), self._patience)
            for number in self._replies:
                if number in wanted:
                    return number
        raise AssertionError("the adapter has ended" if self._over else f"no reply to {sorted(wanted)}")

    def silent(self, *numbers: int) -> bool:
        """None of these commands has a reply so far."""
        with self._news:
            return not self._replies.keys() & set(numbers)

    def keys(self) -> dict[str, dict[str, int]]:
        """What stat says."""
        keys: dict[str, dict[str, int]] = self.reply(self.say("stat"))["keys"]
        return keys

    def until(self, **waiters: int) -> None:
        """Ask for stat until the live keys are these, each with a holder and so many waiters."""
        wanted = {key: {"refs": count + 1, "waiters": count} for key, count in waiters.items()}
        deadline = time.monotonic() + self._patience
        while (keys := self.keys()) != wanted:
            assert time.monotonic() < deadline, f"{keys}, and never {wanted}"

    def waiter(self, key: str, place: int) -> int:
        """Lock ``key``, the only live one, and see the call stand in the queue as number ``place``."""
        number = self.say("lock", key=key)
        self.until(**{key: place})
        assert self.silent(number)
        return number

    def ended(self) -> tuple[int, str]:
        """Wait for the adapter's end: its exit status and its standard error."""
        code = self._process.wait(self._patience)
        self._reader.join(self._patience)
        assert self._process.stderr is not None
        assert self._unasked == []
        return code, self._process.stderr.read().decode()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            with self._news:
                if reply["id"] in self._replies or not 0 < reply["id"] <= self._last_id:
                    self._unasked.append(reply)
                self._replies.setdefault(reply["id"], reply)
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()


ROUNDS = 100
"""How often a burst is tried, whose commands meet in another way each time."""

Scenario = Callable[[Conversation, frozenset[str]], None]


def idle(talk: Conversation, features: frozenset[str]) -> None:
    """KM-IDLE, KM-REF, KM-UNHELD: the entry goes in the step of the unlock."""
    assert talk.ask("lock", key="a") == "granted"
    assert talk.keys() == {"a": {"refs": 1, "waiters": 0}}
    assert talk.ask("unlock", key="a") == "released"
    assert talk.keys() == {}
    assert talk.ask("unlock", key="a") == "unheld"


def in_order(talk: Conversation, features: frozenset[str]) -> None:
    """KM-FIFO, KM-LIVE: the waiters come through oldest first, each at one unlock."""
    assert talk.ask("lock", key="a") == "granted"
    calls = [talk.waiter("a", place) for place in (1, 2, 3)]
    while calls:
        assert talk.ask("unlock", key="a") == "released"
        assert talk.first_of(calls) == calls[0]
        assert talk.result(calls.pop(0)) == "granted"
        talk.until(a=len(calls))
        assert talk.silent(*calls)
    assert talk.ask("unlock", key="a") == "released"
    assert talk.keys() == {}


def one_holder(talk: Conversation, features: frozenset[str]) -> None:
    """KM-EXCL, KM-REF: the entry lives on with the waiter who came through."""
    assert talk.ask("lock", key="a") == "granted"
    call = talk.waiter("a", 1)
    assert talk.ask("unlock", key="a") == "released"
    assert talk.result(call) == "granted"
    assert talk.ask("lock", key="a", timeout=0) == "timeout"
    talk.until(a=0)
    assert talk.ask("unlock", key="a") == "released"


def hand_off(talk: Conversation, features: frozenset[str]) -> None:
    """KM-HANDOFF: a newcomer that comes with the unlock does not get the key."""
    for _ in range(ROUNDS):
        assert talk.ask("reset") == "ok"
        assert talk.ask("lock", key="a") == "granted"
        call = talk.waiter("a", 1)
        _, newcomer = talk.burst(("unlock", {"key": "a"}), ("lock", {"key": "a", "timeout": 0}))
        assert talk.result(newcomer) == "timeout"
        assert talk.result(call) == "granted"


def cancel(talk: Conversation, features: frozenset[str]) -> None:
    """KM-CANCEL, KM-REF, KM-IDLE: a waiter leaves the queue, and the one behind it keeps its place."""
    assert talk.ask("lock", key="a") == "granted"
    first, second = talk.waiter("a", 1), talk.waiter("a", 2)
    assert talk.ask("cancel", call=first) == "ok"
    assert talk.result(first) == "cancelled"
    talk.until(a=1)
    assert talk.silent(second)
    assert talk.ask("unlock", key="a") == "released"
    assert talk.result(second) == "granted"
    assert talk.ask("cancel", call=second) == "ok"
    assert talk.ask("unlock", key="a") == "released"
    assert talk.keys() == {}


def race(talk: Conversation, features: frozenset[str]) -> None:
    """KM-RACE, KM-LIVE: a cancel that meets a grant ends in one of two ways, and as the port has decided."""
    for turn in range(ROUNDS):
        assert talk.ask("reset") == "ok"
        assert talk.ask("lock", key="a") == "granted"
        call, behind = talk.waiter("a", 1), talk.waiter("a", 2)
        commands = [("unlock", {"key": "a"}), ("cancel", {"call": call})]
        talk.burst(*(commands if turn % 2 else reversed(commands)))
        result = talk.result(call)
        assert result in ("granted", "cancelled")
        if turn % 2 and "keep" in features:
            assert result == "granted"
        if not turn % 2 and "pass" in features:
            assert result == "cancelled"
        if result == "granted":
            assert talk.silent(behind)
            assert talk.ask("unlock", key="a") == "released"
        assert talk.result(behind) == "granted"
        assert talk.ask("unlock", key="a") == "released"
        assert talk.keys() == {}


def stray_unlock(talk: Conversation, features: frozenset[str]) -> None:
    """KM-UNHELD, KM-ATOMIC, KM-EXCL: it is refused, and leaves a mutex behind."""
    assert talk.ask("unlock", key="a") == "unheld"
    assert talk.keys() == {}
    assert talk.ask("lock", key="a") == "granted"
    assert talk.ask("lock", key="a", timeout=0) == "timeout"
    assert talk.ask("unlock", key="a") == "released"


def no_time(talk: Conversation, features: frozenset[str]) -> None:
    """KM-EXPIRED, KM-ATOMIC, KM-IDLE: a try takes a free key and leaves no trace at a held one."""
    assert talk.ask("lock", key="a", timeout=0) == "granted"
    assert talk.ask("lock", key="a", timeout=0) == "timeout"
    assert talk.keys() == {"a": {"refs": 1, "waiters": 0}}
    assert talk.ask("unlock", key="a") == "released"
    assert talk.keys() == {}


def cancelled_before(talk: Conversation, features: frozenset[str]) -> None:
    """KM-CANCEL, KM-REF, KM-IDLE: a call whose cancel came before it takes a free key or does not, and never waits."""
    if "done" not in features:
        return
    assert talk.ask("lock", key="a", done=True) == ("granted" if "take" in features else "cancelled")
    assert talk.keys() == ({"a": {"refs": 1, "waiters": 0}} if "take" in features else {})
    if "take" not in features:
        assert talk.ask("lock", key="a") == "granted"
    assert talk.ask("lock", key="a", done=True) == "cancelled"
    assert talk.keys() == {"a": {"refs": 1, "waiters": 0}}
    assert talk.ask("unlock", key="a") == "released"
    assert talk.keys() == {}


def time_limit(talk: Conversation, features: frozenset[str]) -> None:
    """KM-CANCEL, KM-EXPIRED, KM-IDLE: a limit ends a wait without a trace, and no grant."""
    if "deadline" not in features:
        return
    assert talk.ask("lock", key="a", timeout=10) == "granted"
    begun = time.monotonic()
    assert talk.ask("lock", key="a", timeout=20) == "timeout"
    assert time.monotonic() - begun >= 0.018
    assert talk.keys() == {"a": {"refs": 1, "waiters": 0}}
    call = talk.say("lock", key="a", timeout=600_000)
    talk.until(a=1)
    assert talk.ask("unlock", key="a") == "released"
    assert talk.result(call) == "granted"
    assert talk.ask("unlock", key="a") == "released"
    assert talk.keys() == {}


def leases(talk: Conversation, features: frozenset[str]) -> None:
    """KM-TOKEN: a lease ends its own grant, once."""
    if "lease" not in features:
        return
    old = talk.say("lock", key="a")
    assert talk.result(old) == "granted"
    assert talk.ask("unlock", key="a") == "released"
    new = talk.say("lock", key="a")
    assert talk.result(new) == "granted"
    assert talk.ask("unlock", key="a", lease=old) == "unheld"
    assert talk.keys() == {"a": {"refs": 1, "waiters": 0}}
    assert talk.ask("unlock", key="a", lease=new) == "released"
    assert talk.ask("unlock", key="a", lease=new) == "unheld"
    assert talk.keys() == {}


def other_keys(talk: Conversation, features: frozenset[str]) -> None:
    """KM-INDEP: a key with a waiter delays no other key, whatever it is called."""
    odd = ["b", "", "__proto__", "constructor", '"\\\n\t/', "\u00e9\u4e2d\U0001f600\u2028\x7f"]
    assert talk.ask("lock", key="a") == "granted"
    call = talk.waiter("a", 1)
    for key in odd:
        assert talk.ask("lock", key=key, timeout=0) == "granted"
    assert talk.keys() == {"a": {"refs": 2, "waiters": 1}, **{key: {"refs": 1, "waiters": 0} for key in odd}}
    for key in odd:
        assert talk.ask("unlock", key=key) == "released"
    assert talk.silent(call)
    talk.until(a=1)


SCENARIOS: list[Scenario] = [
    idle,
    in_order,
    one_holder,
    hand_off,
    cancel,
    race,
    stray_unlock,
    no_time,
    cancelled_before,
    time_limit,
    leases,
    other_keys,
]
