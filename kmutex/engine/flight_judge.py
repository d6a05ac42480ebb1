"""The contract of duplicate suppression as an observer: watches one run and names the clause that it breaks.

It sees calls, returns and errors, and from the bench when each run of the work begins and ends, and whose it is:

- Two runs of one key's work at a time break KM-ONE.
- A run has ended for the callers once one of them came back with what it gave, or all is quiet after its end. Who
  calls after that is owed another one (KM-RESULT). Who calls between the work's own end and the moment in which the
  subject notes it may be given it: nobody could tell. On an event loop it is the leader's return that counts, for the
  callbacks of a task that has ended come some steps later, and a caller that fits in between needs no step of its own.
- Who waits when all is quiet waits for the run of its key that goes on. If there is none, a wake-up was lost
  (KM-RETURN), or it waits for another key (KM-APART), which the end of the other key's run tells.
- What a failing leader means to those who wait with it is declared, or found by looking, and then the same in every
  run (KM-LEADER).

Where a failed run or a cancelled follower may be what broke KM-ONE, KM-FORGET or KM-RETURN, the clause of that comes
first, unless a program without it has shown the same.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kmutex._text import said
from kmutex.engine.explorer import Explorer, Level
from kmutex.engine.flight import TaskBench, WorkFailedError, WorkRun, on_the_bench
from kmutex.engine.observer import Ending, UncontrolledError
from kmutex.engine.program import DOING, Step, parse
from kmutex.engine.run_judge import BLAME, RunJudge
from kmutex.engine.shapes import Shape

Policy = Literal["", "takeover", "share"]
"""What the error of a leader's work means to those who wait with it: the next of them runs the work, or all get the
error. Empty: either."""

_UPSET = frozenset({"KM-ONE", "KM-FORGET", "KM-RETURN"})
"""Symptoms that a failed run or a cancelled follower can have caused."""


@dataclass(eq=False)
class _Call:
    step: Step
    born: int
    own: WorkRun | None = None
    """The run of its own work."""
    waited_for: list[WorkRun] = field(default_factory=list)
    """Runs of others that went on while this call waited and all was quiet."""
    cancelled: bool = False
    upset: dict[str, int] = field(default_factory=dict)
    """Who of its key was cancelled during this call, as leader or as follower."""


class FlightJudge(RunJudge):
    """Judges one run of a subject on the bench. An `Observer` and a `Watch`."""

    def __init__(self, *, policy: Policy = "", cancels: bool = False, **of_judge: Any) -> None:
        """policy: what is held to. cancels: whether a cancelled leader may cancel its followers. The rest:
        `RunJudge`."""
        super().__init__(**of_judge)
        self.answered = 0
        """Calls that came back with a result."""
        self.seen: Policy = ""
        """What those who waited with a failing leader were first seen to do."""
        self._policy = policy
        self._cancels = cancels
        self._calls: dict[int, _Call] = {}
        self._going: list[WorkRun] = []
        self._ended: list[WorkRun] = []
        """Runs that are over, and may still be somebody's."""
        self._upset: dict[WorkRun, dict[str, int]] = {}
        """Who was cancelled during a run, as its leader or as a follower."""
        self._loop = False
        self._closed: dict[WorkRun, int] = {}
        """Runs that had ended for the callers, and when."""
        self._forgotten: set[WorkRun] = set()
        """Runs that another may go on beside."""
        self._values: dict[int, object] = {}
        self._clock = 0
        self._disturbed: set[str] = set()
        self._struck = False
        """Whether an interrupt has struck a thread."""

    # -- Observer ------------------------------------------------------------------------------------------------

    def made(self, subject: Any) -> None:
        subject.watch = self
        self._loop = isinstance(subject, TaskBench)
        super().made(subject.subject)

    def called(self, client: int, step: Step) -> None:
        self._clock += 1
        self._log(client, f"{step} ...", "asks" if step.kind in DOING else "calls", step.key)
        if step.kind in DOING:
            self._calls[client] = _Call(step, self._clock)

    def returned(self, client: int, step: Step) -> None:
        if step.kind not in DOING:
            self._log(client, f"{step}: done", "comes back", step.key)
            if step.kind == "g":
                self._forgotten.update(run for run in self._going if run.key == step.key)
            return
        call = self._calls.pop(client)
        run = _run_in(self._values.pop(client, None))
        whose = "something else" if run is None else "its own" if run is call.own else f"client {run.client}'s"
        self._log(client, f"{step}: got {whose}", "comes back" if call.own else "refused", step.key)
        self._delayed(client, call)
        if run is None:
            failed = ("KM-LEADER",) if any(other.how != "ended" for other in call.waited_for) else ()
            self._find("KM-RESULT", f"client {client} did {step.key}, and got what no run of the work gave", *failed)
        elif self._owed(client, call, run, "the result"):
            self.answered += 1
            self._in_vain(client, call)
            if any(other.key == run.key and other is not run for other in self._closed):
                self._witness("KM-RESULT")
            if any(other.key != run.key for other in self._going):
                self._witness("KM-APART")
            self._witness_upset(call)
        self._close(run, call)

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        words = said(error)
        call = self._calls.pop(client, None)
        self._log(client, f"{step}: {words}", "comes back" if call is None or call.own else "refused", step.key)
        if isinstance(error, SystemExit):
            self.exited = f"{step} raised SystemExit"
        if call is None or self.exited:
            return
        self._delayed(client, call)
        run = _run_of(error)
        if run is not None and run is call.own:
            pass
        elif run is not None:
            if self._owed(client, call, run, "the error"):
                self._shared(client, call, run)
        elif not (call.cancelled and isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))):
            self._unowed(client, call, error, words)
        self._close(run, call)

    def cancelled(self, client: int) -> None:
        call = self._calls.get(client)
        if call is None or call.cancelled:
            return
        call.cancelled = True
        key = call.step.key
        runs = [run for run in self._going if run.key == key]
        role = "follower" if any(run is not call.own for run in runs) else "leader"
        self._log(client, "... it is cancelled")
        self._disturbed.add(role)
        self._struck |= not self._loop
        for other in self._calls.values():
            if other is not call and other.step.key == key:
                other.upset.setdefault(role, client)
        for run in runs:
            self._upset.setdefault(run, {}).setdefault(role, client)

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self._clock += 1
        for run in self._ended:
            self._closed.setdefault(run, self._clock)
        for client, step in waiting.items():
            call = self._calls.get(client)
            if call is None:
                continue
            runs = [run for run in self._going if run.key == step.key]
            call.waited_for += [run for run in runs if run is not call.own and run not in call.waited_for]
            if runs:
                continue
            if self._going:
                self._stalled.add(client)
            else:
                self._find("KM-RETURN", f"client {client} waits for {step.key}, of which no run goes on, forever")
        if not self.findings and not self._calls and not self._going:
            self._idle()

    def ended(self, ending: Ending) -> None:
        """The run is over: what is still waiting waits forever (KM-RETURN)."""
        if not self.stopped and ending is Ending.DONE:
            for client in sorted(self._stalled & set(self._calls)):
                self._find("KM-RETURN", f"client {client} waits for {self._calls[client].step.key} forever")

    # -- Watch ---------------------------------------------------------------------------------------------------

    def began(self, run: WorkRun) -> None:
        self._log(run.client, f"work for {run.key} ...", "has", run.key)
        call = self._calls.get(run.client)
        rivals = (other for other in self._going if other.key == run.key and other not in self._forgotten)
        rival = next(rivals, None)
        if rival is not None:
            self._find(
                "KM-ONE",
                f"client {run.client}'s work for {run.key} is run while client {rival.client}'s run of it goes on",
            )
        elif call is not None:
            self._delayed(run.client, call)
            if any(other.how == "failed" for other in call.waited_for):
                self.seen = self.seen or "takeover"
        self._going.append(run)
        if call is not None:
            call.own = run

    def over(self, run: WorkRun) -> None:
        self._log(run.client, f"work for {run.key}: {run.how}", "lets go", run.key)
        self._going.remove(run)
        self._ended.append(run)
        if run.how != "ended":
            self._disturbed.add("leader")
        if any(call.step.key == run.key and client != run.client for client, call in self._calls.items()):
            self._witness("KM-ONE")

    def given(self, client: int, value: object) -> None:
        self._values[client] = value

    # -- what follows --------------------------------------------------------------------------------------------

    def _owed(self, client: int, call: _Call, run: WorkRun, what: str) -> bool:
        """Whether what a run gave is this caller's to have."""
        if run.key != call.step.key:
            self._find("KM-APART", f"client {client} did {call.step.key}, and got {what} of a run for {run.key}")
        elif self._closed.get(run, call.born) < call.born:
            self._find(
                "KM-RESULT", f"client {client} got {what} of a run for {run.key} that had ended before it called"
            )
            # A cache that says it is one has the rest to keep.
            return "KM-RESULT" in self._not_promised
        else:
            return True
        return False

    def _shared(self, client: int, call: _Call, run: WorkRun) -> None:
        """The caller was given another's error."""
        if self._policy == "takeover" and not (run.how == "cancelled" and self._cancels):
            self._find(
                "KM-LEADER",
                f"client {client} got the error of client {run.client}'s work for {run.key}, which the next has to "
                "do anew",
            )
        else:
            self._told_so(call)

    def _told_so(self, call: _Call) -> None:
        """The caller has an error, as is due where those who wait share what the leader gets."""
        self.seen = self.seen or "share"
        if call.waited_for:
            self._witness("KM-LEADER")
            self._witness("KM-RETURN")

    def _in_vain(self, client: int, call: _Call) -> None:
        """The caller has a result; where others' errors are shared, it must not have waited for one of these."""
        failed = next((run for run in call.waited_for if run.how == "failed"), None)
        if failed is not None and self._policy == "share":
            self._find(
                "KM-LEADER",
                f"client {client} waited for client {failed.client}'s work for {failed.key}, which failed, and did not "
                "get its error, as others do",
            )
        elif failed is not None:
            self._witness("KM-LEADER")
        if call.waited_for:
            self._witness("KM-RETURN")

    def _unowed(self, client: int, call: _Call, error: BaseException, words: str) -> None:
        """The caller got an error that no run of the work has raised and that is not its own cancellation."""
        key = call.step.key
        runs = [run for run in (*self._going, *self._ended) if self._closed.get(run, call.born) >= call.born]
        upset = {**call.upset}
        for run in runs:
            upset.update(self._upset.get(run, {}) if run.key == key else {})
        if "leader" in upset or any(run.how == "failed" and run.key == key for run in runs):
            cancelled = isinstance(error, asyncio.CancelledError)
            if self._cancels if cancelled else self._policy != "takeover":
                self._told_so(call)
            else:
                cause = f"client {upset['leader']}, who led, was cancelled" if "leader" in upset else "the work failed"
                self._find("KM-LEADER", f"{cause}, and client {client}'s call for {key} raised {words}")
        elif "follower" in upset:
            cause = f"client {upset['follower']}, who waited for another's work, was cancelled"
            self._find("KM-FOLLOWER", f"{cause}, and client {client}'s call for {key} raised {words}")
        else:
            self._find("KM-RESULT", f"client {client}'s call for {key} raised {words}, and no run of the work failed")

    def _witness_upset(self, call: _Call) -> None:
        for role in call.upset:
            self._witness(BLAME[role])

    def _delayed(self, client: int, call: _Call) -> None:
        """The call goes on; it must not have needed another key's end for that."""
        if client in self._stalled:
            self._stalled.discard(client)
            self._find("KM-APART", f"client {client}'s call for {call.step.key} went on only after another key's work")

    def _close(self, run: WorkRun | None, call: _Call) -> None:
        """A caller came back with what the run gave: for everybody, it has ended."""
        if run is not None and run.how and (run is call.own or not self._loop):
            self._closed.setdefault(run, self._clock)

    def _idle(self) -> None:
        """Nobody calls, and no work is run."""
        if not self._counts or not self._closed:
            return
        try:
            length = len(self._subject)
        except UncontrolledError:
            self._counts, self.uncountable = False, True
        except Exception as error:
            self._find("KM-FORGET", f"len() raised {said(error)}")
        else:
            self._witness("KM-FORGET")
            if length:
                self._find("KM-FORGET", f"len() is {length}, and nobody calls", hopeless=False)

    def _find(self, symptom: str, message: str, *also: str, hopeless: bool = True, promised: bool = True) -> None:
        self._ingredients = self._disturbed if symptom in _UPSET else set()
        # As for locks: what an interrupt leaves behind counts where that is promised.
        excused = self._struck and symptom not in self._known and "KM-INTERRUPT" in self._not_promised
        super()._find(symptom, message, *also, hopeless=hopeless, promised=promised and not excused)


