"""The benchmark of locks: that it does the work it names, notices who does not lock, and says what it found.

No test here asserts on a time.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import child
import lockers
import picture
import standing
import workloads
from lockers import ASYNCIO, FLOOR, OURS, REFERENCES, THREADS, Subject
from span import Span
from standing import Sample
from tests.scripts import loaded

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "benchmarks" / "locks" / "run.py"
run = loaded(RUN)
ROWS = {(row.kind, row.name): row for row in workloads.rows((4, 8), 50)}
TIMES = {"keys": workloads.HELD_KEYS, "held": 20, "waiter": 5, "kept": 50}


class Counting:
    """A recipe that keeps count of what is done with it."""

    def __init__(self) -> None:
        self.locks = lockers.LockAndCount(threading.Lock)
        self.events: list[tuple[str, Hashable]] = []
        self.most = 0

    def lock(self, key: Hashable) -> None:
        self.locks.lock(key)
        self.note("lock", key)

    def unlock(self, key: Hashable) -> None:
        self.note("unlock", key)
        self.locks.unlock(key)

    def timed(self, key: Hashable, seconds: float) -> bool:
        self.note("timed", key)
        return self.locks.lock_in_time(key, seconds / 100)

    def hold(self, key: Hashable) -> Any:
        return lockers._Hold(self, key)  # type: ignore[arg-type]

    def note(self, what: str, key: Hashable) -> None:
        self.events.append((what, key))
        self.most = max(self.most, self.count("lock") - self.count("unlock") if len(self.events) < 4000 else 0)

    def count(self, what: str) -> int:
        return sum(1 for event, _ in self.events if event == what)


class AsyncCounting(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.waiting = lockers.AsyncLockAndCount(asyncio.Lock)

    async def lock(self, key: Hashable) -> None:  # type: ignore[override]
        self.note("asks", key)
        await self.waiting.lock(key)
        self.note("lock", key)

    def unlock(self, key: Hashable) -> None:
        self.note("unlock", key)
        self.waiting.unlock(key)

    def hold(self, key: Hashable) -> Any:
        return lockers._AsyncHold(self, key)  # type: ignore[arg-type]


def counting(kind: str) -> tuple[Subject, list[Counting]]:
    """A subject, and the lockers that it made."""
    made: list[Counting] = []

    def names() -> lockers.Names:
        made.append(AsyncCounting() if kind == "asyncio" else Counting())
        return {"l": made[-1]}

    code = lockers.AWAITED if kind == "asyncio" else lockers.CALLS
    return Subject("counting", kind, names, **code, timed="l.timed(k, t)"), made


@pytest.mark.sampled(4)
@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: f"{row.kind}-{row.name}")
def test_each_row_does_its_work_so_many_times_and_leaves_nothing_locked(row: workloads.Row) -> None:
    """What is locked is unlocked, and as often as the figure is divided by."""
    subject, made = counting(row.kind)
    assert row.applies(subject)
    times = TIMES.get(row.name, row.steady or 40)
    figure = row.run(subject, times)
    (locker,) = made
    locked, unlocked = locker.count("lock"), locker.count("unlock")
    assert locked == unlocked
    expected = {
        "lock": times,
        "block": times,
        "keys": workloads.HELD_KEYS,
        "hand-off": 2 * times + 3,
        "crowd": times + (0 if row.kind == "asyncio" else 1),
        "crowd-yields": times + 1,
        "held": times,
        "waiter": times + 1,
        "kept": times + workloads.FIRST_KEYS,
    }
    if row.name in expected:
        assert locked == expected[row.name]
    else:
        # Every waiter that did not give up was served at last, and the first holder.
        assert row.name.startswith("cancel-")
        left = min(workloads.GIVING_UP, times)
        asked = locker.count("asks") if row.kind == "asyncio" else locked + locker.count("timed")
        assert (asked, locked) == (times + 1, times + 1 - left)
    if row.name == "kept":
        assert len({key for _, key in locker.events}) == times
    if row.name != "waiter":
        assert figure >= 0


def test_the_row_of_many_keys_holds_them_at_once() -> None:
    subject, made = counting("threads")
    workloads.many_keys(subject, workloads.HELD_KEYS)
    assert made[0].most == workloads.HELD_KEYS


def test_a_block_that_is_taken_apart_by_hand_locks_as_well() -> None:
    """A subject without lock and unlock is entered and left, also by several threads at once."""
    subject = Subject(
        "block only", "threads", lambda: {"l": lockers.LockAndCount(threading.Lock)}, hold="l.generated(k)"
    )
    workloads.prove(subject)
    assert ROWS["threads", "hand-off"].run(subject, 20) > 0
    assert not ROWS["threads", "lock"].applies(subject)


class Nothing:
    """Locks nothing."""

    def lock(self, key: Hashable) -> None:
        pass

    def unlock(self, key: Hashable) -> None:
        pass

    def timed(self, key: Hashable, seconds: float) -> bool:
        return True

    def hold(self, key: Hashable) -> lockers.EmptyLease:
        return lockers.EmptyLease(lockers.EmptyBlock(), key)


class AsyncNothing(Nothing):
    async def lock(self, key: Hashable) -> None:  # type: ignore[override]
        pass


def nothing(kind: str) -> Subject:
    make: Callable[[], Any] = AsyncNothing if kind == "asyncio" else Nothing
    code = lockers.AWAITED if kind == "asyncio" else lockers.CALLS
    return Subject("nothing", kind, lambda: {"l": make()}, **code, timed="l.timed(k, t)")


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_who_locks_nothing_is_noticed_before_anything_is_measured(kind: str) -> None:
    with pytest.raises(workloads.NotExclusiveError, match="nothing: a second"):
        workloads.prove(nothing(kind))
    workloads.prove(counting(kind)[0])


@pytest.mark.parametrize(
    "name", ["hand-off", "crowd-yields", "cancel-8"] + [f"asyncio {row}" for row in ("hand-off", "crowd", "cancel-8")]
)
def test_who_locks_nothing_is_noticed_where_keys_are_contested(name: str) -> None:
    *kinds, name = name.split()
    kind = kinds[0] if kinds else "threads"
    row = ROWS[kind, name]
    with pytest.raises(workloads.NotExclusiveError, match="nothing: "):
        row.run(nothing(kind), row.steady or 2000)


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_who_never_ends_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locker with one lock for all keys, where a hand-off needs two."""
    monkeypatch.setattr(workloads, "STUCK_SECONDS", 0.5)
    make = asyncio.Lock if kind == "asyncio" else threading.Lock
    lock = "await l.acquire()" if kind == "asyncio" else "l.acquire()"
    subject = Subject("one lock", kind, lambda: {"l": make()}, hold="l", lock=lock, unlock="l.release()")
    with pytest.raises(workloads.StuckError):
        ROWS[kind, "hand-off"].run(subject, 5)


