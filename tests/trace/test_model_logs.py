"""Runs of the model as logs from inside: the correct model passes, and each broken one whose log can tell fails."""

from __future__ import annotations

import random

import pytest

from kmutex.trace.check import Checker, LogReport
from kmutex.trace.events import Header, Kind, LogEvent, Why
from kmutex_model.actions import CORRECT, Action, Model, action_key
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.state import Config, State, owns

RUNS = 300
STEPS = 30
UNSEEN = {
    "try_waits": "that a try waits is a matter of time, and the log has the order only",
    "never_wakes": "the grant is logged in the step that gives it; that the call never returns is not seen",
    "interrupt_swallowed": "a call that was interrupted and returns looks like one that was not",
}
"""Broken models whose logs can't tell, and why."""


class Log:
    """The lines that a locker would write in its steps, from what the model's clients are told."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.events: list[LogEvent] = []
        self.calls = 0
        self.of: dict[int, int] = {}
        """The call of each client that is not idle."""

    def write(self, kind: Kind, key: int, call: int, state: State, *, why: Why = "", lease: bool = False) -> None:
        entry = state.entries[key]
        refs = 0 if entry is None else entry.refs
        line = len(self.events) + 2
        timeout = 0.0 if kind == "request" and why == "timeout" else None
        why = "" if kind == "request" else why
        self.events.append(LogEvent(line, kind, f"k{key}", call, why, timeout, lease, refs))

    def fresh(self) -> int:
        self.calls += 1
        return self.calls

    def took(self, before: State, action: Action, outcome: str, after: State) -> None:
        key, client = action_key(before, action), action.client
        assert key is not None
        assert client is not None
        had = {
            c: key
            for c in range(self.config.clients)
            for key in range(self.config.keys)
            if owns(before.clients[c], key)
        }
        if action.name in ("request", "try"):
            call = self.of[client] = self.fresh()
            why: Why = "timeout" if action.name == "try" else ""
            if outcome == "timeout":
                # The two lines are one step; the references are those after it, and the call's own before.
                self.events.append(LogEvent(len(self.events) + 2, "request", f"k{key}", call, timeout=0.0))
                self.write("fail", key, call, after, why="timeout")
            else:
                self.write("request", key, call, after, why=why)
        elif outcome in ("cancelled", "interrupted"):
            self.write("fail", key, self.of[client], after, why="cancelled")
        elif action.name == "release":
            self.write("release", key, self.of[client], after)
        elif outcome == "unheld":
            self.write("unheld", key, self.fresh(), after, lease=action.name == "stale_release")
        elif outcome == "released":
            self.write("release", key, self.fresh(), after, lease=action.name == "stale_release")
        for other, now in enumerate(after.clients):
            if now.key is not None and owns(now, now.key) and other not in had:
                if other == client and outcome in ("cancelled", "interrupted"):
                    continue  # It runs on as if it held, and no step gave it the key.
                self.write("grant", now.key, self.of[other], after)


def run(model: Model, config: Config, rng: random.Random) -> list[LogEvent]:
    """A random run as a log; from some step on the clients only come to an end, so that it may become idle."""
    log, state = Log(config), model.initial(config)
    ending = rng.randrange(STEPS)
    for number in range(rng.randrange(1, 2 * STEPS)):
        choices = model.enabled(config, state)
        if number > ending:
            choices = tuple(action for action in choices if action.name in ("wake", "release"))
        if not choices:
            break
        action = rng.choice(choices)
        try:
            step = model.step(config, state, action)
        except AssertionError:
            break  # A broken model that has lost an entry can't go on from there.
        log.took(state, action, step.outcome, step.state)
        state = step.state
    if all(client.phase == "idle" for client in state.clients):
        live = sum(entry is not None for entry in state.entries)
        log.events.append(LogEvent(len(log.events) + 2, "end", keys=live))
    return log.events


def judged(events: list[LogEvent]) -> LogReport:
    checker = Checker(Header("inside", "idle"))
    for event in events:
        checker.feed(event)
    return checker.report()


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("race", ["keep", "pass"])
def test_the_correct_model_passes(race: str, rng: random.Random) -> None:
    """KM-EXCL, KM-REF, KM-IDLE, KM-FIFO, KM-HANDOFF, KM-INDEP, KM-CANCEL, KM-RACE, KM-EXPIRED, KM-UNHELD, KM-TOKEN.

    Each of them is put to the test in some of the runs.
    """
    config = Config(4, 2, race)  # type: ignore[arg-type]
    wanted = {
        *("KM-EXCL", "KM-REF", "KM-IDLE", "KM-FIFO", "KM-HANDOFF", "KM-INDEP"),
        *("KM-CANCEL", "KM-EXPIRED", "KM-UNHELD", "KM-TOKEN", "KM-LIVE", "KM-RACE", "KM-ATOMIC"),
    }
    seen: set[str] = set()
    for number in range(10 * RUNS):
        if number >= RUNS and seen == wanted:
            break
        events = run(CORRECT, config, rng)
        report = judged(events)
        assert (report.verdict.value, report.unknown) == ("pass", ()), (report.findings, events)
        seen |= {row.clause for row in report.clauses if row.outcome.value == "holds"}
    assert seen == wanted


def fails(broken: Broken, rng: random.Random) -> set[str]:
    """The clauses that the first of its runs to violate one violates."""
    for _ in range(20 * RUNS if broken.model.name not in UNSEEN else 2 * RUNS):
        report = judged(run(broken.model, broken.config, rng))
        if report.findings:
            return {finding.clause for finding in report.findings}
    return set()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.model.name}-{broken.clause}")
def test_a_broken_model_fails(broken: Broken, rng: random.Random) -> None:
    """Each known-bad model, but for those whose logs can't tell; KM-LIVE of a starving one shows as KM-FIFO."""
    found = fails(broken, rng)
    if broken.model.name in UNSEEN:
        assert found == set()
    else:
        assert found


def test_the_models_that_logs_cannot_tell_exist() -> None:
    assert set(UNSEEN) < {broken.model.name for broken in BROKEN}
