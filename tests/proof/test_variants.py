"""The variants of locks that peers have: each proved for any size, or with a counterexample, and its broken twin."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmutex.cli import main as command
from kmutex_model.broken import Broken
from kmutex_model.proof import lock as own
from kmutex_model.proof.controls import control
from kmutex_model.proof.lock import Claim, Lock, LockError, Move, left
from kmutex_model.proof.logic import TRUE, every, no, same
from kmutex_model.proof.obligations import outside_the_fragment, show, smallest
from kmutex_model.proof.solvers import solvers
from kmutex_model.state import Config
from tests.house.variants import END, PAGE, START, TABLES, VARIANTS, cell, loaded, rows, table

pytestmark = pytest.mark.long

Z3 = solvers(["z3"])
LOCKS = [name for name in VARIANTS.values() if name not in ("barging", "keep_or_pass")]


@pytest.mark.parametrize("name", VARIANTS.values())
def test_a_variant_is_proved_but_for_what_it_does_not_promise(name: str) -> None:
    """Nothing is left open: each clause is proved, has a run against it, or does not apply for a reason."""
    found = {row.clause: row for row in rows(name)}
    violated = [clause for clause, row in found.items() if row.result == "violated"]
    assert violated == (["KM-FIFO", "KM-HANDOFF", "KM-LIVE"] if name == "barging" else [])
    assert "not proved" not in {row.result for row in found.values()}
    assert all(row.said for row in found.values() if row.result == "does not apply")
    assert found["KM-EXCL"].result == "proved"


@pytest.mark.parametrize("name", LOCKS)
def test_both_solvers_agree_within_the_fragment(name: str) -> None:
    """On every fifth obligation: all of them are asked by `kmutex prove FILE`."""
    lock = loaded(name)
    assert isinstance(lock, Lock)
    every_ = [asked.obligation for asked in own.obligations(lock)]
    assert {outside_the_fragment(one) for one in every_} == {""}
    assert {show(one, solvers()).result for one in every_[::5]} == {"proved"}


@pytest.mark.parametrize("name", LOCKS)
def test_the_broken_twin_is_refuted_by_the_solver_and_played(name: str) -> None:
    """An obligation of a clause fails, its step is taken in the state that the solver found, and a run shows it."""
    lock = loaded(f"{name}_broken")
    assert isinstance(lock, Lock)
    violated = {row.clause: row for row in rows(f"{name}_broken") if row.result == "violated"}
    replayed = set()
    for asked in own.obligations(lock):
        if asked.claim and asked.move and asked.claim.clause in violated and asked.claim.clause not in replayed:
            found = smallest(asked.obligation, Z3[0])
            if found:
                assert own.replayed(lock, asked, found) == ""
                replayed.add(asked.claim.clause)
    assert replayed
    assert all(row.run for row in violated.values())


@pytest.mark.parametrize(("name", "clause"), [("barging", "KM-EXCL"), ("keep_or_pass", "KM-RACE")])
def test_the_broken_twin_of_a_table_is_refuted_and_replayed(name: str, clause: str) -> None:
    found = loaded(f"{name}_broken")
    assert isinstance(found, tuple)
    broken = Broken(found[0], clause, "its twin", Config(3, 1, "pass"))  # type: ignore[arg-type]
    convicted = control(broken, Z3)
    assert convicted.fault == ""
    assert convicted.refuted is not None
    assert clause in {row.clause for row in rows(f"{name}_broken") if row.result == "violated"}


def test_the_page_has_what_the_files_say() -> None:
    """docs/proof.md; `python -m tests.house.variants --write` writes it."""
    page = PAGE.read_text(encoding="utf-8")
    assert page[page.index(START) + len(START) : page.index(END)] == table()
    assert cell(None) == "does not apply"


def _broken_by(lock: Lock) -> set[str]:
    return set(own.explored(lock, ((2, 1),)).broken)


def test_a_solver_and_the_player_read_each_term_alike() -> None:
    """What the one refutes the other finds broken, and what is not so by the player can't be replayed."""
    lock = loaded("permits")
    assert isinstance(lock, Lock)
    false = Claim("KM-EXCL", "nobody owns anything", in_state=lambda s: every(lambda k, c: ~s.holding(c, k)))
    wrong = lock._replace(claims=(false,))
    assert _broken_by(wrong) == {"KM-EXCL"}
    asked = next(one for one in own.obligations(wrong) if one.move and one.claim and smallest(one.obligation, Z3[0]))
    found = smallest(asked.obligation, Z3[0])
    assert found is not None
    assert own.replayed(wrong, asked, found) == ""
    assert "breaks only nothing" in own.replayed(lock, asked, found)
    stuck = wrong._replace(moves=tuple(move._replace(needs=_never) for move in wrong.moves if move.name == "try"))
    assert own.replayed(stuck, asked, found) == "the step can't be taken"


