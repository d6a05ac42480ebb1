"""kmutex prove: its arguments, and running it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmutex._console import complain, console, no_folder, seconds, shown, write
from kmutex.picture.files import HELP, drawn, unfit

if TYPE_CHECKING:
    from rich.console import Console

    from kmutex.selfcheck.proof import Proof
    from kmutex_model.proof.prove import ControlLine, Line

DESCRIPTION = """\
Prove each clause of the contract for the model, with any number of clients and keys, by z3, and by cvc5 too if it is
installed. docs/proof.md explains the proof. The command also checks that every broken model fails an obligation of its
clause, that each part of the invariant is needed, and that relations and model agree on every state up to a bound.
"""
EXIT_STATUS = """\
exit status:
  0  every clause is proved
  1  an obligation is refuted: the clause does not hold; --answer: wrong
  2  inconclusive: unknown, out of time, solvers that differ, a known-bad model that is not refuted
  3  a solver is not installed, or FILE has no lock that can be read
  4  usage: wrong arguments
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    prove: argparse.ArgumentParser = commands.add_parser(
        "prove",
        help="prove the clauses for any number of clients and keys",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    prove.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a lock of your own: its action table, or its relations and moves",
    )
    prove.add_argument(
        "--solver", action="append", choices=("z3", "cvc5"), help="ask only this one; twice for both (all installed)"
    )
    prove.add_argument("--all", action="store_true", help="a line for each obligation")
    prove.add_argument("--known-bad", metavar="NAME", help="one broken model: what refutes it, and the run")
    prove.add_argument("--picture", type=Path, metavar="FILE", help=f"draw the run of --known-bad, {HELP}")
    prove.add_argument("--lesson", type=int, metavar="N", help="find the missing part of the invariant")
    prove.add_argument("--answer", metavar="FORMULA", help="with --lesson: your part, graded by the solver")
    prove.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    prove.add_argument(
        "--seconds",
        type=seconds,
        default=600.0,
        metavar="N",
        help="time limit for FILE (600); it runs in a process with limits, for clumsy code, which are not a sandbox",
    )
    prove.add_argument("--quiet", action="store_true", help="no progress")
    prove.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from kmutex_model.proof.solvers import NoSolverError

    if fault := unfit(args.picture) or no_folder((args.json, args.picture)):
        return complain(fault)
    if args.picture is not None and args.known_bad is None:
        return complain("--picture draws one broken model: name it with --known-bad")
    if args.known_bad is not None and (args.all or args.json):
        return complain("--known-bad shows one broken model; leave out --all and --json")
    if sum(given is not None for given in (args.file, args.known_bad, args.lesson)) > 1:
        return complain("FILE, --known-bad and --lesson are three things; give one")
    if args.answer is not None and args.lesson is None:
        return complain("--answer is to a lesson: give its number with --lesson")
    if args.file is not None and (args.all or args.json):
        return complain("FILE is judged clause by clause; leave out --all and --json")
    try:
        if args.file is not None:
            return _own_table(args)
        if args.lesson is not None:
            return _lesson(args)
        return _prove(args) if args.known_bad is None else _known_bad(args)
    except NoSolverError as error:
        return complain(str(error), status=3)


def _prove(args: argparse.Namespace) -> int:
    from kmutex.selfcheck import proof
    from kmutex.verify.evidence import exit_status
    from kmutex_model.proof.solvers import solvers

    solvers(args.solver)  # Missing solvers are reported before any work.
    with shown(quiet=args.quiet) as display:
        found = proof.whole(args.solver, display.say)
    rows = proof.rows(found)
    status = exit_status(rows)
    fault = write(((args.json, lambda: as_json(found, status)),))
    _show(found, console(), every=args.all)
    for row in rows:
        if row.detail:
            print(f"{row.clause}: {row.result.value}: {row.detail}")
    return complain(fault) if fault else status


