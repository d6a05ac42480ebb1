"""The contract of duplicate suppression as an observer: it watches one run and names the clause that is broken.

It sees calls, returns and errors, and when each run of the work begins and ends, and whose work it is:

- Two runs of one key's work at a time break KM-ONE.
- For the callers, a run has ended once one of them returned with its result, or in a quiescent state after its end. A
  call after that needs a new run (KM-RESULT). A call between the end of the work and the subject's note of it may get
  the old result: nobody could tell the difference. On an event loop, the leader's return counts: the callbacks of an
  ended task come some steps later, and a caller in between needs no step of its own.
- In a quiescent state, a waiting call waits for the present run of its key. If there is no such run, a wake-up was lost
  (KM-RETURN), or the call waits for another key (KM-APART), as the end of the other key's run then shows.
- The effect of a failing leader on the calls that wait with it is declared or found by a trial, and must then be the
  same in every run (KM-LEADER).

If a failed run or a cancelled follower may be the cause of a broken KM-ONE, KM-FORGET or KM-RETURN, the clause about
that comes first, unless a program without it shows the same symptom.
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
"""The effect of an error of the leader's work on the calls that wait with it: the next one runs the work, or all get
the error. Empty: either."""

_UPSET = frozenset({"KM-ONE", "KM-FORGET", "KM-RETURN"})
"""Symptoms that a failed run or a cancelled follower can cause."""


@dataclass(eq=False)
class _Call:
    step: Step
    born: int
    own: WorkRun | None = None
    """The run of its own work."""
    waited_for: list[WorkRun] = field(default_factory=list)
    """Runs of others during a quiescent state in which this call waited."""
    cancelled: bool = False
    upset: dict[str, int] = field(default_factory=dict)
    """Clients of its key that were cancelled during this call, by role: leader or follower."""


class FlightJudge(RunJudge):
    """Judges one run of a single flight. An `Observer` and a `Watch`."""

    def __init__(self, *, policy: Policy = "", cancels: bool = False, **of_judge: Any) -> None:
        """Judge one run.

        Args:
            policy: The required effect of a failing leader.
            cancels: Whether a cancelled leader may cancel its followers.
            of_judge: The arguments of `RunJudge`.
        """
        super().__init__(**of_judge)
        self.answered = 0
        """The number of calls that returned a result."""
        self.seen: Policy = ""
        """The first observed effect of a failing leader."""
        self._policy = policy
        self._cancels = cancels
        self._calls: dict[int, _Call] = {}
        self._going: list[WorkRun] = []
        self._ended: list[WorkRun] = []
        """Runs that are over, whose result a caller may still get."""
        self._upset: dict[WorkRun, dict[str, int]] = {}
        """Clients that were cancelled during a run, by role: leader or follower."""
        self._loop = False
        self._closed: dict[WorkRun, int] = {}
        """Runs that have ended for the callers, and when."""
        self._forgotten: set[WorkRun] = set()
        """Runs that were forgotten, so that another may overlap with them."""
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
        """The run is over: a call that still waits waits forever (KM-RETURN)."""
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

    # -- the rules -----------------------------------------------------------------------------------------------

    def _owed(self, client: int, call: _Call, run: WorkRun, what: str) -> bool:
        """Check that this caller may get the outcome of a run; return whether it may."""
        if run.key != call.step.key:
            self._find("KM-APART", f"client {client} did {call.step.key}, and got {what} of a run for {run.key}")
        elif self._closed.get(run, call.born) < call.born:
            self._find(
                "KM-RESULT", f"client {client} got {what} of a run for {run.key} that had ended before it called"
            )
            # A declared cache is still judged by the other clauses.
            return "KM-RESULT" in self._not_promised
        else:
            return True
        return False

    def _shared(self, client: int, call: _Call, run: WorkRun) -> None:
        """Judge a caller that got another caller's error."""
        if self._policy == "takeover" and not (run.how == "cancelled" and self._cancels):
            self._find(
                "KM-LEADER",
                f"client {client} got the error of client {run.client}'s work for {run.key}, which the next has to "
                "do anew",
            )
        else:
            self._told_so(call)

    def _told_so(self, call: _Call) -> None:
        """Judge a caller that got an error, as is right if waiters share the leader's outcome."""
        self.seen = self.seen or "share"
        if call.waited_for:
            self._witness("KM-LEADER")
            self._witness("KM-RETURN")

    def _in_vain(self, client: int, call: _Call) -> None:
        """Judge a caller with a result: if errors are shared, it must not have waited for a run that failed."""
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
        """Judge an error that no run of the work has raised and that is not the caller's own cancellation."""
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
        """Judge a call that continues: it must not have waited for the end of another key's run."""
        if client in self._stalled:
            self._stalled.discard(client)
            self._find("KM-APART", f"client {client}'s call for {call.step.key} went on only after another key's work")

    def _close(self, run: WorkRun | None, call: _Call) -> None:
        """Note that a caller returned with the outcome of a run, which has then ended for all callers."""
        if run is not None and run.how and (run is call.own or not self._loop):
            self._closed.setdefault(run, self._clock)

    def _idle(self) -> None:
        """Check len() when there is no call and no run."""
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

    def _find(
        self, symptom: str, message: str, *also: str, hopeless: bool = True, promised: bool = True, stuck: int = -1
    ) -> None:
        self._ingredients = self._disturbed if symptom in _UPSET else set()
        # As for locks: traces of an interrupt count only if that is promised.
        excused = self._struck and symptom not in self._known and "KM-INTERRUPT" in self._not_promised
        super()._find(symptom, message, *also, hopeless=hopeless, promised=promised and not excused, stuck=stuck)


def put_on_trial(
    shape: Shape, make: Callable[[], Any], explorer: Explorer, leaders: Collection[str] = ()
) -> tuple[Shape, Callable[[], Any], Explorer]:
    """Return the shape of a single flight with its policy, the factory that a run can drive, and its explorer.

    ``explorer`` is that of the original factory; ``leaders`` are the declared names of `features.LEADERS`.
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
    "": "nothing is required, since no call was seen to wait for it and return",
}


def _policy(explorer: Explorer, level: Level) -> Policy:
    """Find out by runs what the effect of a failing leader is."""
    last = explorer.every(parse("0fa | 1da | 2ea | 2ea"), level, 0).last
    return last.seen if isinstance(last, FlightJudge) else ""


def _run_in(value: object) -> WorkRun | None:
    """Return the run of this result, which may be in a tuple with remarks, such as whether it was shared."""
    if isinstance(value, WorkRun):
        return value
    parts = value if isinstance(value, (tuple, list)) else getattr(value, "__dict__", {}).values()
    found = [part for part in parts if isinstance(part, WorkRun)]
    return found[0] if len(found) == 1 else None


def _run_of(error: BaseException) -> WorkRun | None:
    """Return the run that failed with this error, its argument, its cause or its context."""
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
