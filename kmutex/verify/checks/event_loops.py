"""A second event loop, and a wait that is dropped: KM-LOOP and KM-CANCEL on real loops of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from kmutex._text import said
from kmutex.engine.faces import settled
from kmutex.engine.run_judge import Event
from kmutex.engine.threads.clients import real_start_new_thread
from kmutex.engine.timeline import timeline
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

NAP = 1.0
"""Real seconds for which a locker may sleep on a real loop before it counts as waiting."""


def loops(context: Context, outcome: UnitResult) -> None:
    """KM-LOOP: use from a second event loop raises, whether or not the call would wait, while the first loop runs (in
    another thread) and while keys are held in it. In any other case, a refusal gives a remark."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        outcome.runs = 3
        outcome.bound = "2 event loops: a free key while the first runs, a held one when it has ended, an idle one then"
        outcome.complete = True
        free, left_free, at_free = _other_loop(context, first, second, contended=False)
        busy, left_busy, at_busy = _other_loop(context, first, second, contended=True)
        more = ""
        if context.whole and isinstance(free, Exception):
            more = _given_back_elsewhere(context, first, second)
        later = _next_loop(context, first, second)
    finally:
        for loop in (first, second):
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
    if not isinstance(busy, Exception):
        does = "got the key" if busy == "got" else "waits in the second loop, which nothing will wake"
        message = f"a call from a second loop, for a key that is held, does not raise: it {does}"
        _loop_finding(context, outcome, message, at_busy)
    elif left := left_free or left_busy:
        seen = at_free if left_free else at_busy
        _loop_finding(context, outcome, f"a call from a second loop is refused, {left}", seen, "KM-ATOMIC")
    elif more:
        _loop_finding(context, outcome, more, at_free)
    elif isinstance(free, Exception):
        outcome.witnesses["KM-LOOP"] += 2
    elif _own(busy):
        message = "a call from a second loop, while the first runs, raises where it would wait, but takes a free key"
        _loop_finding(context, outcome, message, at_free)
    else:
        # Not counted as a case: half of the clause does not hold, so the row must not read "holds".
        outcome.notes.append(
            ("KM-LOOP", "left to asyncio's own primitives, which raise where they would wait; a free key is taken")
        )
    if isinstance(later, Exception):
        words = "an idle one is refused in the next loop, such as that of a second asyncio.run, after its own has ended"
        outcome.notes.append(("KM-LOOP", words))


def unstarted(context: Context, outcome: UnitResult) -> None:
    """KM-CANCEL: a task that is cancelled before its first step has not asked for the key; a task whose coroutine is
    closed in its wait, as at the end of a loop, no longer waits."""
    loop = asyncio.new_event_loop()

    async def never_began() -> str:
        subject, keys = context.make(), context.explorer.keys_of_a_run()
        asyncio.ensure_future(subject.lock(keys("a"))).cancel()
        await _settle()
        task = asyncio.ensure_future(subject.lock(keys("a")))
        await _settle()
        got = task.done() and task.exception() is None
        task.cancel()
        await _settle()
        return "" if got else "a task was cancelled before its first step, and its key is not free"

    async def closed() -> str:
        subject, keys = context.make(), context.explorer.keys_of_a_run()
        key = keys("a")
        await subject.lock(key)
        before = _live(context, subject)
        waiting = subject.lock(key)
        # Nobody awaits its future: it must never continue.
        waiting.send(None)
        waiting.close()
        await _settle()
        if _live(context, subject) != before:
            return f"a coroutine that waited was closed, and len() has gone from {before} to {_live(context, subject)}"
        task = asyncio.ensure_future(subject.lock(key))
        await _settle()
        await settled(subject.unlock(key))
        await _settle()
        got = task.done() and task.exception() is None
        task.cancel()
        await _settle()
        return "" if got else "a coroutine that waited was closed, and its key is not granted to those behind it"

    try:
        message = loop.run_until_complete(never_began())
        if not message and context.whole:
            message = loop.run_until_complete(closed())
    finally:
        loop.close()
    outcome.runs = 2 if context.whole else 1
    outcome.complete = True
    outcome.bound = "a task that never began" + (", and one whose coroutine is closed" if context.whole else "")
    if message:
        outcome.found.append(Violation(("KM-CANCEL",), message, symptom="KM-CANCEL"))
    else:
        outcome.witnesses["KM-CANCEL"] += 1


def _loop_finding(context: Context, outcome: UnitResult, message: str, seen: list[Event], *better: str) -> None:
    """Note a finding. ``better`` has clauses that name it better than KM-LOOP."""
    clauses = (*better, "KM-LOOP")
    events = (*seen, Event(-1, f"{clauses[0]}: {message}"))
    violation = Violation(clauses, message, picture=timeline(events), symptom="KM-LOOP", events=events)
    (outcome.unpromised if "KM-LOOP" in context.unpromised else outcome.found).append(violation)


