"""`python -m kmutex_model`: explore the correct model and every broken one, and print what was found.

With `--bound 8x3` it explores the correct model at that bound only, and says how far it is.

The correct model must hold at every bound, and every broken one must violate the clause it is there for.
Exit code: 0 if so, 1 if not, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from kmutex_model import flight, several
from kmutex_model.actions import CORRECT, Machine, format_schedule
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import Exploration, Progress, explore
from kmutex_model.properties import ALL, Property
from kmutex_model.state import Config, Race

BOUNDS: tuple[tuple[int, int], ...] = ((1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2), (3, 3))
"""Clients and keys. Four clients are the fewest with a waiter in the middle of a queue."""
RACES: tuple[Race, ...] = ("keep", "pass")

_ROW = "{:<25} {:<12} {:>7} {:>12} {:>6}  {:<20} {:>8}"


def _bound(config: Config | flight.FlightConfig) -> str:
    clients, keys, how = config
    return f"{clients}x{keys} {how}"


def _row(found: Exploration, verdict: str) -> str:
    seconds = f"{found.seconds:.2f}"
    return _ROW.format(
        found.model.name, _bound(found.config), found.states, found.transitions, found.depth, verdict, seconds
    ).rstrip()


def _parse_bound(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a bound such as 4x2: clients and keys, each from 1 to 99")
    return int(match[1]), int(match[2])


def _explore_one(clients: int, keys: int, *, symmetry: bool) -> int:
    properties = [prop for prop in ALL if not (symmetry and prop.eventually)]

    def say(progress: Progress) -> None:
        if sys.stderr.isatty():
            done = f"depth {progress.depth}: {progress.states} states, {progress.transitions} transitions"
            print(f"\r{done}", end="", file=sys.stderr, flush=True)

    print(_ROW.format("model", "bound", "states", "transitions", "depth", "verdict", "seconds"))
    wrong = 0
    for race in RACES:
        config = Config(clients, keys, race)
        found = explore(CORRECT, config, properties=properties, on_progress=say, symmetry=symmetry)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        print(_row(found, found.verdict))
        wrong += bool(found.violations) or not found.complete
        for violation in found.violations:
            print(f"  {violation}")
        for clause, statement in found.missing:
            print(f"  {clause}: never met: {statement}")
    if symmetry:
        print("States that differ by the numbers of clients and keys only are counted once. KM-LIVE is not judged.")
    return 1 if wrong else 0


def _table(
    correct: Machine,
    configs: Sequence[Config | flight.FlightConfig],
    known_bad: Sequence[Broken | flight.BrokenFlight | several.BrokenSeveral],
    properties: Sequence[Property],
    runs: bool,
) -> int:
    """Print what a correct model and its broken ones show; how much of it is not as expected."""
    wrong = 0

    print(_ROW.format("model", "bound", "states", "transitions", "depth", "verdict", "seconds"))
    met: dict[tuple[str, str], tuple[str, str]] = {}
    for config in configs:
        found = explore(correct, config, properties=properties)
        print(_row(found, found.verdict))
        wrong += found.verdict != "holds"
        for violation in found.violations:
            print(f"  {violation}")
        for clause, statement in found.missing:
            print(f"  {clause}: never met: {statement}")
        for name, path in found.witnesses.items():
            met.setdefault(name, (_bound(config), format_schedule(path)))

    print()
    print(_ROW.format("broken model", "bound", "states", "transitions", "depth", "violates", "seconds"))
    for broken in known_bad:
        found = explore(broken.model, broken.config, properties=broken.judged_by)
        first = next((v for v in found.violations if v.clause == broken.clause), None)
        print(_row(found, first.clause if first else f"not {broken.clause}!"))
        wrong += first is None
        if runs and first:
            print("  " + str(first).replace("\n", "\n  "))
    print("The search does not go past a violation, so the counts of a broken model are of what comes before.")

    print()
    for prop in properties:
        print(f"{prop.clause:<13} {prop.statement}")
        for situation in prop.sometimes:
            bound, run = met.get((prop.clause, situation.statement), ("", ""))
            wrong += not run
            print(f"{'':<13} sometimes {situation.statement}: {f'met at {bound}' if run else 'NEVER MET'}")
            if runs and run:
                print(f"{'':<13}   {run}")

    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 0 if every model did as expected, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m kmutex_model", description="Explore the correct model and every broken one."
    )
    parser.add_argument("--runs", action="store_true", help="print the counterexamples and the witnesses too")
    parser.add_argument(
        "--bound", type=_parse_bound, metavar="CLIENTSxKEYS", help="explore the correct model there only"
    )
    parser.add_argument(
        "--symmetry",
        action="store_true",
        help="with --bound: look at one of all states that differ by numbers only; KM-LIVE is then not judged",
    )
    options = parser.parse_args(arguments)
    if options.symmetry and not options.bound:
        parser.error("--symmetry needs a --bound")
    if options.bound:
        return _explore_one(*options.bound, symmetry=options.symmetry)
    wrong = _table(CORRECT, [Config(*bound, race) for bound in BOUNDS for race in RACES], BROKEN, ALL, options.runs)
    print()
    print("Duplicate suppression:")
    print()
    leaders: tuple[flight.Leader, ...] = ("takeover", "share")
    configs = [flight.FlightConfig(*bound, leader) for bound in BOUNDS for leader in leaders]
    wrong += _table(flight.FLIGHT, configs, flight.BROKEN, flight.ALL, options.runs)

    print()
    print("Several keys at once; a set of keys is a number whose bits are its keys:")
    print()
    sizes = [Config(*bound, race) for bound in BOUNDS for race in RACES]
    wrong += _table(several.SEVERAL, sizes, several.BROKEN, several.ALL, options.runs)

    print()
    print("all as expected" if not wrong else f"{wrong} not as expected")
    return 0 if not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