def test_lost_turns_are_noticed() -> None:
    inside = workloads.Inside("x")
    inside.leave(inside.enter())
    inside.whole(1)
    with pytest.raises(workloads.NotExclusiveError, match="1 of 2 turns"):
        inside.whole(2)
    inside.enter()
    with pytest.raises(workloads.NotExclusiveError, match="two in the block"):
        inside.enter()


@pytest.mark.parametrize("subject", [*THREADS, *ASYNCIO], ids=lambda one: f"{one.kind}-{one.name}")
def test_each_subject_that_is_installed_locks(subject: Subject) -> None:
    found, missing = lockers.installed([subject])
    if not found:
        pytest.skip(str(missing))
    workloads.prove(subject)
    for name in ("lock", "block", "keys", "hand-off", "crowd"):
        row = ROWS[subject.kind, name]
        if row.applies(subject):
            row.run(subject, 20)


def test_what_is_not_installed_is_told_and_not_measured() -> None:
    def raises() -> lockers.Names:
        raise ImportError("not here")

    present = Subject("present", "threads", lambda: {"l": None})
    absent = Subject("absent", "threads", raises, package="pytest")
    unknown = Subject("unknown", "threads", lambda: {"l": None}, package="no-such-package-anywhere")
    found, missing = lockers.installed([present, absent, unknown])
    assert found == [present]
    assert missing["absent (threads)"] == "ImportError: not here"
    assert "PackageNotFoundError" in missing["unknown (threads)"]


