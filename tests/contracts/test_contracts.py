"""The contracts of ``kmutex._entry``: confirmed as they stand, and able to refuse a body that is wrong."""

from __future__ import annotations

import ast
import copy
import importlib.util
from pathlib import Path

import pytest

from kmutex.selfcheck import contracts
from kmutex.verify.evidence import Result, exit_status

HERE = Path(__file__).parent
BROKEN = HERE / "broken_entry.py"
ENOUGH = {"condition_seconds": 60.0, "seconds": 600.0}
"""Limits that a busy machine does not reach."""

pytest.importorskip("crosshair", reason="pip install 'kmutex[contracts]'")


def functions_of(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def listed_twins() -> list[tuple[str, str, str]]:
    """(twin, function, post) from the decorators of the file, which is read and not run."""
    twins = []
    for name, node in functions_of(BROKEN).items():
        for mark in node.decorator_list:
            assert isinstance(mark, ast.Call)
            function, post = (ast.literal_eval(argument) for argument in mark.args)
            twins.append((name, function, post))
    return twins


TWINS = listed_twins()


@pytest.fixture(scope="module")
def twin_findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[contracts.ContractResult]]:
    """CrossHair's findings on every twin, by the twin's name: one run over them all."""
    real, bodies = functions_of(contracts.ENTRY), functions_of(BROKEN)
    source = ["from __future__ import annotations", "from kmutex._entry import Entry, Ticket"]
    for name, function, _ in TWINS:
        node = copy.deepcopy(real[function])
        assert ast.unparse(node.args) == ast.unparse(bodies[name].args), f"{name} has other parameters than {function}"
        node.name = name
        node.body[1:] = bodies[name].body
        source.append(ast.unparse(node))
    path = tmp_path_factory.mktemp("twins") / "twins.py"
    path.write_text("\n\n".join(source), encoding="utf-8")
    findings: dict[str, list[contracts.ContractResult]] = {}
    for finding in contracts.examine(path, condition_seconds=5, seconds=600):
        findings.setdefault(finding.function, []).append(finding)
    return findings


def test_every_contract_is_confirmed() -> None:
    """KM-EXCL, KM-REF, KM-FIFO, KM-HANDOFF, KM-IDLE, KM-CANCEL: for all tickets and any number of waiters."""
    rows = contracts.check(**ENOUGH)
    assert [(row.clause, row.result, row.detail) for row in rows] == [
        (clause, Result.HOLDS, "") for clause in ("KM-CANCEL", "KM-EXCL", "KM-FIFO", "KM-HANDOFF", "KM-IDLE", "KM-REF")
    ]
    assert exit_status(rows) == 0


def test_rows_count_the_postconditions_that_stand_in_the_file() -> None:
    """Nothing is lost between the docstrings and the rows."""
    written = contracts.ENTRY.read_text(encoding="utf-8").count("    post: ")
    findings = contracts.examine(**ENOUGH)
    assert len(findings) == written > 0
    assert {row.clause: row.cases for row in contracts.check(**ENOUGH)}["KM-REF"] == written


@pytest.mark.parametrize(("name", "function", "post"), TWINS, ids=[name for name, _, _ in TWINS])
def test_the_named_postcondition_refutes_the_twin(
    twin_findings: dict[str, list[contracts.ContractResult]], name: str, function: str, post: str
) -> None:
    found = {finding.post: finding for finding in twin_findings[name]}
    assert post in found, f"{function} has no such postcondition any more"
    assert found[post].result is Result.VIOLATED
    assert f"when calling {name}(" in found[post].detail


def test_every_postcondition_has_a_twin_that_it_refutes() -> None:
    """A postcondition that refuses nothing is not worth its line."""
    stand = {
        (contract.function, post)
        for contract in contracts.contracts_in(contracts.ENTRY)
        for post in contract.posts.values()
    }
    assert stand == {(function, post) for _, function, post in TWINS}


def test_a_violated_contract_is_a_violated_row(tmp_path: Path) -> None:
    """The counterexample of CrossHair stands in the row, and the other clauses keep their own result."""
    source = contracts.ENTRY.read_text(encoding="utf-8").replace(
        "return Entry(holder, before + after)", "return Entry(holder, after + before)"
    )
    path = tmp_path / "entry_copy.py"
    path.write_text(source, encoding="utf-8")
    rows = {row.clause: row for row in contracts.check(path)}
    assert rows["KM-CANCEL"].result is Result.VIOLATED
    assert "after_cancel, post: __return__.waiters == before + after: false when calling" in rows["KM-CANCEL"].detail
    assert rows["KM-HANDOFF"].result is Result.HOLDS
    assert exit_status(rows.values()) == 1