def put_on_trial(
    shape: Shape, make: Callable[[], Any], explorer: Explorer, leaders: Collection[str] = ()
) -> tuple[Shape, Callable[[], Any], Explorer]:
    """The shape of a flight with what is held to, and its factory and its explorer with bench and judge.

    explorer: for the factory as it is. leaders: what is declared, of `features.LEADERS`.
    """
    benched = on_the_bench(make, shape.kind)
    level: Level = "locks" if shape.kind == "threads" else "tasks"
    policy: Policy = "takeover" if "takeover" in leaders else "share" if "share" in leaders else ""
    policy = policy or _policy(explorer.on(benched, judging=FlightJudge), level)
    shape = replace(shape, taken=f"{shape.taken}; when the work fails, {_SAID[policy]}")
    judging = functools.partial(FlightJudge, policy=policy, cancels="cancel" in leaders)
    return shape, benched, explorer.on(benched, judging=judging)


_SAID = {
    "takeover": "the next caller takes over",
    "share": "all who wait for it get the error",
    "": "nothing is held to, for nobody was seen to wait for it and return",
}


def _policy(explorer: Explorer, level: Level) -> Policy:
    """What those who wait with a failing leader are seen to do."""
    last = explorer.every(parse("0fa | 1da | 2ea | 2ea"), level, 0).last
    return last.seen if isinstance(last, FlightJudge) else ""


def _run_in(value: object) -> WorkRun | None:
    """The run that gave this result; it may stand beside remarks, such as whether it was shared."""
    if isinstance(value, WorkRun):
        return value
    parts = value if isinstance(value, (tuple, list)) else getattr(value, "__dict__", {}).values()
    found = [part for part in parts if isinstance(part, WorkRun)]
    return found[0] if len(found) == 1 else None


def _run_of(error: BaseException) -> WorkRun | None:
    """The run that failed with this error, which may be an argument, the cause or the context of what was raised."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or one in seen:
            continue
        if isinstance(one, WorkFailedError):
            return one.run
        seen.append(one)
        todo += [one.__cause__, one.__context__, *(arg for arg in one.args if isinstance(arg, BaseException))]
    return None
