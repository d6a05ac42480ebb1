"""What each clause rests on: docs/evidence.md, made from what the checks say of themselves.

    python -m tests.house.evidence            # print the page
    python -m tests.house.evidence --write    # write it

Exit code: 0; 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from kmutex._clauses import CLAUSES
from kmutex.selfcheck import driver_refinement, model, refinement
from kmutex_model import several
from kmutex_model.actions import CORRECT
from kmutex_model.broken import BROKEN
from kmutex_model.proof import prove
from kmutex_model.proof.obligations import GHOST, INVARIANT, obligations
from kmutex_model.proof.tie import BOUNDS
from tests.house.clauses import load

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "evidence.md"
HEAD = """\
# What each clause rests on

<!-- skip: next "tests/house/test_evidence.py runs it" -->
```sh
python -m tests.house.evidence --write    # makes this page; a test fails where it is not up to date
```

Four kinds of evidence, the strongest first. *Proved*: for any number of clients and keys, by a solver. *Exhaustive*:
every state, step or schedule up to a stated bound. *Sampled*: some of many, chosen at
random or up to a time. *Recorded*: tests of single situations. Nothing here says more than its command does when it is
run: [verify.md](verify.md) and [proof.md](proof.md) explain what each covers.

The chain of a clause leads from the proof to what runs: proof - model - TLA+ - lock table - driver. It is as strong as
its weakest link, which the table names.

KM-ALL and the clauses of single flights (`KM-ONE` and on) are not proved: they have a model that is explored, and runs.

Commands: `kmutex prove` for what is proved; `kmutex verify` for model, lock table, rules, drivers and what is sampled;
`nox -s tlc` for TLC; the tests in [clauses.md](clauses.md) for what is recorded.

| clause | proved for any size, of the model | exhaustive to a bound | sampled | recorded | weakest link |
|---|---|---|---|---|---|
"""


def _sizes(bounds: object) -> str:
    return ", ".join(f"{clients} x {keys}" for clients, keys in bounds)  # type: ignore[attr-defined]


def row(clause: str, counts: dict[str, int]) -> str:
    """The line of a clause."""
    manifest = load("specs/tlc.toml")
    tlc = _sizes((bound["clients"], bound["keys"]) for bound in manifest["holds"]["bounds"])
    proved, exhaustive = "no", []
    if clause in prove.CLAUSES:
        known_bad = sum(broken.clause == clause for broken in BROKEN)
        proved = f"{counts[clause]} obligations, {known_bad} known-bad refuted"
        exhaustive += [f"model {_sizes(model.BOUNDS)}", f"TLC {tlc}"]
    if clause == several.KM_ALL.clause:
        exhaustive.append(f"model {_sizes(model.BOUNDS)}")
    if clause in refinement.CLAUSES:
        exhaustive.append(
            f"lock table {_sizes(refinement.BOUNDS)}, all allowed states {_sizes(refinement.ALLOWED_BOUNDS)}"
        )
    if any(clause in clauses for clauses in refinement.RULE_CLAUSES.values()):
        exhaustive.append("rules of an entry, by CrossHair")
    if clause in driver_refinement.CLAUSES:
        exhaustive.append(f"drivers {_sizes(driver_refinement.BOUNDS)}, default schedule")
    if exhaustive:
        exhaustive.append("drivers, interleavings of short programs")
    sampled = "drivers, random programs and schedules" if exhaustive else "no"
    cells = [clause, proved, "; ".join(exhaustive) or "no", sampled, "[tests](clauses.md)", weakest(clause)]
    return f"| {' | '.join(cells)} |"


def weakest(clause: str) -> str:
    """Where the chain of a clause is weakest."""
    if clause == several.KM_ALL.clause:
        return "model to driver: interleavings up to a bound, nothing step by step"
    if clause not in prove.CLAUSES:
        return "there is no model of it: single situations on the drivers only"
    if clause in driver_refinement.CLAUSES and clause in refinement.CLAUSES:
        return "table to driver: between two quiescent states, interleavings up to a bound"
    if clause in refinement.CLAUSES:
        return "table to driver: interleavings up to a bound, and no comparison step by step"
    if clause in driver_refinement.CLAUSES:
        return "model to driver: the table has no part in it"
    return "model to driver: interleavings up to a bound, nothing step by step"


def tail(counts: dict[str, int]) -> Iterator[str]:
    """What stands below the table."""
    manifest = load("specs/tlc.toml")["inductive"]["bounds"]
    inductive = _sizes((bound["clients"], bound["keys"]) for bound in manifest)
    yield from (
        "",
        "## The links",
        "",
        "| link | what holds it | bound | command |",
        "|---|---|---|---|",
        f"| proof | {counts[INVARIANT]} obligations of the invariant, {counts[GHOST]} of the ghost, and those above, by"
        " z3 and cvc5 | any | `kmutex prove` |",
        f"| proof - model | one description of each action, read in two ways; compared on every state and step, of"
        f" every broken model too (at its own bound; in tests/proof also at these) | {_sizes(BOUNDS)}, both races |"
        " `kmutex prove` |",
        "| proof - TLA+ | TLC starts in every state of `IndInv`, finds it inductive, and counts as many as the"
        f" proof's formulas allow | {inductive}, both races | `nox -s tlc` |",
        "| model - TLA+ | the same states and the same steps by name | as above | `nox -s tlc` |",
        "| model - lock table | the same step from every reachable state, and from every state that the invariant"
        f" allows | {_sizes(refinement.BOUNDS)}; {_sizes(refinement.ALLOWED_BOUNDS)} | `kmutex verify` |",
        f"| lock table - drivers | the same step between quiescent states; interleavings of short programs |"
        f" {_sizes(driver_refinement.BOUNDS)} | `kmutex verify` |",
        "",
        "## What is trusted",
        "",
        '- The solvers, where they say "unsat". Two of them, by different people, must agree on each obligation. No'
        " certificate is checked.",
        "- That a finite queue that is not empty has an oldest. It is checked for up to 5 clients, and needs two"
        " parts of the invariant; for any finite number it follows by induction, outside the solver.",
        "- Four facts about the size of a set: where somebody is there is at least one; of nobody there are none;"
        " of one alone there is one; with another there are at least two.",
        "- KM-LIVE: a finite set can't shrink forever; and weak fairness, which the contract assumes: who holds"
        " unlocks in the end, and a call that was granted returns in the end.",
        "- The words of `kmutex_model.turn` beyond the bound of the tie: what each means for one client and key doesn't"
        " depend on how many others there are.",
        "- Python, its `threading.Lock` and its event loop.",
    )


def page() -> str:
    """The text of docs/evidence.md."""
    counts: dict[str, int] = {}
    for one in obligations(CORRECT):
        counts[one.clause] = counts.get(one.clause, 0) + 1
    return HEAD + "\n".join([*(row(clause, counts) for clause in CLAUSES), *tail(counts)]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Print or write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.house.evidence", description="Make docs/evidence.md.")
    parser.add_argument("--write", action="store_true", help="write the page")
    if parser.parse_args(arguments).write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
