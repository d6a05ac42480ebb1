"""A keyed locker against the contract, as tests in your own suite: short programs in every interleaving up to a bound.

    class TestMyLocker(KeyedLockerSuite):
        make = staticmethod(MyLocker)
        without = ()

Each program is a test. What it covers is said in its name: where a switch may come (locks, bytecode, tasks, timeouts)
and how many preemptions there may be. Not covered here, and by ``kmutex verify`` only: deeper bounds, keys of many
kinds, memory, and use from a second event loop (KM-LOOP).

pytest finds the tests by the class's own `pytest_generate_tests`; nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar, Protocol

from kmutex.engine.explorer import Exploration, Level
from kmutex.engine.harness import Harness
from kmutex.engine.machine import check_histories
from kmutex.engine.program import Program, parse
from kmutex.engine.scenarios import programs_for
from kmutex.engine.shapes import Kind, NotALockerError
from kmutex.engine.threads import bytecode_events_seen
from kmutex.engine.verdict import ContractError, InconclusiveError

MOST_RUNS = 20_000
"""Ways of one program after which its test gives up, which is no pass."""
HISTORIES = 40
"""Random histories of one test."""
AT_BYTECODE = ("0+a 1+a", "0+a-a 1+a", "0+a-a 1+a-a", "0+a | 0-a 1+a", "0+a 1+b")
"""The programs that are run with switches between bytecodes as well: many runs for each."""

Case = tuple[Program, Level, int]


class _Metafunc(Protocol):
    """What is used here of pytest.Metafunc."""

    fixturenames: list[str]

    def parametrize(self, argnames: str, argvalues: Any, *, ids: Any) -> None: ...


class KeyedLockerSuite:
    """Derive a class named Test... from it."""

    make: ClassVar[Callable[[], Any]]
    """Makes a new locker at each call. Wrap a function or a class in `staticmethod`."""
    without: ClassVar[Collection[str]] = ()
    """Features the locker is declared to lack: see `kmutex.engine.features`."""
    kind: ClassVar[Kind | None] = None
    """"threads" or "asyncio"; None finds out by looking."""
    seed: ClassVar[int] = 0
    """Of the random histories."""

    _known: ClassVar[dict[type, list[tuple[frozenset[str], str]]]] = {}
    _benches: ClassVar[dict[type, Harness]] = {}

    def pytest_generate_tests(self, metafunc: _Metafunc) -> None:
        """A test for each program that fits the locker."""
        if "case" in metafunc.fixturenames:
            try:
                cases: list[Case | None] = list(self._cases())
            except NotALockerError:
                cases = [None]  # The test will say it.
            metafunc.parametrize("case", cases, ids=[_name(case) for case in cases])

    def test_program(self, case: Case) -> None:
        """The contract holds in every interleaving of the program up to the bound."""
        __tracebackhide__ = True
        bench = self._bench()
        if case is None:
            assert bench.shape  # Raises what there is to say.
        program, level, bound = case
        if level == "bytecode" and not bytecode_events_seen():
            raise InconclusiveError("this Python does not report every instruction to a tracer")
        with bench.control():
            result = bench.explorer.every(program, level, bound, known=self._symptoms(program), go_on=_go_on)
        self._judge(bench, result)

    def test_histories(self) -> None:
        """Random histories of single actions go as in the model."""
        __tracebackhide__ = True
        bench = self._bench()
        found = check_histories(bench.make, kind=self.kind, without=bench.without, examples=HISTORIES, seed=self.seed)
        if found.finding is not None and found.schedule is not None:
            raise ContractError(found.finding, found.schedule, bench.make, bench.without)
        if not found.phases or not found.witnesses["KM-EXCL"]:
            raise InconclusiveError("no history was compared with the model")

    # -- how -----------------------------------------------------------------------------------------------------

    @classmethod
    def _bench(cls) -> Harness:
        if not hasattr(cls, "make"):
            raise NotALockerError(f"{cls.__name__} has no make; give it make = staticmethod(YourLocker)")
        if cls not in cls._benches:
            cls._benches[cls] = Harness(cls.make, kind=cls.kind, without=cls.without)
        return cls._benches[cls]

    @classmethod
    def _cases(cls) -> Iterator[Case]:
        bench = cls._bench()
        shape = bench.shape
        threads = shape.kind == "threads"
        for program in programs_for(shape, interrupt="interrupt" not in bench.without):
            yield program, bench.levels[0], 1
            if "~" in program.kinds and "timeouts" in bench.levels:
                yield program, "timeouts", 1
        if threads:
            for text in AT_BYTECODE:
                yield parse(text), "bytecode", 1

    @classmethod
    def _symptoms(cls, program: Program) -> frozenset[str]:
        """What plainer programs have shown is not blamed on what this one has beside."""
        parts = program.ingredients
        return frozenset(symptom for plainer, symptom in cls._known.get(cls, ()) if plainer < parts)

    @classmethod
    def _judge(cls, bench: Harness, result: Exploration) -> None:
        __tracebackhide__ = True
        for symptom in result.found:
            cls._known.setdefault(cls, []).append((result.program.ingredients, symptom))
        for finding, schedule in result.found.values():
            raise ContractError(finding, schedule, bench.make, bench.without)
        if result.exited is not None:
            raise InconclusiveError(f"the locker tried to leave the process: {result.exited}")
        if result.endless:
            raise InconclusiveError(f"{result.endless} of {result.runs} runs had no end within the step limit")
        if not result.complete:
            raise InconclusiveError(f"the program has more than {result.runs - 1} ways; they were not all run")
        if not result.witnesses["KM-EXCL"]:
            raise InconclusiveError("nobody ever got a key")


def _go_on(runs: int) -> bool:
    return runs <= MOST_RUNS


def _name(case: Case | None) -> str:
    if case is None:
        return "not a locker"
    program, level, bound = case
    return f"{level} {bound}: {program}"