def test_who_gives_up_and_takes_another_along_breaks_what_it_is_for() -> None:
    """KM-CANCEL and KM-INTERRUPT, of the step: the others wait, own and keep their places."""
    lock = loaded("permits")
    assert isinstance(lock, Lock)

    def all_leave(s, c, k):  # type: ignore[no-untyped-def]
        return {**left(s, k, lambda d: TRUE), "waiting": lambda d, j: s.waiting(d, j) & ~same(j, k)}

    for name in ("cancel", "interrupt"):
        move = next(one for one in lock.moves if str(one) == f"{name} (waiting)")
        broken = own.explored(lock.replacing(move._replace(then=all_leave)), ((3, 1),)).broken
        assert broken.keys() & {"KM-CANCEL", "KM-INTERRUPT"} == {f"KM-{name.upper()}"}


def _never(s, c, k):  # type: ignore[no-untyped-def]
    return no(TRUE)


def test_what_a_lock_can_not_say_is_refused() -> None:
    lock = loaded("permits")
    assert isinstance(lock, Lock)
    with pytest.raises(LockError, match="no move 'fly'"):
        lock.replacing(Move("fly", "granted", _never, lambda s, c, k: {}))
    odd = lock._replace(moves=(Move("fly", "granted", _never, lambda s, c, k: {"wings": s.present}),))
    with pytest.raises(LockError, match="changes 'wings'"):
        list(own.obligations(odd))
    two = (*lock.moves, next(move for move in lock.moves if move.name == "try")._replace(outcome="other", case="two"))
    with pytest.raises(LockError, match="can go two ways"):
        own.explored(lock._replace(moves=two), ((1, 1),))
    with pytest.raises(AttributeError, match="no 'wings'"):
        lock.state().wings  # noqa: B018


def test_what_counts_is_found_out() -> None:
    """A move that is never taken, and clients who are taken for granted and need not be there."""
    lock = loaded("permits")
    assert isinstance(lock, Lock)
    assert lock.live is not None
    never = lock._replace(moves=(*lock.moves, Move("fly", "granted", _never, lambda s, c, k: {})))
    assert own.explored(never, ((1, 1),)).never[-1] == "fly"
    assert own.given_of_finite(lock, Z3[0]) == []
    nobody = lock.live._replace(given=lambda s, waiter, k, c, heir: no(TRUE))
    assert len(own.given_of_finite(lock._replace(live=nobody), Z3[0])) > 1


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        command(["prove", "--solver", "z3", *arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(TABLES / "hold_all.py")) == 0
    out = capsys.readouterr().out
    assert "no deadlock" in out
    assert "KM-RACE          0 obligations  does not apply" in out
    assert run(str(TABLES / "hold_all_broken.py")) == 1
    assert "forever: nothing" in capsys.readouterr().out


HEAD = "from kmutex_model.proof.lock import Claim, Lock, Move\nfrom kmutex_model.proof.logic import TRUE\n"


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("LOCK = 1", 3, "LOCK must be"),
        (
            f"{HEAD}LOCK = Lock({{}}, (Move('m', 'x', lambda s, c: s.no(c), lambda s, c: {{}}),), (), ())",
            3,
            "no 'waiting'",
        ),
        (f"{HEAD}LOCK = Lock({{}}, (Move('m', 'x', 1, 2),), (), ())", 3, "can't be read as relations"),
        ("import os\nos._exit(0)", 3, "left its process"),
        ("import os\nos.fork()", 3, "not allowed here"),
        ("while True: pass", 2, "stopped after"),
        ("print('kind')\nx", 3, "NameError"),
    ],
)
def test_a_bad_file_is_confined_and_gets_one_line(
    text: str, status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    limit = ("--seconds", "2") if status == 2 else ()
    assert run(str(file), *limit) == status
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_lock_with_a_hole_is_not_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is wrong with it, but for a part that its invariant lacks; the state is told, and nothing is claimed."""
    file = tmp_path / "mine.py"
    file.write_text(
        f"import sys; sys.path.insert(0, {str(TABLES)!r})\nfrom permits import LOCK\n"
        "LOCK = LOCK._replace(parts=tuple(part for part in LOCK.parts if part.name != 'permits are counted'))\n",
        encoding="utf-8",
    )
    assert run(str(file)) == 2
    out = capsys.readouterr().out
    assert "violated" not in out
    assert "KM-REF" in out
    assert "1 clients, 1 keys:" in out
