"""The model explored, and every model that is known to be bad.

A clause holds here only if three things are so. The correct model satisfies it in every reachable state. Each
situation that must occur ("sometimes") was met, so that the clause was put to the test. And each known-bad model
of the clause is caught, so that the check can tell. Where the last two fail, nothing is known: inconclusive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kmutex.selfcheck.comparison import bound_text
from kmutex.verify.evidence import Result, Row, Violation
from kmutex_model import flight, several
from kmutex_model.actions import CORRECT, Machine, format_schedule
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import Counterexample, Exploration, explore
from kmutex_model.properties import ALL, Property
from kmutex_model.state import Config, Race

METHOD = "model"
BOUNDS: tuple[tuple[int, int], ...] = ((4, 2), (3, 3))
"""Clients and keys. Four clients are the fewest with a waiter in the middle of a queue."""
MOST_STATES_OF_BAD = 2_000
"""States after which a known-bad model counts as not caught: unseen, its mistake may make the states endless."""
RACES: tuple[Race, ...] = ("keep", "pass")
LEADERS: tuple[flight.Leader, ...] = ("takeover", "share")


def _both_races(clients: int, keys: int) -> list[Config]:
    return [Config(clients, keys, race) for race in RACES]


def check(
    on_progress: Callable[[str], None] | None = None,
    *,
    model: Machine = CORRECT,
    properties: Sequence[Property] = ALL,
    known_bad: Sequence[Broken | flight.BrokenFlight | several.BrokenSeveral] = BROKEN,
    bounds: Sequence[tuple[int, int]] = BOUNDS,
    configs: Callable[[int, int], Sequence[Config | flight.FlightConfig]] = _both_races,
    each: str = "both races",
    max_states: int | None = None,
) -> list[Row]:
    """Return one row for each property. `cases` counts the steps on which it was checked.

    ``configs`` gives the configurations for a bound of clients and keys, which ``each`` describes. An exploration that
    reaches ``max_states`` is inconclusive.
    """
    say = on_progress or (lambda text: None)
    found = []
    for clients, keys in bounds:
        for config in configs(clients, keys):
            say(f"model, {bound_text([(clients, keys)])}, {config[2]}")
            found.append(explore(model, config, properties=properties, max_states=max_states))
    rows = []
    for prop in properties:
        started = time.perf_counter()
        say(f"known-bad models of {prop.clause}")
        mine = [broken for broken in known_bad if broken.clause == prop.clause]
        missed = [broken.model.name for broken in mine if not _caught(broken, properties)]
        spent = sum(exploration.seconds for exploration in found) + time.perf_counter() - started
        rows.append(_row(prop, found, mine, missed, f"{bound_text(bounds)}, {each}", spent))
    return rows


def check_flights() -> list[Row]:
    """The same of duplicate suppression."""
    return check(
        model=flight.FLIGHT,
        properties=flight.ALL,
        known_bad=flight.BROKEN,
        configs=lambda clients, keys: [flight.FlightConfig(clients, keys, leader) for leader in LEADERS],
        each="shared and taken over",
    )


def check_several() -> list[Row]:
    """The same of several keys at once."""
    return check(model=several.SEVERAL, properties=several.ALL, known_bad=several.BROKEN)


def _caught(broken: Broken | flight.BrokenFlight | several.BrokenSeveral, properties: Sequence[Property]) -> bool:
    judged_by = {prop.clause for prop in broken.judged_by}
    judges = [prop for prop in properties if prop.clause in judged_by]
    found = explore(broken.model, broken.config, properties=judges, max_states=MOST_STATES_OF_BAD)
    return any(violation.clause == broken.clause for violation in found.violations)


def _row(
    prop: Property,
    found: Sequence[Exploration],
    known_bad: Sequence[Broken | flight.BrokenFlight | several.BrokenSeveral],
    missed: Sequence[str],
    bound: str,
    seconds: float,
) -> Row:
    states, steps = sum(e.states for e in found), sum(e.transitions for e in found)
    complete = all(e.complete for e in found)
    violations = [(e.config, v) for e in found for v in e.violations if v.clause == prop.clause]
    met = {name for e in found for name in e.witnesses}
    unmet = [s.statement for s in prop.sometimes if (prop.clause, s.statement) not in met]
    unmet += [statement for e in found for clause, statement in e.missing if clause == prop.clause]
    result, detail = Result.INCONCLUSIVE, ""
    if violations:
        result, detail = Result.VIOLATED, violations[0][1].message
    elif not found or not complete:
        detail = "the exploration is not complete"
    elif not prop.sometimes or unmet:
        detail = f"never met: {unmet[0]}" if unmet else "it names no situation that must be met"
    elif not known_bad or missed:
        detail = f"not caught: {', '.join(missed)}" if missed else "there is no known-bad model of it"
    else:
        result = Result.HOLDS
    words = [
        bound,
        f"{states:,} states",
        f"{steps:,} steps",
        "complete" if complete else "not complete",
        f"{len(known_bad) - len(missed)} of {len(known_bad)} known-bad caught",
    ]
    return Row(
        clause=prop.clause,
        method=METHOD,
        bound=", ".join(words),
        cases=steps,
        result=result,
        seconds=seconds,
        detail=detail,
        subject="kmutex_model",
        violations=tuple(_violation(config, violation) for config, violation in violations[:1]),
    )


def _violation(config: Config | flight.FlightConfig, found: Counterexample) -> Violation:
    clients, keys, how = config
    run = f"{clients}x{keys} {how}: {format_schedule(found.path)}"
    if found.cycle is not None:
        run += f"; and forever: {format_schedule(found.cycle) or 'nothing'}"
    return Violation((found.clause,), f"{found.message} ({run})")
