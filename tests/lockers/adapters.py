"""Adapters that misbehave, one each, over a sound locker: ``python adapters.py NAME``.

Every one of them says hello properly unless its fault is in that.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from typing import Any


class Sound:
    """Locks in memory; a call that waits is answered when the key comes to it."""

    features = ("fifo", "cancel", "try", "lease", "unheld", "stat")
    window = 0.002
    """Seconds in which those that have one do by halves what should be one step."""

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.queues: dict[str, list[int]] = {}
        self.key_of: dict[int, str] = {}

    def answer(self, command: dict[str, Any]) -> None:
        """Carry out a command, and say what there is to say."""
        number = command["id"]
        with self.guard:
            getattr(self, "do_" + command["op"])(number, command)

    def later(self, seconds: float, do: Any, *arguments: Any) -> None:
        """Do it after that time, in a thread of its own, unless all has begun anew."""
        then = self.queues

        def come() -> None:
            with self.guard:
                if self.queues is then:
                    do(*arguments)

        timer = threading.Timer(seconds, come)
        timer.daemon = True
        timer.start()

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, protocol=1, name=type(self).__name__, features=[*self.features])

    def do_reset(self, number: int, command: dict[str, Any]) -> None:
        self.queues = {}
        say(id=number, result="ok")

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        queue = self.queues.setdefault(command["key"], [])
        if queue and command.get("timeout") == 0:
            say(id=number, result="timeout")
            return
        queue.append(number)
        self.key_of[number] = command["key"]
        if len(queue) == 1:
            self.grant(number)

    def grant(self, number: int) -> None:
        """The call has the key."""
        say(id=number, result="granted")

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        queue = self.queues.get(command["key"], [])
        if not queue or command.get("lease", queue[0]) != queue[0]:
            say(id=number, result="unheld")
            return
        queue.pop(0)
        say(id=number, result="released")
        self.next(command["key"], queue)

    def next(self, key: str, queue: list[int]) -> None:
        if queue:
            self.grant(queue[0])
        else:
            del self.queues[key]

    def do_cancel(self, number: int, command: dict[str, Any]) -> None:
        call = command["call"]
        queue = self.queues.get(self.key_of.get(call, ""), [])
        if call in queue[1:]:
            queue.remove(call)
            say(id=call, result="cancelled")
        say(id=number, result="ok")

    def do_stat(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, keys={key: {"refs": len(q), "waiters": max(0, len(q) - 1)} for key, q in self.queues.items()})

    def do_bye(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, result="ok")
        sys.exit(0)


class BlackBox(Sound):
    """Sound, and without `stat`."""

    features = ("fifo", "cancel", "try", "lease", "unheld")


class Fields(Sound):
    """Sound, with early cancels, time limits and tokens."""

    features = (*Sound.features, "done", "refuse", "deadline", "token")
    token = 0

    def grant(self, number: int) -> None:
        self.token += 1
        say(id=number, result="granted", token=self.token)

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        if command.get("done"):
            self.early(number, command)
            return
        super().do_lock(number, command)
        if command.get("timeout"):
            self.limit(command["timeout"] / 1000, number, command["key"])

    def early(self, number: int, command: dict[str, Any]) -> None:
        """A call that was cancelled before it begins."""
        say(id=number, result="cancelled")

    def limit(self, seconds: float, number: int, key: str) -> None:
        """A call that got the key, or waits for it no longer than this."""
        self.later(seconds, self.expire, number, key)

    def expire(self, number: int, key: str) -> None:
        """The time of a call is over."""
        queue = self.queues.get(key, [])
        if number in queue[1:]:
            queue.remove(number)
            say(id=number, result="timeout")


class TakesEarly(Fields):
    """Sound: a time limit or a cancel ends a wait only, so a free key is taken."""

    features = (*Sound.features, "done", "take", "deadline")

    def grant(self, number: int) -> None:
        say(id=number, result="granted")

    def early(self, number: int, command: dict[str, Any]) -> None:
        if self.queues.get(command["key"]):
            super().early(number, command)
        else:
            Sound.do_lock(self, number, command)


class SaysRefuseTakes(TakesEarly):
    """Declares what it does not do."""

    features = (*Sound.features, "done", "refuse")


class SaysTakeRefuses(Fields):
    """Declares what it does not do."""

    features = (*Sound.features, "done", "take")


class EarlyCancelLost(Fields):
    """Looks for a cancel while it waits; one that came before is never seen."""

    def early(self, number: int, command: dict[str, Any]) -> None:
        Sound.do_lock(self, number, command)


class EarlyCancelHolds(Fields):
    """Takes a free key for a call that it refuses."""

    def early(self, number: int, command: dict[str, Any]) -> None:
        if not self.queues.get(command["key"]):
            self.queues[command["key"]] = [number]
        super().early(number, command)


class EarlyCancelStaysQueued(Fields):
    """Counts the call, and refuses it without counting down: a context that is nil in containerd's package."""

    def early(self, number: int, command: dict[str, Any]) -> None:
        if self.queues.get(command["key"]):
            self.queues[command["key"]].append(number)
        super().early(number, command)


