"""The reader of mutmut's words, on words: what is not listed, or listed in vain, must be told. No mutant runs here."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import loaded

run_mutants = loaded(Path(__file__).with_name("run_mutants.py"))

ONE = run_mutants.Survivor("kmutex._core.f", "a = 1", "a = 2")
TWO = run_mutants.Survivor("kmutex._core.f", "a = 1", "a = None")


def test_exactly_the_listed_ones_is_right() -> None:
    assert run_mutants.compare({ONE}, {ONE: "equal"}) == []


def test_a_survivor_that_is_not_listed_is_told() -> None:
    (fault,) = run_mutants.compare({ONE, TWO}, {ONE: "equal"})
    assert fault.startswith("survived, and is not listed: kmutex._core.f")
    assert "+ a = None" in fault


def test_a_listed_one_that_was_killed_is_told() -> None:
    (fault,) = run_mutants.compare(set(), {ONE: "equal"})
    assert fault.startswith("is listed, and did not survive")


def test_a_listed_one_without_a_reason_is_told() -> None:
    (fault,) = run_mutants.compare({ONE}, {ONE: " "})
    assert fault.startswith("is listed without a reason")


def test_every_listed_survivor_has_a_reason() -> None:
    listed = run_mutants.read_listed(run_mutants.LISTED.read_text(encoding="utf-8"))
    assert run_mutants.compare(set(listed), listed) == []


def test_results_are_read_with_their_words() -> None:
    text = "    kmutex._core.xǁAǁf__mutmut_1: survived\n    kmutex._entry.x_f__mutmut_2: no tests\nnoise: here\n"
    assert run_mutants.read_results(text) == {
        "kmutex._core.xǁAǁf__mutmut_1": "survived",
        "kmutex._entry.x_f__mutmut_2": "no tests",
    }


def test_a_change_is_known_by_its_function_and_lines() -> None:
    text = "# m: survived\n--- a.py\n+++ a.py\n@@ -1,3 +1,3 @@\n def f():\n-    a = 1\n+    a = 2\n"
    assert run_mutants.read_change("kmutex._core.x_f__mutmut_12", text) == ONE
    method = run_mutants.read_change("kmutex._threads.xǁKeyedMutexǁ_f__mutmut_3", text)
    assert method.function == "kmutex._threads.KeyedMutex._f"
    private = run_mutants.read_change("kmutex._threads.x__pass__mutmut_1", text)
    assert private.function == "kmutex._threads._pass"