def _other_loop(
    context: Context, first: asyncio.AbstractEventLoop, second: asyncio.AbstractEventLoop, *, contended: bool
) -> tuple[Exception | str, str, list[Event]]:
    """Call the subject from a second loop after the first has used it.

    Returns:
        The result of the call (its error, "got" or "waits"); a message about traces of a call that the subject refused,
        or ""; and the events, where clients 0 and 1 are of the first loop, and 2 of the second.
    """
    seen: list[Event] = []
    keys = context.explorer.keys_of_a_run()
    key, asked = keys("a"), keys("a" if contended else "b")
    waiting: list[asyncio.Future[Any]] = []

    async def begin() -> Any:
        subject = context.make()
        await subject.lock(key)
        seen.append(Event(0, "first loop: lock a: got it", "has", "a"))
        if contended:
            waiting.extend(asyncio.ensure_future(subject.lock(key)) for _ in range(2))
            seen.append(Event(1, "first loop: lock a ...", "asks", "a"))
            await _settle()
        else:
            await settled(subject.unlock(key))
            seen.append(Event(0, "first loop: unlock a: done", "lets go", "a"))
        return subject, _live(context, subject)

    async def call(subject: Any) -> None:
        # If lock() is a plain function, it may raise before there is an awaitable.
        await subject.lock(asked)

    async def ask(subject: Any) -> Exception | str:
        letter = "a" if contended else "b"
        seen.append(Event(2, f"second loop: lock {letter} ...", "asks", letter))
        task = asyncio.ensure_future(call(subject))
        await _settle()
        if not task.done():
            task.cancel()
            return "waits"
        error = task.exception()
        refused = isinstance(error, Exception)
        told = f"raised {type(error).__name__}" if refused else "got it"
        seen.append(Event(2, f"second loop: lock {letter}: {told}", "refused" if refused else "has", letter))
        return error if isinstance(error, Exception) else "got"

    async def left(subject: Any, before: int) -> str:
        try:
            if (now := _live(context, subject)) != before:
                return f"and len() has gone from {before} to {now}"
            for _ in (*waiting, key) if contended else ():
                await settled(subject.unlock(key))
                await _settle()
            task = asyncio.ensure_future(subject.lock(asked))
            await _settle()
            if not task.done():
                task.cancel()
                return "and its key is not free when all have released"
            task.result()
            await settled(subject.unlock(asked))
        except Exception as error:
            return f"and then a call from the first loop raises {said(error)}"
        return ""

    async def while_it_runs() -> tuple[Exception | str, str, list[Event]]:
        subject, before = await begin()
        answer = await _elsewhere(second, ask(subject))
        return answer, await left(subject, before) if _refused(answer) else "", seen

    if not contended:
        return first.run_until_complete(while_it_runs())
    subject, before = first.run_until_complete(begin())
    try:
        answer = second.run_until_complete(ask(subject))
        return answer, first.run_until_complete(left(subject, before)) if _refused(answer) else "", seen
    finally:
        # A task that is cancelled is kept by its loop; one that just waits may be collected, and asyncio complains.
        for task in waiting:
            task.cancel()


def _next_loop(
    context: Context, first: asyncio.AbstractEventLoop, second: asyncio.AbstractEventLoop
) -> Exception | None:
    """Call from the second loop when the first has ended and no key is held; return the error, or None."""
    key = context.explorer.keys_of_a_run()("a")
    made: list[Any] = []

    async def use() -> None:
        made.append(made[0] if made else context.make())
        await made[0].lock(key)
        await settled(made[0].unlock(key))

    first.run_until_complete(asyncio.wait_for(use(), NAP))
    try:
        second.run_until_complete(asyncio.wait_for(use(), NAP))
    except Exception as error:
        return error
    return None


async def _elsewhere(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Exception | str]) -> Exception | str:
    """Run the call in that loop, in another thread, while this loop runs."""
    here, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def run() -> None:
        given = loop.run_until_complete(call)
        here.call_soon_threadsafe(answer.set_result, given)

    real_start_new_thread(run, ())
    given: Exception | str = await answer
    return given


def _refused(answer: Exception | str) -> bool:
    return isinstance(answer, Exception) and _own(answer)


def _given_back_elsewhere(context: Context, first: asyncio.AbstractEventLoop, second: asyncio.AbstractEventLoop) -> str:
    """Release a key of the first loop in the second; return what is wrong, or ""."""
    keys = context.explorer.keys_of_a_run()
    key = keys("a")

    async def begin(lease: bool) -> tuple[Any, Any]:
        subject = context.make()
        if not lease:
            await subject.lock(key)
            return subject, None
        block = subject.hold(key)
        return block, await block.__aenter__()

    async def refused(end: Callable[[], Any]) -> bool:
        try:
            await settled(end())
        except Exception:
            return True
        return False

    async def ends(end: Callable[[], Any]) -> None:
        await settled(end())

    subject, _ = first.run_until_complete(begin(lease=False))
    wrong: list[tuple[str, Callable[[], Any]]] = [("an unlock", lambda: subject.unlock(key))]
    if context.shape.leases:
        block, lease = first.run_until_complete(begin(lease=True))
        wrong += [("the release of a lease", lambda: lease.release())]
        wrong += [("the end of a block", lambda: block.__aexit__(None, None, None))]
    for name, end in wrong:
        if not second.run_until_complete(refused(end)):
            return f"{name} in a second loop does not raise"
    for _, end in (wrong[0], wrong[-1]):
        try:
            first.run_until_complete(ends(end))
        except Exception as error:
            return f"what was refused in a second loop is lost to the first: {said(error)}"
    return ""


def _live(context: Context, subject: Any) -> int:
    try:
        return len(subject) if context.shape.counts else 0
    except Exception:
        return 0  # The other runs ask for len() too, and report its error.


async def _settle() -> None:
    """Let all tasks run until they wait, including those in a short sleep."""
    loop = asyncio.get_running_loop()
    end = loop.time() + NAP

    def asleep() -> bool:
        return not all(timer.cancelled() for timer in getattr(loop, "_scheduled", ()))

    awake = 0
    while awake < 20 and loop.time() < end:
        await asyncio.sleep(0)
        # Start counting again after each sleep: a task that was just woken has steps of its own.
        awake = 0 if asleep() else awake + 1


def _own(error: Exception) -> bool:
    """Return whether the error was raised by the subject's code, not by asyncio's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or "asyncio" not in trace.tb_frame.f_code.co_filename.replace("\\", "/").split("/")
