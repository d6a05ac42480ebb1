"""Cases, their courses and the vectors, against the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kmutex import _specs
from kmutex._text import printable
from kmutex.conform.case import (
    MOST_KEYS,
    CaseError,
    Command,
    case_as_json,
    case_from_json,
    format_moves,
    key_names,
    parse_moves,
    parse_times,
    spread,
)
from kmutex.conform.expected import Courses, make_case
from kmutex.conform.mistakes import MISTAKES
from kmutex.conform.player import EARLY, declared
from kmutex.conform.sequences import random_case, renumbered, simpler
from kmutex.conform.vectors import BOUNDS, FIELDS, as_json, chosen, load, weighed, wide
from kmutex_model.actions import CORRECT, parse_schedule
from kmutex_model.broken import BROKEN
from kmutex_model.state import Config

ALL = frozenset({"fifo", "cancel", "try", "lease", "unheld", "stat", "done", "deadline"})
NEVER_KILLED = {
    "interrupted_waiter_stays": "the protocol has no interrupt",
    "interrupted_grant_stays": "the protocol has no interrupt",
    "interrupt_swallowed": "the protocol has no interrupt",
}


def test_a_case_is_read_and_written() -> None:
    for text in ("0+a", "0+a/1?a/ua,c1/r0", "ub/0+a,1+a", "0!a/1+a:50/2+a:60000", "0+a/1+a:50,ua"):
        assert format_moves(parse_moves(text)) == text
        case = make_case(parse_moves(text))
        assert case.id == text
        assert case_from_json(json.loads(json.dumps(case_as_json(case)))) == case


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a command"),
        ("0*a", "is not a command"),
        ("0+A", "is not a command"),
        ("0+a//ua", "is not a command"),
        ("1+a", "numbered"),
        ("0+a/0+a", "numbered"),
        ("0+a/c1", "not made before it"),
        ("c0,0+a", "not made before it"),
        ("0?a,c0", "not made before it"),
        ("0+a,r0", "not made before it"),
        ("0!a,ua", "is a move by itself"),
        ("0+a/1+a:50,ub", "is a move by itself"),
        ("0+a/1+a:60000,ua", "is a move by itself"),
        ("0+a/1+a:5000", "nobody knows whether 5000 ms are over"),
        ("0+a:0", "is not a command"),
        ("0+a/r0,ua", "twice at once"),
        ("0+a/ua,ua", "twice at once"),
        ("0+a/1+a,2+a,3+a,4+a,5+a", "5 commands at once; 4 is the most"),
        ("0" * 5000 + "+a", "is not a command"),
        ("\N{ARABIC-INDIC DIGIT ZERO}+a", "is not a command"),
        ("/".join(f"{n}+a" for n in range(41)), "at most 40"),
    ],
)
def test_what_is_no_case_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(CaseError, match=why):
        parse_moves(text)


def test_a_move_whose_end_nobody_can_know_makes_no_case() -> None:
    """The second unlock may release a call that has not come back. No text says it; who makes moves might."""
    unlock = Command("unlock", None, "a")
    with pytest.raises(CaseError, match="may not know of it yet"):
        make_case((*parse_moves("0+a/1+a"), (unlock, unlock)))


def test_a_case_that_may_go_too_many_ways_is_refused_soon() -> None:
    with pytest.raises(CaseError, match=r"576 possible states after '4.a,5.a,6.a,7.a'; at most 100"):
        make_case(parse_moves("0+a,1+a,2+a,3+a/4+a,5+a,6+a,7+a/8+a,9+a,10+a,11+a"))


def test_what_a_black_box_shows_is_kept_apart() -> None:
    """KM-IDLE and KM-ATOMIC show in the table only, KM-UNHELD in what comes back."""
    vectors = load()
    assert all(set(vector.outside) <= set(vector.clauses) for vector in vectors)
    by_table = {clause for vector in vectors for clause in vector.clauses}
    outside = {clause for vector in vectors for clause in vector.outside}
    assert by_table - outside == {"KM-IDLE", "KM-ATOMIC"}


def test_a_cancel_that_meets_a_grant_may_end_either_way() -> None:
    """KM-RACE: the call returns holding, or it raises and the next one holds; nothing else."""
    case = make_case(parse_moves("0+a/1+a/2+a/ua,c1"))
    assert {course[3].calls for course in case.courses} == {((1, "granted"),), ((1, "cancelled"), (2, "granted"))}
    assert case.needs == ("cancel", "fifo")


def test_a_cancel_right_behind_its_lock_ends_it_or_came_too_late() -> None:
    """KM-CANCEL: of a held key the call gives up; a free one it may have got before. Nothing stays behind."""
    (held,) = make_case(parse_moves("0+a/1+a,c1")).courses
    assert (held[1].calls, held[1].table) == (((1, "cancelled"),), (("a", 1, 0),))
    free = make_case(parse_moves("0+a,c0")).courses
    assert {(course[0].calls, course[0].table) for course in free} == {
        (((0, "granted"),), (("a", 1, 0),)),
        (((0, "cancelled"),), ()),
    }


def test_an_early_cancel_of_a_free_key_takes_it_or_does_not_and_a_port_says_which() -> None:
    """KM-CANCEL: a held key is never waited for; where one of the two is declared, the other is wrong."""
    case = make_case(parse_moves("0!a/1!a/ua"))
    ends = {tuple(how for seen in course[:2] for _, how in seen.calls) for course in case.courses}
    assert ends == {("granted", "cancelled"), ("cancelled", "granted"), ("cancelled", "cancelled")}
    for feature, left in (("take", [("granted", "cancelled")]), ("refuse", [("cancelled", "cancelled")])):
        courses = declared(case.courses, case.moves, {feature})
        assert [tuple(how for seen in course[:2] for _, how in seen.calls) for course in courses] == left
    assert declared(case.courses, case.moves, set(EARLY)) == list(case.courses)


def test_a_time_limit_is_over_in_its_move_or_not_in_the_case() -> None:
    """KM-CANCEL, KM-REF: a short one leaves no trace of its call, and with a long one it stands in the queue."""
    (course,) = make_case(parse_moves("0+a/1+a:60000/2+a:50/ua")).courses
    assert [seen.calls for seen in course[1:4]] == [(), ((2, "timeout"),), ((1, "granted"),)]
    assert [seen.table for seen in course[1:4]] == [(("a", 2, 1),), (("a", 2, 1),), (("a", 1, 0),)]


def test_a_case_on_many_keys_is_a_copy_on_each() -> None:
    """What is sent for two keys is what the model says of two keys."""
    both = spread(make_case(*parse_times("0+a/1+a/ua@2")))
    assert set(Courses(both.moves).all(both.moves)) == set(both.courses)
    assert len(set(key_names(MOST_KEYS))) == MOST_KEYS
    assert all(printable(key) == key for key in key_names(MOST_KEYS))


@pytest.mark.parametrize("text", ["0+a@0", "0+a@501", "0+a*0", "0+a*2@2", "0+a@"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(CaseError):
        parse_times(text)


def test_a_case_on_many_keys_goes_one_way() -> None:
    with pytest.raises(CaseError, match="2 allowed outcomes; a case on many keys must have one"):
        make_case(*parse_times("0+a,c0@2"))


def test_keep_and_pass_have_vectors_that_need_no_more_than_a_cancel() -> None:
    assert [v.case.id for v in load() if "KM-RACE" in v.outside and "unheld" not in v.case.needs]


def test_the_courses_of_single_steps_are_the_models_own() -> None:
    """KM-FIFO, KM-HANDOFF, KM-REF: what a case expects is what the model says, read here by another way."""
    case = make_case(parse_moves("0+a/1+a/2+a/c1/ua"))
    config = Config(3, 1, "keep")
    steps = CORRECT.replay(config, parse_schedule("request(0,0); request(1,0); request(2,0); cancel(1); release(0)"))
    tables = [
        tuple((key, entry.refs, len(entry.queue)) for key, entry in zip("a", step.state.entries, strict=True) if entry)
        for step in steps
    ]
    (course,) = case.courses
    assert [seen.table for seen in course[:5]] == tables


def test_the_file_is_made_of_the_chosen_cases() -> None:
    """`nox -s vectors` compares all of it with the model; this, every fiftieth and the list of ids."""
    vectors = load()
    small = {case.id: form for case, form in wide()}
    assert {vector.case.id for vector in vectors} <= {*map(format_moves, chosen()), *FIELDS, *small}
    for vector in vectors[::50]:
        case = make_case(*parse_times(vector.case.id))
        again = weighed(small.get(case.id, case))._replace(case=case)
        assert again._replace(revision=vector.revision) == vector
    assert as_json(vectors) == _specs.read("vectors.json")
    assert BOUNDS


def test_every_known_bad_model_is_killed_by_a_vector_or_has_a_reason() -> None:
    vectors = load()
    killed = {name for vector in vectors for name in (*vector.kills, *vector.may_kill)}
    names = {broken.model.name for broken in BROKEN} | {mistake.name for mistake in MISTAKES}
    assert names - killed == set(NEVER_KILLED)


def test_no_vector_kills_the_correct_model() -> None:
    for vector in load()[::40]:
        assert set(Courses(vector.case.moves).all(vector.case.moves)) == set(vector.case.courses)


@pytest.mark.long
def test_random_cases_are_the_same_for_the_same_seed_and_need_no_more_than_declared() -> None:
    for features in (ALL, frozenset({"fifo"}), frozenset({"unheld", "try"})):
        for seed in range(8):
            case = random_case(seed, features)
            assert random_case(seed, features) == case
            assert set(case.needs) <= features, f"seed {seed}"


@pytest.mark.long
def test_a_seed_says_the_same_in_every_process() -> None:
    """Sets have another order in each; the report's seed must give the reader the same sequences."""
    code = (
        "from kmutex.conform.sequences import random_case;"
        "print([random_case(n, frozenset('fifo cancel try unheld lease stat'.split())).id for n in range(12)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "1234"
    }
    assert len(said) == 1


def test_simpler_cases_are_shorter_or_meet_less() -> None:
    moves = parse_moves("0+a/1+a,2+b/c1/ua")
    for less in simpler(moves):
        assert sum(map(len, less)) < sum(map(len, moves)) or len(less) > len(moves)
    assert format_moves(renumbered(parse_moves("0+b/1+a/ua")[1:])) == "0+a/ua"