class LimitLost(Fields):
    """Knows 0 and no limit."""

    def limit(self, seconds: float, number: int, key: str) -> None:
        pass


class LimitTooSoon(Fields):
    """Takes milliseconds for microseconds."""

    def limit(self, seconds: float, number: int, key: str) -> None:
        super().limit(seconds / 1000, number, key)


class LimitStaysQueued(Fields):
    """Says that the time is over, and stays in the queue."""

    def expire(self, number: int, key: str) -> None:
        if number in self.queues.get(key, [])[1:]:
            say(id=number, result="timeout")


class LimitEndsGrant(Fields):
    """The clock runs on after the grant."""

    def expire(self, number: int, key: str) -> None:
        queue = self.queues.get(key, [])
        super().expire(number, key)
        if queue[:1] == [number]:
            queue.pop(0)
            self.next(key, queue)


class LimitMeetsGrant(Fields):
    """A call whose time is over as the key is handed to it says so, and has the key."""

    ends: dict[int, float] = {}  # noqa: RUF012 - of the process, whose numbers are used once

    def limit(self, seconds: float, number: int, key: str) -> None:
        self.ends[number] = time.monotonic() + seconds
        super().limit(seconds, number, key)

    def grant(self, number: int) -> None:
        if abs(time.monotonic() - self.ends.get(number, 0.0)) < self.window / 2:
            say(id=number, result="timeout")
        else:
            super().grant(number)


class LimitMeetsGrantBox(LimitMeetsGrant):
    """The same, without `stat`."""

    features = tuple(name for name in Fields.features if name != "stat")


class TokensAgain(Fields):
    """Its tokens begin anew with each entry."""

    def next(self, key: str, queue: list[int]) -> None:
        super().next(key, queue)
        if not queue:
            self.token = 0


class TokensAgainUnleased(TokensAgain):
    """The same, without leases."""

    features = tuple(name for name in Fields.features if name != "lease")


class NoToken(Fields):
    """Declares tokens and gives none."""

    def grant(self, number: int) -> None:
        say(id=number, result="granted")


class SlowBox(BlackBox):
    """A black box whose calls of lock come in late and in the wrong order, where the silence was short."""

    resets = 0

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        # A cancel that overtakes its call is lost, so it has none.
        say(id=number, protocol=1, name="slow box", features=["fifo"])

    def do_reset(self, number: int, command: dict[str, Any]) -> None:
        self.resets += 1
        super().do_reset(number, command)

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        if self.queues.get(command["key"]):
            late = (self.resets, number, command)
            threading.Timer(0.03 if number % 2 else 0.09, self.come_late, late).start()
        else:
            super().do_lock(number, command)

    def come_late(self, resets: int, number: int, command: dict[str, Any]) -> None:
        if resets == self.resets:
            super().do_lock(number, command)


