"""The contract as an observer: it watches one run of a locker from outside and names the clause that is broken.

It sees calls, returns and errors, quiescent states, and len() if the locker has one. Its conclusions hold for any
locker:

- A client that got a key and has not begun to unlock it holds it. Two such clients break KM-EXCL.
- A client that waits in a quiescent state is in the queue. A later call must not overtake it.
- In a quiescent state, nobody can wait for a key without a holder: a wake-up was lost.
- In a quiescent state, the live keys are those that are held or waited for, and len() is their number.

A symptom has its own clause. If the run contains a possible cause (a cancelled wait, a failed try, a stray unlock, an
old lease), the clause about that comes first: the same program is also run without it, and a symptom that it then shows
too is not blamed on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from typing import Any

from kmutex._text import said
from kmutex._timeouts import TIMED_OUT
from kmutex.engine.observer import Ending, UncontrolledError
from kmutex.engine.program import ASKING, RAISING, Step
from kmutex.engine.run_judge import BLAME, RunJudge

LEASED = frozenset("]^o")
"""Steps that end a grant by its lease. If the grant has ended already, they are harmless and need not raise."""


ENDED_OUTSIDE = "... its wait is ended from outside"
"""The text of the only event of a client that has another cause."""


class _Contest:
    """Unlocks of a key by a client that does not hold it, while the holder has it or unlocks it: one of the two wins.

    As in Go, an unlock by key releases the holder's grant, whoever calls it. So either may succeed, and one must.
    """

    def __init__(self) -> None:
        self.robbed: set[int] = set()
        """Holders whose grant was ended by another client's unlock before their own."""
        self._keys: dict[int, str] = {}
        self._owners: dict[int, int] = {}
        """By client that releases another's lease: the client of that lease."""
        self._beaten: set[int] = set()
        self._refused: set[int] = set()

    def begun(self, client: int, key: str, owner: int | None = None) -> None:
        """Note that a client without the key unlocks it, by the lease of ``owner`` if that is given."""
        self._keys[client] = key
        if owner is not None:
            self._owners[client] = owner

    def granted(self, key: str, holder: int) -> bool:
        """Another client got the key; return whether a call that has not returned yet ended the holder's grant."""
        winner = next((client for client, owner in self._owners.items() if owner == holder), None)
        if winner is None or self._keys.get(winner) != key:
            return False
        self.robbed.add(holder)
        self.over(winner)
        return True

    def won_twice(self, client: int, own: str | None, holder: dict[str, int], releasing: Mapping[int, str]) -> bool:
        """An unlock returned; return whether the other had won before. ``own`` is the key, if the client held it."""
        rivals = [rival for rival, key in self._keys.items() if key == own]
        key = self._keys.get(client)
        if key is not None:
            owner = self._owners.get(client)
            rivals = [rival for rival, of in releasing.items() if of == key and owner in (None, rival)]
            if key in holder and owner in (None, holder[key]):
                self.robbed.add(holder.pop(key))
        self._beaten.update(rivals)
        return client in self._beaten

    def lost_twice(self, client: int, own: str | None) -> bool:
        """An unlock was refused; return whether the other was too. ``own`` is the key, if the client held it."""
        if own is not None and client not in self._beaten:
            self._refused.update(rival for rival, key in self._keys.items() if key == own)
        return client in self._refused

    def may_lose(self, client: int) -> bool:
        """Return whether its unlock may be refused because of the other."""
        return client in self._beaten or client in self._keys or bool(self._refused)

    def over(self, client: int) -> None:
        """Its call is over."""
        self._keys.pop(client, None)
        self._owners.pop(client, None)
        self._beaten.discard(client)
        self._refused.discard(client)