@pytest.mark.long
def test_bytes_for_a_key_are_those_that_a_locker_keeps() -> None:
    """A locker that keeps a kilobyte for each key is told from one that keeps nothing."""

    class Heavy(Nothing):
        def __init__(self) -> None:
            self.kept: list[bytes] = []

        def lock(self, key: Hashable) -> None:
            self.kept.append(bytes(1024))

    heavy = Subject("heavy", "threads", lambda: {"l": Heavy()}, **lockers.CALLS)
    assert 1024 <= ROWS["threads", "held"].run(heavy, 200) < 1024 + 100
    assert ROWS["threads", "kept"].run(heavy, 200) >= 200 * 1024
    assert ROWS["threads", "kept"].run(nothing("threads"), 200) < 1024


def test_a_slow_subject_locks_fewer_keys_and_the_figure_says_so() -> None:
    row = workloads.Row("kept", "threads", "bytes kept", lambda subject, times: 0.0, lambda subject: True, True, 50_000)
    assert child.bounded(row, nothing("threads")) == 50_000
    pressed = replace(row, most_seconds=1e-9)
    assert child.bounded(pressed, nothing("threads")) == child.PROBE
    (few,) = standing.standings([Sample("threads", "kept", OURS, 1, 0, 7.0, None, child.PROBE)])
    assert run.shown_figure(pressed, few) == "7 after 1,000"
    (all_of_them,) = standing.standings([Sample("threads", "kept", OURS, 1, 0, 7.0, None, 50_000)])
    assert run.shown_figure(pressed, all_of_them) == "7"


def sample(subject: str, figure: float, turn: int = 0, floor: float | None = 1.0, row: str = "lock") -> Sample:
    return Sample("threads", row, subject, 1, turn, figure, floor)


def test_ratios_are_taken_within_a_pass() -> None:
    """A pass in which the machine was slow is slow for all, and says the same."""
    samples = [sample(OURS, 2.0), sample("recipe", 3.0), sample(OURS, 20.0, 1, 10.0), sample("recipe", 30.0, 1, 10.0)]
    mine, other = standing.standings(samples)
    assert (mine.subject, mine.samples, mine.figure) == (OURS, 2, Span(2.0, 11.0, 20.0))
    assert mine.to_floor == Span(2.0, 2.0, 2.0)
    assert other.to_ours == Span(1.5, 1.5, 1.5)


def test_a_ratio_to_nothing_is_none() -> None:
    (one, other) = standing.standings([sample(OURS, 0.0, floor=None), sample("recipe", 5.0, floor=None)])
    assert one.to_floor is one.to_ours is other.to_floor is other.to_ours is None


def reached(*samples: Sample) -> dict[str, bool]:
    rows = [ROWS["threads", "lock"], ROWS["threads", "held"]]
    found = standing.goals(rows, THREADS, list(standing.standings(samples)))
    return {f"{one.row.partition(',')[0]}: {one.what}": one.met for one in found}


def test_goals_are_met_by_what_meets_them_and_by_nothing_else() -> None:
    ahead, within = "lock and unlock: ahead of every peer", "lock and unlock: within 3 x the floor"
    assert reached(sample(OURS, 2.9), sample("recipe", 3.0)) == {ahead: True, within: True}
    assert reached(sample(OURS, 3.1), sample("recipe", 3.0)) == {ahead: False, within: False}
    # One peer that is ahead is enough, and a reference is no peer.
    assert not reached(sample(OURS, 2.0), sample("recipe", 3.0), sample("aiologic per key", 1.9))[ahead]
    assert reached(sample(OURS, 2.0), sample("recipe", 3.0), sample("threading.Lock", 0.1))[ahead]
    # What was not measured has no goals.
    assert reached(sample("recipe", 3.0)) == {}
    nothing_kept = reached(sample(OURS, 0.0, row="held"), sample("recipe", 0.0, row="held"))
    assert nothing_kept == {"bytes for a held key: no more than any peer": True}


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_flat_is_a_cancel_that_costs_the_same_among_many(kind: str) -> None:
    """Of threads, beside a lock that has no queue of its own: so many threads cost more whatever they wait for."""

    def flat(last: float, reference: float) -> list[bool]:
        samples = [
            Sample(kind, row, subject, 1, 0, figure, 1.0)
            for subject, figures in ((OURS, (1.0, last)), ("defaultdict(Lock)", (1.0, reference)))
            for row, figure in zip(("cancel-100", "cancel-10000"), figures, strict=True)
        ]
        return [one.met for one in standing.goals([], THREADS, list(standing.standings(samples)))]

    assert flat(1.2, 1.0) == [True]
    assert flat(90.0, 1.0) == [False]
    assert flat(5.0, 2.0) == [kind == "threads"]
    assert flat(5.0, 0.1) == [False]