class Bare(Sound):
    """Has no feature but the order, and shows its table."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, protocol=1, name="bare", features=["fifo", "stat"])


class Lifo(Sound):
    """The youngest waiter is served first."""

    def next(self, key: str, queue: list[int]) -> None:
        if queue:
            queue.insert(0, queue.pop())
        super().next(key, queue)


class LifoBare(Lifo, Bare):
    """Both: so that few vectors fit, and few of them fail."""


class KeepsEntries(Sound):
    """Never evicts."""

    def next(self, key: str, queue: list[int]) -> None:
        if queue:
            super().next(key, queue)


class LifoKeepsEntries(KeepsEntries, LifoBare):
    """Two mistakes."""

    def next(self, key: str, queue: list[int]) -> None:
        if queue:
            Lifo.next(self, key, queue)


class ForgetsOnThird(Sound):
    """The third call in a row on one key, when it is cancelled, takes the waiter before it along."""

    def do_cancel(self, number: int, command: dict[str, Any]) -> None:
        queue = self.queues.get(self.key_of.get(command["call"], ""), [])
        if queue[2:3] == [command["call"]]:
            del queue[1]
        super().do_cancel(number, command)


class Forgets20th(Sound):
    """Of twenty cancels one is lost."""

    cancels = 0

    def do_cancel(self, number: int, command: dict[str, Any]) -> None:
        self.cancels += 1
        if self.cancels % 20:
            super().do_cancel(number, command)
        else:
            say(id=number, result="ok")


class Hangs(Sound):
    """Stops answering at the first unlock."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        threading.Event().wait()


class HangsAtHello(Sound):
    """Never says hello; the next argument, if there is one, is a file for its process id."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        for name in sys.argv[2:]:
            with open(f"{name}.new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(f"{name}.new", name)
        threading.Event().wait()


class HangsInAll(BlackBox):
    """Answers no lock; the next argument is a folder, in which each process leaves its id."""

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        os.mkdir(os.path.join(sys.argv[2], str(os.getpid())))
        threading.Event().wait()


class SharesKeys(BlackBox):
    """Sound, and all its processes lock the same keys: the next argument is the folder in which they do."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, Any] = {}

    def do_reset(self, number: int, command: dict[str, Any]) -> None:
        for file in self.taken.values():
            file.close()
        self.taken.clear()
        super().do_reset(number, command)

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        key = command["key"]
        if key not in self.taken:
            file = open(os.path.join(sys.argv[2], str(zlib.crc32(key.encode()))), "w")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                if command.get("timeout") == 0:
                    say(id=number, result="timeout")
                else:
                    self.later(0.001, self.do_lock, number, command)
                return
            self.taken[key] = file
        super().do_lock(number, command)

    def next(self, key: str, queue: list[int]) -> None:
        if not queue:
            self.taken.pop(key).close()
        super().next(key, queue)


class NeverReads(Sound):
    """Says hello, and reads nothing after that."""

    def do_reset(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, result="ok")
        threading.Event().wait()


class Dies(Sound):
    """Ends at the first cancel, with last words."""

    def do_cancel(self, number: int, command: dict[str, Any]) -> None:
        print("panic: index out of range", file=sys.stderr, flush=True)
        os._exit(2)


class DiesAtOnce(Sound):
    """Ends before hello."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        sys.exit("no such library")


class Babbles(Sound):
    """Says things that nobody asked for, without end."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        while True:
            say(id=10**9, result="granted")


class LongLine(Sound):
    """Writes a line without an end."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        while True:
            sys.stdout.write("x" * 4096)


class Binary(Sound):
    """Writes bytes that are no text."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        sys.stdout.flush()
        os.write(1, bytes(range(128, 256)) + b"\n")


class SaysItTwice(Sound):
    """Answers each unlock twice."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        super().do_unlock(number, command)
        say(id=number, result="released")


class OwnWords(Sound):
    """Has words of its own for a result."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, result="done")


class OldProtocol(Sound):
    """Speaks another version."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, protocol=0, name="old", features=[])


class OddFeature(Sound):
    """Declares a feature that there is not."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, protocol=1, name="odd", features=["quantum"])


class OddTable(Sound):
    """Its `stat` is not as the protocol has it."""

    def do_stat(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, keys=[["a", 1]])