class Judge(RunJudge):
    """Judges one run of a lock. An `Observer`."""

    def __init__(self, **of_run: Any) -> None:
        """Judge one run; the arguments are those of `RunJudge`."""
        super().__init__(**of_run)
        self._counted = False
        self._quiets = 0
        self._holder: dict[str, int] = {}
        self._leases: dict[str, dict[int, bool]] = {}
        """By key and client in a block of it: whether its last grant of the key is by the lease of that block."""
        self._asking: dict[int, Step] = {}
        self._since: dict[int, int] = {}
        self._alone: set[int] = set()
        self._parked: dict[int, int] = {}
        self._cancelled: set[int] = set()
        self._releasing: dict[int, str] = {}
        self._stray: set[int] = set()
        self._contest = _Contest()
        self._doubtful: dict[str, int] = {}
        """By free key that was refused in the epilogue: the client."""
        self._used: set[str] = set()

    # -- Observer ------------------------------------------------------------------------------------------------

    def called(self, client: int, step: Step) -> None:
        key = step.key
        own = step.kind not in "xo" and client not in self._contest.robbed and self._holder.get(key) == client
        self._log(client, f"{step} ...", "asks" if step.kind in ASKING else "lets go" if own else "calls", key)
        if step.kind == "]" or step.kind in RAISING:
            self._leases.get(key, {}).pop(client, None)
        if step.kind in ASKING:
            others = [other for other, asked in self._asking.items() if asked.key == key]
            self._alone -= set(others)
            if not others and key not in self._holder and key not in self._releasing.values():
                self._alone.add(client)
            self._asking[client] = step
            self._since[client] = self._quiets
            self._cancelled.discard(client)
        elif step.kind == "o":
            self._ingredient("lease")
            # The engine takes the lease of the first of the others that are in a block: an old one ends nothing.
            leases = self._leases.get(key, {})
            owner = min(leases.keys() - {client}, default=client)
            if leases.get(owner) and (self._holder.get(key) == owner or self._releasing.get(owner) == key):
                self._contest.begun(client, key, owner)
        elif step.kind == "x":
            if key in self._holder or key in self._releasing.values():
                self._contest.begun(client, key)
            elif not any(asked.key == key for asked in self._asking.values()):
                self._stray.add(client)
        elif client in self._contest.robbed:
            self._contest.robbed.discard(client)
            if step.kind not in LEASED:
                self._stray.add(client)
        elif self._holder.get(key) == client:
            del self._holder[key]
            self._releasing[client] = key
            if step.kind in RAISING or step.kind == "*":
                self._ingredient("body")
        else:
            self._ingredient("lease")

    def returned(self, client: int, step: Step) -> None:
        key = step.key
        if step.kind in ASKING:
            self._log(client, f"{step}: got it", "has", key)
            self._granted(client, step)
        else:
            held = key in self._holder
            twice = self._contest.won_twice(client, self._releasing.pop(client, None), self._holder, self._releasing)
            taken = held and key not in self._holder
            self._log(client, f"{step}: done", "takes away" if taken else "comes back", key)
            if twice and step.kind not in LEASED:
                self._find("KM-UNHELD", f"{key} was granted once, and two unlocks of it came back without an error")
            if client in self._stalled:
                self._find("KM-INDEP", f"client {client}'s {step} came back only after something else let go")
            if client in self._stray:
                self._find("KM-UNHELD", f"client {client} unlocked {key}, which nobody held, and no error was raised")
        self._over(client)

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        words = said(error)
        self._log(client, f"{step}: {words}", "refused" if step.kind in ASKING else "comes back", step.key)
        if isinstance(error, SystemExit):
            self.exited = f"{step} raised SystemExit"
        elif step.kind in ASKING:
            self._refused(client, step, error, words)
        elif self._contest.lost_twice(client, self._releasing.get(client)):
            self._find("KM-REF", f"{step.key} is held, and both unlocks of it were refused", "KM-LIVE")
        elif self._contest.may_lose(client):
            pass
        elif step.kind == "x":
            if client in self._stray:
                self._witness("KM-UNHELD")
            self._ingredient("stray")
        elif step.kind == "*" and isinstance(error, asyncio.CancelledError):
            pass  # The cancellation ends the block, and with it the grant.
        elif client in self._releasing:
            self._find("KM-REF", f"client {client} holds {step.key}, and its {step} raised {words}", "KM-LIVE")
        self._over(client)

    def cancelled(self, client: int, *, alone: bool = False) -> None:
        """alone: nobody unlocks meanwhile, so no grant can meet the cancel."""
        step = self._asking.get(client)
        if step is None or client in self._cancelled:
            return
        self._log(client, ENDED_OUTSIDE)
        self._cancelled.add(client)
        self._parked.pop(client, None)
        if step.kind == "!":
            self._ingredient("interrupt")
        elif alone or step.key in self._holder:
            self._ingredient("cancel")
        else:
            self._ingredient("race")

    def failed(self, error: BaseException) -> None:
        self._find("KM-LIVE", f"a callback on the event loop raised {said(error)}, which no caller is told")

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self._quiets += 1
        for client, step in waiting.items():
            self._waits(client, step, overdue)
        if not self.findings and self._counts and not self._stalled:
            self._count(waiting)

    def ended(self, ending: Ending) -> None:
        """The run is over: a client that still waits waits forever (KM-LIVE)."""
        if self.stopped or ending is not Ending.DONE:
            return
        for client in sorted(self._stalled):
            if client in self._asking:
                key = self._asking[client].key
                self._find("KM-LIVE", f"client {client} waits for {key} forever, and nobody holds it", "KM-INDEP")
            else:
                words = f"client {client} waits forever in its call to unlock"
                self._find("KM-INDEP", words, "KM-LIVE", stuck=client)

    # -- the rules -----------------------------------------------------------------------------------------------

    def _granted(self, client: int, step: Step) -> None:
        key = step.key
        holder = self._holder.get(key)
        if holder is not None and not self._contest.granted(key, holder):
            who = "again, and did not let go of it" if holder == client else f"while client {holder} holds it"
            self._find("KM-EXCL", f"client {client} got {key} {who}")
        elif client in self._stalled:
            self._find("KM-INDEP", f"client {client} got {key} only after something else let go, though it was free")
        elif client in self._cancelled and step.kind == "!":
            self._find(
                "KM-INTERRUPT", f"client {client} was interrupted in its wait for {key}, and got it all the same"
            )
        elif key in self._doubtful and step.kind != "?":
            self._find("KM-EXPIRED", _refused_free(self._doubtful.pop(key), key))
        self._in_order(client, step)
        self._holder[key] = client
        leases = self._leases.setdefault(key, {})
        if step.kind == "[" or client in leases:
            leases[client] = step.kind == "["
        self._used.add(key)
        self._witness("KM-EXCL")
        if client in self._parked:
            self._witness("KM-LIVE")
        if step.kind == "?":
            self._witness("KM-EXPIRED")
        if any(held != key and asked.key == held for held in self._holder for asked in self._asking.values()):
            self._witness("KM-INDEP")
        if self._tail:
            for blame in self._ingredients:
                self._witness(BLAME[blame])

    def _in_order(self, client: int, step: Step) -> None:
        for other, rank in self._parked.items():
            if other == client or self._asking[other].key != step.key or self._since[client] < rank:
                continue
            if client in self._parked:
                self._find(
                    "KM-FIFO", f"client {client} got {step.key} before client {other}, who had been waiting for longer"
                )
            else:
                self._find(
                    "KM-HANDOFF", f"client {client}, who came new, got {step.key} while client {other} waits", "KM-FIFO"
                )
        if client in self._parked:
            behind = [other for other in self._parked if self._asking[other].key == step.key]
            newer = [other for other, asked in self._asking.items() if asked.key == step.key]
            if len(behind) > 1:
                self._witness("KM-FIFO")
            if len(newer) > 1:
                self._witness("KM-HANDOFF")

    def _refused(self, client: int, step: Step, error: BaseException, words: str) -> None:
        key = step.key
        over = client in self._cancelled
        if isinstance(error, TIMED_OUT) and step.kind == "?":
            if client in self._alone and self._tail:
                # The next client that asks shows whether the key is lost, or only the try was wrong.
                self._doubtful[key] = client
            elif client in self._alone:
                self._find("KM-EXPIRED", _refused_free(client, key))
            if not self._tail:
                self._witness("KM-EXPIRED")
            self._ingredient("try")
        elif self._holder.get(key) == client:
            pass  # Its own key: it would wait for itself, and a locker may raise.
        elif isinstance(error, TIMED_OUT) and step.kind == "~":
            if not over:
                self._find("KM-EXPIRED", f"client {client} was refused {key} before its time was over")
        elif isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)) and over:
            pass
        elif over and step.kind == "~":
            self._find("KM-CANCEL", f"client {client}'s wait for {key} was cancelled, and it raised {words}")
        else:
            self._find("KM-REF", f"client {client}'s {step} raised {words}", "KM-LIVE")

    def _waits(self, client: int, step: Step, overdue: frozenset[int]) -> None:
        key = step.key
        if step.kind not in ASKING:
            self._stalled.add(client)
        elif step.kind == "?":
            self._find("KM-EXPIRED", f"client {client} waits for {key}, with timeout 0")
        elif client in self._cancelled or client in overdue:
            clause = "KM-INTERRUPT" if step.kind == "!" else "KM-CANCEL"
            self._find(clause, f"client {client} still waits for {key}, though its wait was cancelled")
        elif key not in self._holder:
            if any(other != key for other in self._holder):
                self._stalled.add(client)
            elif stuck := next(iter(self._releasing.items()), None):
                other, of = stuck
                words = f"client {client} waits for {key}, and client {other}'s unlock of {of} is stuck"
                self._find("KM-LIVE", words, stuck=other)
            else:
                self._find("KM-LIVE", f"client {client} waits for {key}, nobody holds it, and nobody can move")
        elif client not in self._parked:
            self._parked[client] = self._quiets

    def _count(self, waiting: Mapping[int, Step]) -> None:
        live = set(self._holder) | {step.key for step in waiting.values()}
        try:
            length = len(self._subject)
        except UncontrolledError:
            if self._counted:
                self._find("KM-INDEP", "len() waits for a lock that a waiter keeps while it waits")
            self.uncountable = not self._counted
            self._counts = False
            return
        except SystemExit:
            self.exited = "len() raised SystemExit"
            return
        except Exception as error:
            self._find("KM-REF", f"len() raised {said(error)}")
            return
        self._counted = True
        self.counted = length
        if length < len(live):
            self._find("KM-REF", f"len() is {length}, and {_keys(live)} held or waited for", hopeless=False)
        elif length > len(live) and "KM-IDLE" not in self._off:
            # A locker that may keep idle entries can have any number of them.
            clause = "KM-REF" if live else "KM-IDLE"
            also = () if clause == "KM-IDLE" else ("KM-IDLE",)
            self._find(clause, f"len() is {length}, and {_keys(live)} held or waited for", *also, hopeless=False)
        if waiting:
            self._witness("KM-REF")
        if not live and self._used:
            self._witness("KM-IDLE")

    def _over(self, client: int) -> None:
        self._asking.pop(client, None)
        self._parked.pop(client, None)
        self._alone.discard(client)
        self._stalled.discard(client)
        self._stray.discard(client)
        self._contest.over(client)
        self._releasing.pop(client, None)


def _refused_free(client: int, key: str) -> str:
    return f"client {client} tried {key}, which was free, and was refused"


def _keys(live: Set[str]) -> str:
    if not live:
        return "no key is"
    return f"{len(live)} key{'s are' if len(live) > 1 else ' is'}"
