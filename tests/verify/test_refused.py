"""What kmutex verify refuses: exit statuses 3 and 4, and one line that says why.

The command runs in this process, the subjects in processes of their own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import run_here
from tests.lockers.catalogue import entries
from tests.verify.folder import prepared

ENOUGH = ("2", "10", "40")
"""Seconds to verify with, one after the other, until they are enough for this machine."""
HANGS = ("import hangs", "factory hangs", "lock spins", "async lock spins", "a child that stays")
"""They are waited for until their time is over."""
REFUSED = {
    "a module that is not there": (("no_such_module:Locker",), "no module 'no_such_module'"),
    "a package that is not there": (("no_such.module:Locker",), "no module 'no_such'"),
    "a module that needs one": (("needs:Locker",), "No module named 'no_such_module_anywhere'"),
    "an attribute that is not there": (("subjects:Nobody",), "subjects has no 'Nobody'"),
    "a nested one": (("subjects:Sound.Nobody",), "subjects has no 'Sound.Nobody'"),
    "a standard module": (("queue:Locker",), "this is the standard library's module"),
    "import raises": (("raises:Locker",), "importing raises raised ValueError: not"),
    "import exits": (("exits:Locker",), "importing exits raised SystemExit: 0"),
    "import leaves": (("leaves:Locker",), "ended the process it ran in (status 0)"),
    "import hangs": (("hangs:Locker",), "did not return from its import"),
    "import sleeps": (("sleeps:Locker",), "did not return from its import"),
    "import of nonsense": (("wrong:Locker",), "importing wrong raised SyntaxError"),
    "not callable": (("subjects:not_callable",), "has no known form of a lock for a key"),
    "factory raises": (("subjects:FactoryRaises",), "the factory raised ValueError: no"),
    "factory hangs": (("subjects:FactoryHangs",), "no scheduling point for"),
    "factory exits": (("subjects:FactoryExits",), "the factory raised SystemExit: 0"),
    "factory is killed": (("subjects:FactoryIsKilled",), "ended the process it ran in (status -9)"),
    "factory needs arguments": (("subjects:FactoryNeedsArguments",), "write MODULE:FactoryNeedsArguments(...)"),
    "two lockers share a guard": (("subjects:SharesItsGuard",), "two lockers of the factory share more than"),
    "a child that stays": (("subjects:LeavesChildren",), "no scheduling point for"),
    "a module without": (("subjects",), "name a class or a function of it: subjects:NAME"),
    "no lock": (("subjects:NoLock",), "NoLock has no known form of a lock for a key"),
    "no unlock": (("subjects:NoUnlock",), "NoUnlock has no known form of a lock for a key"),
    "no key": (("subjects:NoKey",), "found lock(), unlock()"),
    "an attribute that raises": (("subjects:AttributeRaises",), "raised OSError: not now"),
    "a name that it has not": (("subjects:Sound", "--call", "get=lock_for"), "Sound has no lock_for(), which --call"),
    "lock spins": (("subjects:Spins",), "no scheduling point for 2 s, at subjects.py"),
    "lock waits forever": (("subjects:WaitsForEver",), "does not return"),
    "lock raises": (("subjects:Raises",), "raised RuntimeError: nope"),
    "lock raises without words": (("subjects:ErrorWithoutWords",), "raised SpeechlessError"),
    "lock leaves": (("subjects:Leaves",), "ended the process it ran in (status 0)"),
    "lock exits": (("subjects:Exits",), "tried to leave the process"),
    "lock exits when contended": (("subjects:ExitsLater",), "tried to leave the process"),
    "lock leaves when contended": (("subjects:LeavesLater",), "ended the process it ran in (status 0)"),
    "len exits": (("subjects:LengthExits",), "len() raised SystemExit"),
    "lock crashes": (("subjects:SegmentationFault",), "ended the process it ran in (status -11)"),
    "lock waits out of control": (("subjects:ForeignLock",), "out of the scheduler's control"),
    "async lock spins": (("subjects:AsyncSpins",), "its first lock()"),
    "async lock yields forever": (("subjects:AsyncYieldsForEver",), "does not return"),
    "async lock waits forever": (("subjects:AsyncWaitsForEver",), "does not return"),
    "flights of trio's": (("for_trio:Flights",), "it waits by trio, and no single flight is run there"),
    "trio's input": (("for_trio:BySocket",), "waits for input or output, which the scheduler does not replace"),
    "trio's threads": (("for_trio:ByThread",), "out of the scheduler's control"),
    "replay out of control": (
        ("subjects:ForeignLock", "--replay", "0+a | 1+a @locks"),
        "out of the scheduler's control",
    ),
    "replay that leaves": (("subjects:LeavesLater", "--replay", "0+a | 1+a @locks"), "ended the process"),
    "replay that exits": (("subjects:ExitsLater", "--replay", "0+a | 1+a @locks"), "tried to leave"),
    "replay of nobody": (("subjects:Nobody", "--replay", "0+a @locks"), "has no 'Nobody'"),
}
"""Exit status 3: the command, and words of its complaint."""

USAGE = {
    "no command": ((), "COMMAND"),
    "no such command": (("disprove",), "invalid choice"),
    "no such option": (("verify", "--fast"), "unrecognized arguments"),
    "no module": (("verify", ":Sound"), "not of the form MODULE:FACTORY"),
    "no factory": (("verify", "subjects:"), "not of the form MODULE:FACTORY"),
    "no such feature": (("verify", "subjects:Sound", "--without", "speed"), "'speed' is not a feature"),
    "one of two features": (("verify", "subjects:Sound", "--without", "fifo,speed"), "'speed' is not a feature"),
    "features without a subject": (("verify", "--without", "fifo"), "need a subject"),
    "a replay without a subject": (("verify", "--replay", "0+a @locks"), "need a subject"),
    "no role": (("verify", "subjects:Sound", "--call", "open=lock"), "'open=lock' names no call"),
    "half a pair": (("verify", "subjects:Sound", "--call", "lock=lock"), "lock and unlock go together"),
    "two ways": (("verify", "subjects:Sound", "--call", "get=lock,block=lock"), "different forms of a lock"),
    "no name": (("verify", "subjects:Sound", "--call", "get=lock()"), "'lock()' is not the name"),
    "no type": (("verify", "subjects:Sound", "--keys", "text"), "'text' is not a type of keys"),
    "no expression": (("verify", "subjects:Sound("), "'Sound(' is not a Python expression"),
    "a sum": (("verify", "subjects:Sound(1 + 1)"), "a factory is a name, an attribute, or a call"),
    "a lambda": (("verify", "subjects:lambda: 1"), "a factory is a name, an attribute, or a call"),
    "no number": (("verify", "subjects:Sound", "--seconds", "soon"), "'soon' is not a number of seconds"),
    "no time": (("verify", "subjects:Sound", "--seconds", "0"), "'0' is not a number of seconds"),
    "not a number": (("verify", "subjects:Sound", "--seconds", "nan"), "'nan' is not a number of seconds"),
    "forever": (("verify", "subjects:Sound", "--seconds", "inf"), "'inf' is not a number of seconds"),
    "no such folder": (("verify", "subjects:Sound", "--json", "nowhere/rows.json"), "no such folder"),
    "a picture of no run": (("verify", "subjects:Sound", "--picture", "p.svg"), "give its schedule with --replay"),
    "a picture of all": (("verify", "--picture", "p.svg"), "give its schedule with --replay"),
    "a picture of no kind": (
        ("verify", "subjects:Sound", "--replay", "0+a @locks", "--picture", "p.png"),
        ".svg, .mmd",
    ),
    "a folder for a picture": (
        ("verify", "subjects:Sound", "--replay", "0+a @locks", "--picture", "../p.svg/p.svg"),
        "no such folder",
    ),
    "no such folder for JUnit": (("verify", "subjects:Sound", "--junit", "nowhere/rows.xml"), "no such folder"),
    "a folder for a file": (("verify", "subjects:Sound", "--json", ".", "--seconds", "1"), "directory"),
    "a replay of nothing": (("verify", "subjects:Sound", "--replay", "again"), "is not a schedule"),
    "a replay of no program": (("verify", "subjects:Sound", "--replay", "0+A @locks"), "is not a step"),
    "a replay for tasks": (("verify", "subjects:Sound", "--replay", "0+a @tasks"), "cannot replay"),
    "a replay for threads": (("verify", "subjects:AsyncSound", "--replay", "0+a @locks"), "cannot replay"),
    "a replay of tries": (("verify", "subjects:AsyncSound", "--replay", "0+a @tasks"), "needs a timeout of 0"),
    "a replay of leases": (("verify", "subjects:Sound", "--replay", "0[a]a @locks"), "no hold()"),
}
"""Exit status 4."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("refused") / "here")


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader stands in that folder."""
    monkeypatch.chdir(folder)


def test_each_subject_that_must_fail_is_tried() -> None:
    """What the catalogue says of the odd ones is put to the test here."""
    failing = {f"subjects:{row.attribute}" for row in entries(kind=("threads", "asyncio"), expect="failed")}
    assert failing <= {arguments[0] for arguments, _ in REFUSED.values()}


@pytest.mark.sampled(4)
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in HANGS else name for name in REFUSED]
)
def test_what_can_not_be_put_to_work_is_said_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = REFUSED[name]
    for seconds in ENOUGH:
        done = run_here(monkeypatch, capsys, "verify", *arguments, "--seconds", seconds)
        if done.status != 2:
            break
    assert (done.status, done.out, done.left) == (3, "", []), done.err
    (line,) = done.err.splitlines()
    assert line.startswith("kmutex: cannot verify ")
    assert words in line


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_said_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = USAGE[name]
    done = run_here(monkeypatch, capsys, *arguments)
    assert (done.status, done.left) == (4, []), done.err
    said = [line for line in done.err.splitlines() if not line.startswith(("usage:", " "))]
    assert len(said) == 1, done.err
    assert said[0].startswith("kmutex")
    assert words in said[0]