class StaysAfterBye(Sound):
    """Does not end."""

    def do_bye(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, result="ok")
        threading.Event().wait()


class HasChildren(Sound):
    """Starts a process that would outlive it, and says who it is."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        say(id=number, protocol=1, name=f"child {child.pid}", features=["fifo"])


class StartsOnce(Lifo):
    """Starts only where its file, the next argument, is not there yet."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        try:
            with open(sys.argv[2], "x"):
                super().do_hello(number, command)
        except FileExistsError:
            sys.exit("the port is taken")


class DiesOfAnOddSignal(Sound):
    """Ends by a signal that has no name, with last words that are no text."""

    def do_cancel(self, number: int, command: dict[str, Any]) -> None:
        print("\x1b[31m\x00 gone", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGRTMIN + 3)


class OddNumbers(Sound):
    """Counts without end."""

    def do_stat(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, keys={"a": {"refs": float("inf"), "waiters": 0}})


class OddName(Lifo):
    """Sound in nothing but its grammar: its name can't be written, and its keys neither."""

    def do_hello(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, protocol=1, name="odd \ud800 \x1b[2J\x00", features=["fifo", "stat"])

    def do_stat(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, keys={"\ud800\x00": {"refs": 1, "waiters": 0}})


class LifoSlowBox(Lifo, SlowBox):
    """A black box that is slow, and wrong as well."""


class MinusOne(Sound):
    """Answers what nobody asked."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        say(id=-1, result="released")


class HalfALine(Sound):
    """Ends amid a reply."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        os.write(1, b'{"id": ')
        os._exit(2)


class PanicsLikeGo(Sound):
    """Ends with a stack behind the cause."""

    last_words = "panic: all is lost\n\ngoroutine 1 [running]:\nmain.main()\n\t/main.go:3 +0x1d\nexit status 2"

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        print(self.last_words, file=sys.stderr, flush=True)
        os._exit(2)


class PanicsLikeRust(PanicsLikeGo):
    """Has the cause on the line after its place."""

    last_words = "thread 'main' panicked at src/lib.rs:1:1:\nall is lost\nnote: run with a backtrace"