def test_not_confirmed_is_inconclusive(tmp_path: Path) -> None:
    """True, and CrossHair cannot show it in the time given: the tail of an unbounded tuple, by slice."""
    path = tmp_path / "slice.py"
    path.write_text(
        "def tail(waiters: tuple[int, ...]) -> tuple[int, ...]:\n"
        '    """KM-FIFO\n\n    post: not waiters or (waiters[0],) + __return__ == waiters\n    """\n'
        "    return waiters[1:]\n",
        encoding="utf-8",
    )
    (row,) = contracts.check(path, condition_seconds=1)
    assert (row.clause, row.result, row.cases) == ("KM-FIFO", Result.INCONCLUSIVE, 1)
    assert row.detail.endswith("Not confirmed.")


def test_a_precondition_nothing_meets_is_inconclusive(tmp_path: Path) -> None:
    path = tmp_path / "vacuous.py"
    path.write_text(
        'def f(ticket: int) -> int:\n    """KM-EXCL\n\n    pre: ticket != ticket\n    post: False\n    """\n'
        "    return ticket\n",
        encoding="utf-8",
    )
    (row,) = contracts.check(path, condition_seconds=2)
    assert row.result is Result.INCONCLUSIVE


def test_an_exception_out_of_the_body_is_a_violation(tmp_path: Path) -> None:
    path = tmp_path / "raises.py"
    path.write_text(
        'def f(ticket: int) -> int:\n    """KM-EXCL\n\n    post: True\n    """\n'
        "    if ticket == 5:\n        raise IndexError\n    return ticket\n",
        encoding="utf-8",
    )
    (row,) = contracts.check(path, condition_seconds=2)
    assert row.result is Result.VIOLATED
    assert "IndexError" in row.detail


@pytest.mark.parametrize("post", ["(", "nowhere == 0"])
def test_a_postcondition_that_cannot_be_evaluated_is_inconclusive(tmp_path: Path, post: str) -> None:
    """The contract is wrong there, and not the function."""
    path = tmp_path / "unreadable.py"
    path.write_text(
        f'def f(ticket: int) -> int:\n    """KM-EXCL\n\n    post: {post}\n    """\n    return ticket\n',
        encoding="utf-8",
    )
    (row,) = contracts.check(path, condition_seconds=2)
    assert row.result is Result.INCONCLUSIVE


def test_out_of_time_is_inconclusive() -> None:
    rows = contracts.check(seconds=0.01)
    assert {row.result for row in rows} == {Result.INCONCLUSIVE}
    assert all("did not end within 0.01 s" in row.detail for row in rows)


def test_a_module_that_cannot_be_imported_is_inconclusive(tmp_path: Path) -> None:
    path = tmp_path / "absent.py"
    path.write_text(
        'import no_such_module\n\n\ndef f() -> None:\n    """KM-EXCL\n\n    post: True\n    """\n', encoding="utf-8"
    )
    (row,) = contracts.check(path)
    assert row.result is Result.INCONCLUSIVE


def test_without_crosshair_every_row_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = contracts.check(**ENOUGH)
    assert {row.result for row in rows} == {Result.INCONCLUSIVE}
    assert all("pip install 'kmutex[contracts]'" in row.detail for row in rows)
    assert exit_status(rows) == 2


CONFIRMED = "/x/_entry.py:{}: info: Confirmed over all paths."


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (CONFIRMED, Result.HOLDS),
        ("", Result.INCONCLUSIVE),
        (CONFIRMED + "\n" + CONFIRMED, Result.INCONCLUSIVE),
        ("/x/_entry.py:{}: info: Not confirmed.", Result.INCONCLUSIVE),
        ("/x/_entry.py:{}: warning: Confirmed over all paths.", Result.INCONCLUSIVE),
        ("/x/_entry.py:{}: error: false when calling f(0) (which returns 0)", Result.VIOLATED),
        ("something else", Result.INCONCLUSIVE),
    ],
)
def test_the_report_is_read_strictly(line: str, result: Result) -> None:
    """One line of a full report is replaced; the finding of that postcondition follows it."""
    known = contracts.contracts_in(contracts.ENTRY)
    numbers = [number for contract in known for number in contract.posts]
    report = [CONFIRMED.format(number) for number in numbers[1:]] + [line.replace("{}", str(numbers[0]))]
    findings = contracts.read_report(known, "\n".join(part for part in report if part))
    assert findings[0].result is result
    assert findings[0].line == numbers[0]
