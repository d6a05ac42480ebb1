"""CrossHair on the contracts of ``kmutex._entry``: symbolic, so for every ticket and any number of waiters.

CrossHair runs in a separate process, and its report is read strictly. Every postcondition in a docstring must be
reported, once, as confirmed over all paths. One that is missing, "Not confirmed", out of time, or reported in an
unknown form leaves its clauses inconclusive.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import kmutex
from kmutex.verify.evidence import Result, Row

METHOD = "contracts"
ENTRY = Path(kmutex.__file__).with_name("_entry.py")

CONDITION_SECONDS = 10.0
"""The time for one postcondition. Each takes well under a second if it can be decided at all."""
RUN_SECONDS = 35.0
"""The time for the whole run."""

_CONFIRMED = "Confirmed over all paths."
_REPORT = re.compile(r"(?P<file>.+):(?P<line>\d+): (?P<level>[a-z]+): (?P<message>.*)")
_COUNTEREXAMPLE = re.compile(r"(?!Error while evaluating)(false|\w+:.*|\w+) when calling ")
_CLAUSE = re.compile(r"KM-[A-Z]+")


class Contract(NamedTuple):
    """A function with at least one postcondition, and the lines of the file that it covers."""

    function: str
    clauses: tuple[str, ...]
    posts: dict[int, str]
    """The postconditions, by line."""
    first: int
    last: int


class ContractResult(NamedTuple):
    """CrossHair's result for the postcondition in this line."""

    function: str
    line: int
    post: str
    result: Result
    detail: str


def check(path: Path = ENTRY, condition_seconds: float = CONDITION_SECONDS, seconds: float = RUN_SECONDS) -> list[Row]:
    """Return one row for each clause that a contract in ``path`` names; `cases` counts its postconditions.

    Reaching a limit, of the whole run or of one postcondition, is inconclusive.
    """
    contracts = contracts_in(path)
    start = time.monotonic()
    findings = examine(path, condition_seconds, seconds)
    spent = time.monotonic() - start
    clauses = sorted({clause for contract in contracts for clause in contract.clauses})
    return [_row(clause, contracts, findings, spent) for clause in clauses]


def contracts_in(path: Path) -> list[Contract]:
    """Return the contracts of the module at ``path``, from its source and not from CrossHair's report."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (posts := dict(_posts(node))):
            text = ast.get_docstring(node) or ""
            clauses = tuple(sorted(set(_CLAUSE.findall(text))))
            found.append(Contract(node.name, clauses, posts, node.lineno, node.end_lineno or node.lineno))
    return found


def examine(
    path: Path = ENTRY, condition_seconds: float = CONDITION_SECONDS, seconds: float = RUN_SECONDS
) -> list[ContractResult]:
    """Return CrossHair's result for every postcondition in ``path``, in their order."""
    contracts = contracts_in(path)
    if importlib.util.find_spec("crosshair") is None:
        return _undecided(contracts, "CrossHair is not installed: pip install 'kmutex[contracts]'")
    command = [sys.executable, "-m", "crosshair", "check", str(path), "--analysis_kind=PEP316", "--report_all"]
    command.append(f"--per_condition_timeout={condition_seconds:g}")
    search = [str(ENTRY.parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}
    try:
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False, encoding="utf-8"
        )
    except subprocess.TimeoutExpired:
        return _undecided(contracts, f"CrossHair did not end within {seconds:g} s")
    if run.returncode not in (0, 1):
        return _undecided(contracts, f"CrossHair ended with {run.returncode}: {_last_line(run.stderr)}")
    return read_report(contracts, run.stdout)


def read_report(contracts: list[Contract], report: str) -> list[ContractResult]:
    """Return the result for each postcondition in the standard output of ``crosshair check --report_all``."""
    said: dict[int, list[tuple[str, str]]] = {}
    for line in report.splitlines():
        match = _REPORT.fullmatch(line)
        if match is None:
            return _undecided(contracts, f"CrossHair wrote a line of an unknown form: {line}")
        said.setdefault(int(match["line"]), []).append((match["level"], match["message"]))
    return [
        ContractResult(contract.function, line, post, *_judge(contract, line, said))
        for contract in contracts
        for line, post in contract.posts.items()
    ]


def _judge(contract: Contract, line: int, said: dict[int, list[tuple[str, str]]]) -> tuple[Result, str]:
    here = said.get(line, [])
    # An exception out of the body is reported at the line that raised, and is then the result for the whole function:
    # none of its postconditions holds for those arguments.
    body = [
        report
        for number in range(contract.first, contract.last + 1)
        if number not in contract.posts
        for report in said.get(number, [])
    ]
    for level, message in here + body:
        if level == "error" and _COUNTEREXAMPLE.match(message):
            return Result.VIOLATED, message
    if body:
        return Result.INCONCLUSIVE, body[0][1]
    if not here:
        return Result.INCONCLUSIVE, "CrossHair did not report it"
    if here != [("info", _CONFIRMED)]:
        return Result.INCONCLUSIVE, "; ".join(message for _, message in here)
    return Result.HOLDS, ""


def _row(clause: str, contracts: list[Contract], findings: list[ContractResult], seconds: float) -> Row:
    functions = {contract.function for contract in contracts if clause in contract.clauses}
    mine = [finding for finding in findings if finding.function in functions]
    result, detail = Result.HOLDS, ""
    for worst in (Result.VIOLATED, Result.INCONCLUSIVE):
        failed = [finding for finding in mine if finding.result is worst]
        if failed:
            result, detail = worst, f"{failed[0].function}, post: {failed[0].post}: {failed[0].detail}"
            break
    return Row(
        clause=clause,
        method=METHOD,
        bound="all paths, unbounded waiters",
        cases=len(mine),
        result=result,
        seconds=seconds,
        detail=detail,
        subject=f"kmutex._entry: {', '.join(sorted(functions))}",
    )


def _posts(function: ast.FunctionDef) -> Iterator[tuple[int, str]]:
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        for line, text in enumerate(first.value.value.splitlines(), first.lineno):
            label, colon, condition = text.strip().partition(":")
            if colon and label == "post":
                yield line, condition.strip()


def _undecided(contracts: list[Contract], why: str) -> list[ContractResult]:
    return [
        ContractResult(contract.function, line, post, Result.INCONCLUSIVE, why)
        for contract in contracts
        for line, post in contract.posts.items()
    ]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it gave no reason"])[-1]