class UnlockPanics(Sound):
    """Its calls end as the protocol does not have it."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, result="error", message="it can't be")


class CancelPanics(Sound):
    """The same of a cancel."""

    def do_cancel(self, number: int, command: dict[str, Any]) -> None:
        say(id=number, result="error", message="it can't be")


class StrayBeside(Sound):
    """A lock counts itself in and takes the key later: an unlock between the two is refused, and evicts the entry."""

    def __init__(self) -> None:
        super().__init__()
        self.entering: dict[str, int] = {}

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        if command["key"] in self.queues or command["key"] in self.entering:
            super().do_lock(number, command)
        else:
            self.entering[command["key"]] = number
            self.later(self.window, self.enter, number, command)

    def enter(self, number: int, command: dict[str, Any]) -> None:
        if self.entering.pop(command["key"], None) == number:
            super().do_lock(number, command)
        else:
            say(id=number, result="granted")

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        self.entering.pop(command["key"], None)
        super().do_unlock(number, command)


class StrayBesideBox(StrayBeside, BlackBox):
    """The same, and nobody sees its table."""


class AcceptsStray(StrayBeside):
    """The same lock, and an unlock that comes before it has the key says that it has let go of it."""

    def do_unlock(self, number: int, command: dict[str, Any]) -> None:
        if self.queues.get(command["key"]):
            super().do_unlock(number, command)
        else:
            say(id=number, result="released")


class LosesEarlyCancel(Sound):
    """A call can be cancelled only from a while after it was made."""

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        super().do_lock(number, command)
        key = self.key_of.pop(number, "")
        self.later(self.window, self.key_of.__setitem__, number, key)


class CutsKeys(Sound):
    """Tells keys apart by their first letter."""

    def answer(self, command: dict[str, Any]) -> None:
        super().answer({**command, "key": command["key"][:1]} if "key" in command else command)


class Striped4(BlackBox):
    """So many locks for all keys."""

    stripes = 4

    def answer(self, command: dict[str, Any]) -> None:
        stripe = str(zlib.crc32(command.get("key", "").encode()) % self.stripes)
        super().answer({**command, "key": stripe} if "key" in command else command)


class Striped1024(Striped4):
    """More of them."""

    stripes = 1024


class LeaksAfter50(Sound):
    """Evicts as long as there were no more than 50 keys."""

    def next(self, key: str, queue: list[int]) -> None:
        if queue or len(self.queues) <= 50:
            super().next(key, queue)


class LifoPastFive(Sound):
    """Keeps order among five."""

    def next(self, key: str, queue: list[int]) -> None:
        if len(queue) > 5:
            queue.insert(0, queue.pop())
        super().next(key, queue)


class SlowTry(Sound):
    """Waits before it refuses."""

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        if command.get("timeout") == 0 and self.queues.get(command["key"]):
            self.later(0.3, super().do_lock, number, command)
        else:
            super().do_lock(number, command)


class Passes(Sound):
    """Its calls return a while after they were granted the key, and give it up where they are cancelled before."""

    features = (*Sound.features, "pass")
    keeps = False

    def __init__(self) -> None:
        super().__init__()
        self.granted: set[int] = set()

    def next(self, key: str, queue: list[int]) -> None:
        if queue:
            self.granted.add(queue[0])
            self.later(self.window, self.wake, queue[0])
        else:
            super().next(key, queue)

    def wake(self, call: int) -> None:
        if call in self.granted:
            self.granted.discard(call)
            say(id=call, result="granted")

    def do_cancel(self, number: int, command: dict[str, Any]) -> None:
        call = command["call"]
        if call in self.granted and not self.keeps:
            self.granted.discard(call)
            say(id=call, result="cancelled")
            self.drop(self.key_of[call])
            say(id=number, result="ok")
        else:
            super().do_cancel(number, command)

    def drop(self, key: str) -> None:
        self.queues[key].pop(0)
        self.next(key, self.queues[key])


class Keeps(Passes):
    """The same, and they keep it."""

    features = (*Sound.features, "keep")
    keeps = True


class SaysKeepPasses(Passes):
    """Declares the one and does the other."""

    features = (*Sound.features, "keep")


class SaysPassKeeps(Keeps):
    """And the other way round."""

    features = (*Sound.features, "pass")


class DropsRacedGrant(Passes):
    """A call that is cancelled after its grant raises, and the key is nobody's. It can't tell a stray unlock."""

    features = ("fifo", "cancel", "try")

    def drop(self, key: str) -> None:
        self.queues[key][0] = 0


class TryOvertakes(Sound):
    """Has a thread for each try, and one that comes amid a hand-over gets the key, before the waiter."""

    def __init__(self) -> None:
        super().__init__()
        self.handing: set[str] = set()

    def next(self, key: str, queue: list[int]) -> None:
        if queue:
            self.handing.add(key)
            self.later(self.window, self.wake, key)
        else:
            super().next(key, queue)

    def wake(self, key: str) -> None:
        if key in self.handing:
            self.handing.discard(key)
            say(id=self.queues[key][0], result="granted")

    def do_lock(self, number: int, command: dict[str, Any]) -> None:
        if command.get("timeout") == 0:
            # To start the thread takes longer than a hand-over, but for one in seven.
            self.later(self.window * (2 if number % 7 else 0.25), self.attempt, number, command)
        else:
            super().do_lock(number, command)

    def attempt(self, number: int, command: dict[str, Any]) -> None:
        if command["key"] in self.handing:
            self.handing.discard(command["key"])
            self.key_of[number] = command["key"]
            self.queues[command["key"]].insert(0, number)
            say(id=number, result="granted")
        else:
            super().do_lock(number, command)


def say(**body: Any) -> None:
    """Write a reply."""
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the end of standard input."""
    adapter = globals()[sys.argv[1]]()
    for line in sys.stdin:
        adapter.answer(json.loads(line))


if __name__ == "__main__":
    main()