def test_each_group_of_bars_may_have_its_own_scale() -> None:
    bars = [picture.Bar("small", "a", 1.0, ""), picture.Bar("big", "a", 100.0, ""), picture.Bar("big", "b", 50.0, "")]
    lines = [line.count("█") for line in picture.text_bars(bars, width=40, per_group=True) if line.startswith(" ")]
    assert lines == [40, 40, 20]


def command(*arguments: str, program: tuple[str, ...] = (str(RUN),)) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *program, *arguments], capture_output=True, text=True, timeout=300)


QUICK = ["--quick", "--queues", "3", "6", "--distinct", "100"]


@pytest.mark.long
def test_the_whole_benchmark_says_everything(tmp_path: Path) -> None:
    """Each row with each subject that applies, in the JSON and the page; and the rest by name."""
    page = tmp_path / "page.md"
    shutil.copy(ROOT / "docs" / "benchmarks.md", page)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    section = f"<!-- python {version}: written by benchmarks/locks/run.py -->"
    if section not in page.read_text(encoding="utf-8"):
        page.write_text(f"{page.read_text(encoding='utf-8')}{section}\n<!-- end of python {version} -->\n", "utf-8")
    files = ["--json", str(tmp_path / "f.json"), "--write", str(page)]
    done = command(*QUICK, "--seed", "7", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert document["failed"] == {}
    subjects, missing = lockers.installed([*REFERENCES, *THREADS, *ASYNCIO])
    assert document["missing"] == missing
    wanted = {
        (row.kind, row.name, one.name) for row in workloads.rows((3, 6), 100) for one in subjects if row.applies(one)
    }
    assert {(one["kind"], one["row"], one["subject"]) for one in document["figures"]} == wanted
    timed = {(row["kind"], row["name"]) for row in document["rows"] if not row["counted"]}
    assert all(one["floor"] for one in document["samples"] if (one["kind"], one["row"]) in timed)
    assert document["options"]["seed"] == 7
    assert "seed 7" in done.stdout
    assert len([one for one in document["goals"] if one["what"].startswith("within")]) == 6
    text = page.read_text(encoding="utf-8")
    # Two tables for each kind: of all rows that are timed, and of all that are counted.
    lines = re.findall(r"^\| kmutex \|(.*)\|$", text.partition(section)[2].partition("<!-- end of")[0], re.MULTILINE)
    assert sum(len(line.split("|")) for line in lines) == len({pair[:2] for pair in wanted})
    assert len(lines) == 4
    assert all(f"| {one.name} |" in text for one in [*REFERENCES, *THREADS, *ASYNCIO])


@pytest.mark.long
def test_a_run_can_be_shown_again_without_measuring(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    chosen = ["--only", "lock", "held", "--kind", "threads", "--subject", OURS, "recipe"]
    done = command(*QUICK, *chosen, "--json", str(first))
    assert done.returncode == 0, done.stderr
    again = command("--again", str(first), "--json", str(second))
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert second.read_text(encoding="utf-8") == first.read_text(encoding="utf-8")
    assert command("--again", str(tmp_path / "none.json")).returncode == 3


def test_rows_and_subjects_can_be_chosen_and_the_floor_is_always_there(tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    done = command(*QUICK, "--only", "lock", "--kind", "threads", "--subject", "recipe", "--json", str(out))
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    assert {(one["row"], one["subject"]) for one in figures} == {("lock", FLOOR), ("lock", "recipe")}


def test_a_subject_that_does_not_lock_is_left_out_and_exits_1(tmp_path: Path) -> None:
    """The child of the round finds it, in a process of its own."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import json, sys\n"
        f"sys.path[:0] = [{str(RUN.parent)!r}]\n"
        "import child\n"
        "from dataclasses import replace\n"
        "child.THREADS = tuple(replace(one, hold='', lock='pass', unlock='pass') if one.name == 'recipe' else one\n"
        "    for one in child.THREADS)\n"
        "child.run(json.load(sys.stdin), lambda event: print(json.dumps(event), flush=True))\n",
        encoding="utf-8",
    )
    program = (
        "import sys\n"
        f"sys.path[:0] = [{str(RUN.parent)!r}]\n"
        "import run, pathlib\n"
        f"run.CHILD = pathlib.Path({str(broken)!r})\n"
        "sys.exit(run.main())\n"
    )
    done = command(*QUICK, "--only", "lock", "--kind", "threads", "--subject", "recipe", OURS, program=("-c", program))
    assert done.returncode == 1, done.stderr
    assert "FAILED: recipe (threads), prove: NotExclusiveError: recipe: a second thread has the key" in done.stdout
    assert "│ recipe" not in done.stdout
    assert "│ kmutex" in done.stdout


def test_a_package_that_raises_is_told_and_left_out_and_the_others_are_measured() -> None:
    """Here in the row, not before; and it does not decide the exit."""

    class Raises(Nothing):
        def lock(self, key: Hashable) -> None:
            raise RuntimeError("mine")

    raising = Subject("raising", "threads", lambda: {"l": Raises()}, **lockers.CALLS, package="pytest")
    events: list[dict[str, Any]] = []
    child.measure(
        ROWS["threads", "lock"], [raising, counting("threads")[0]], 1, 0.0001, random.Random(1), events.append
    )
    assert events[0] == {"failed": "raising", "kind": "threads", "row": "lock", "why": "RuntimeError: mine"}
    assert [event["subject"] for event in events[1:]] == ["counting"]
    found = run.Measured()
    run.take(found, {**events[0], "failed": "aiologic per key"}, 1, lambda words: None)
    assert (len(found.failed), found.own_failed) == (1, False)
    run.take(found, {**events[0], "failed": OURS}, 1, lambda words: None)
    assert (len(found.failed), found.own_failed) == (2, True)


def test_a_round_that_breaks_exits_3(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(7)\n", encoding="utf-8")
    program = (
        f"import sys; sys.path[:0] = [{str(RUN.parent)!r}]; import run, pathlib\n"
        f"run.CHILD = pathlib.Path({str(broken)!r}); sys.exit(run.main())"
    )
    done = command(*QUICK, "--only", "lock", program=("-c", program))
    assert done.returncode == 3
    assert done.stdout == ""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_leaves_no_process(sent: signal.Signals) -> None:
    # So many keys that the first row takes longer than the test may.
    arguments = ["--only", "kept", "--subject", OURS, "--distinct", "100000000"]
    process = subprocess.Popen([sys.executable, str(RUN), *QUICK[:4], *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "round 1" in process.stderr.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    assert children
    process.send_signal(sent)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == 128 + sent
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--only", "nothing"], ["--subject", "nobody"], ["--what"]])
def test_wrong_arguments_exit_4(wrong: list[str]) -> None:
    done = command(*wrong)
    assert done.returncode == 4
    assert "usage:" in done.stderr


@pytest.mark.valgrind
def test_instructions_are_of_the_work_and_not_of_the_start(tmp_path: Path) -> None:
    out, page = tmp_path / "f.json", tmp_path / "page.md"
    shutil.copy(ROOT / "docs" / "benchmarks.md", page)
    arguments = ["--only", "lock", "--kind", "threads", "--subject", OURS, "--count"]
    done = command(*QUICK, *arguments, "--json", str(out), "--write", str(page))
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    counted = {one["subject"]: one["figure"]["median"] for one in figures if one["row"] == "lock-instructions"}
    assert set(counted) == {FLOOR, OURS}
    # Starting Python takes millions; a lock and an unlock take a few method calls more than the floor.
    assert 100 < counted[FLOOR] < counted[OURS] < 100 * counted[FLOOR]
    assert re.search(rf"\| {OURS} \| {counted[OURS]:,.0f} \(1.00\) \|", page.read_text(encoding="utf-8"))


def test_the_page_has_a_place_for_each_python_that_the_session_measures() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for section in ("subjects", "python 3.11", "python 3.13"):
        assert f"<!-- {section}: written by benchmarks/locks/run.py -->" in page
        assert f"<!-- end of {section} -->" in page