def _show(found: Proof, out: Console, *, every: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    lines = found.shown.lines
    table = Table(pad_edge=False, box=SIMPLE_HEAD)
    for column in ("clause", "obligation", "result"):
        table.add_column(column, overflow="fold")
    table.add_column("seconds", justify="right")
    for clause in dict.fromkeys(line.clause for line in lines):
        mine = [line for line in lines if line.clause == clause]
        if every:
            for line in mine:
                step = f": {line.step}" if line.step else ""
                table.add_row(line.clause, line.what + step, line.result, f"{sum(line.seconds.values()):.3f}")
        else:
            table.add_row(clause, f"{len(mine)} obligations", _counted(mine), f"{_seconds(mine):.2f}")
    out.print(table)
    for line in lines:
        if line.counterexample:
            out.print(f"{line.clause}, {line.what}: {line.step}\n  {line.counterexample}", soft_wrap=True, markup=False)
    for part in found.shown.parts:
        said = f"needed for {part.needed_for}" if part.needed_for else "NOT NEEDED"
        out.print(f"part {part.name!r}: {said}", soft_wrap=True, markup=False)
    out.print()
    wrong = [control for control in found.caught if control.fault]
    for control in wrong:
        out.print(f"known-bad {control.model} ({control.clause}): {control.fault}", soft_wrap=True, markup=False)
    tied = found.tied
    out.print(
        f"known-bad models: {len(found.caught) - len(wrong)} of {len(found.caught)} refuted, and the counterexample"
        f" replayed in the model\n"
        f"tie to the model: {tied.states:,} states, {tied.steps:,} steps, {tied.verdicts:,} verdicts,"
        f" {sum(tied.violations.values()):,} of them violations; {len(tied.differences)} differences\n"
        f"{len(lines)} obligations by {' and '.join(found.shown.solvers)}: {_counted(lines)}"
        f" ({found.seconds:.1f} s)",
        soft_wrap=True,
        markup=False,
    )
    for difference in tied.differences[:3]:
        out.print(f"  {difference}", soft_wrap=True, markup=False)
    for fault in found.shown.faults:
        out.print(f"  {fault}", soft_wrap=True, markup=False)


def _counted(lines: Iterable[Line]) -> str:
    results = [line.result for line in lines]
    return ", ".join(f"{results.count(result)} {result}" for result in dict.fromkeys(results))


def _seconds(lines: Iterable[Line]) -> float:
    return sum(sum(line.seconds.values()) for line in lines)


def _own_table(args: argparse.Namespace) -> int:
    from kmutex.selfcheck.own_table import OutOfTimeError, TableError, judged

    try:
        with shown(quiet=args.quiet) as display:
            rows = list(judged(args.file, args.solver, display.say, seconds=args.seconds))
    except TableError as error:
        return complain(str(error), status=3)
    except OutOfTimeError as error:
        return complain(str(error), status=2)
    for row in rows:
        print(f"{row.clause:13} {row.obligations:4} obligations  {row.result:14}  {row.seconds:.2f} s")
        if row.said:
            print(f"  {row.said}")
        if row.run:
            print(f"  {row.run}")
    results = {row.result for row in rows}
    return 1 if "violated" in results else 2 if "not proved" in results else 0


def _lesson(args: argparse.Namespace) -> int:
    from kmutex.teach.missing_part import PUZZLES, FormulaError, grade, parsed, puzzle, rest_of
    from kmutex.teach.missing_part import shown as failing
    from kmutex_model.proof.solvers import solvers

    one = puzzle(args.lesson)
    if one is None:
        return complain(f"there is no lesson {args.lesson}; they are 1 to {len(PUZZLES)}")
    by = solvers(args.solver)
    if args.answer is None:
        print(f"{one.situation}\n\nWhat is left says:")
        for part in rest_of(one):
            print(f"  {part.name}: {part.statement}")
        print(f"\n{failing(one, by)}\n\n{one.question}\n\nkmutex prove --lesson {one.number} --answer 'FORMULA'")
        return 0
    try:
        graded = grade(one, parsed(args.answer), by)
    except FormulaError as error:
        return complain(str(error))
    print(graded.said)
    if graded.counterexample:
        print(f"  {graded.counterexample}")
    return 0 if graded.right else 2 if "did not decide" in graded.said else 1


def _known_bad(args: argparse.Namespace) -> int:
    from kmutex_model.broken import BROKEN
    from kmutex_model.proof.prove import check_controls

    broken = [one for one in BROKEN if one.model.name == args.known_bad]
    if not broken:
        names = ", ".join(dict.fromkeys(one.model.name for one in BROKEN))
        return complain(f"there is no broken model {args.known_bad!r}; they are {names}")
    faults = []
    for number, control in enumerate(check_controls(args.solver, broken)):
        if number:
            print()
        print(f"{control.model}: {control.story}\n{control.clause}: {control.fault or control.obligation}")
        if control.fault:
            return 2
        print(f"  before ({control.size}): {control.before}\n  step: {control.step or '(none)'}\n  {control.said}")
        if control.breaks:
            print(f"  it breaks the invariant: {', '.join(control.breaks)}")
        if fault := _draw(args.picture if number == 0 else None, control):
            faults.append(fault)
    return complain(faults[0]) if faults else 1


def _draw(path: Path | None, control: ControlLine) -> str:
    """Print the run as a timeline, and write it to a file; return an error message, or ""."""
    from kmutex.picture.text import text
    from kmutex.teach.model_timeline import picture
    from kmutex_model.actions import parse_schedule
    from kmutex_model.broken import BROKEN
    from kmutex_model.explore import Counterexample
    from kmutex_model.state import Config

    if not control.run:
        print("  no run of this model leads to that state")
        return "" if path is None else f"{path}: not written, no run leads to that state"
    size, _, race = control.size.partition(" ")
    clients, _, keys = size.partition("x")
    config = Config(int(clients), int(keys), race)  # type: ignore[arg-type]
    model = next(one.model for one in BROKEN if one.model.name == control.model)
    shown_ = picture(model, config, Counterexample(control.clause, parse_schedule(control.run), control.said))
    print(f"\n{text(shown_)}")
    return write(((path, lambda: drawn(shown_, path)),)) if path else ""


def as_json(found: Proof, status: int) -> str:
    """Return the result as JSON, as docs/proof.md describes."""
    from kmutex.verify.evidence import VERDICT

    tied = found.tied
    body = {
        "format": "kmutex-prove/1",
        "exit": status,
        "verdict": VERDICT[status],
        "solvers": list(found.shown.solvers),
        "seconds": round(found.seconds, 3),
        "obligations": [
            {**line._asdict(), "seconds": {name: round(value, 4) for name, value in line.seconds.items()}}
            for line in found.shown.lines
        ],
        "parts": [part._asdict() for part in found.shown.parts],
        "faults": list(found.shown.faults),
        "controls": [{**control._asdict(), "seconds": round(control.seconds, 3)} for control in found.caught],
        "tie": {
            "states": tied.states,
            "steps": tied.steps,
            "verdicts": tied.verdicts,
            "violations": dict(tied.violations),
            "left_out": tied.unsayable,
            "differences": tied.differences,
        },
    }
    return json.dumps(body, indent=2) + "\n"
