"""The command ``kmutex conform`` with sound adapters, known-bad ones, and ones that misbehave."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from kmutex.cli import main
from kmutex.conform.player import CaseVerdict, Waits
from tests.lockers.catalogue import entries

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ADAPTERS = [sys.executable, str(ROOT / "tests" / "lockers" / "adapters.py")]
EXAMPLE = [sys.executable, str(ROOT / "examples" / "adapters" / "adapter.py")]


def conform(*options: str, adapter: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kmutex", "conform", "--random", "6", *options, "--", *adapter]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, cwd=HERE)


def misbehaving(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return conform("--timeout", "1", "--failures", "3", *options, adapter=[*ADAPTERS, name])


def last(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stdout + done.stderr
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


@pytest.mark.parametrize("subject", ["kmutex:KeyedMutex", "kmutex:AsyncKeyedMutex"])
@pytest.mark.long
def test_the_librarys_own_lockers_conform(subject: str) -> None:
    done = conform(adapter=[*EXAMPLE, subject])
    assert done.returncode == 0, done.stdout + done.stderr
    assert last(done).startswith("conforms: ")


@pytest.mark.parametrize("name", ["Sound", "BlackBox", "Bare"])
@pytest.mark.long
def test_sound_adapters_conform(name: str, tmp_path: Path) -> None:
    """At both levels, and with next to no feature; clauses that were not put to the test are not said to hold."""
    out = tmp_path / "report.json"
    done = misbehaving(name, "--settle", "5", "--json", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(out.read_text(encoding="utf-8"))
    assert said["passed"] == said["vectors"] + said["random"] > 20
    assert said["clauses"]["KM-EXCL"]["result"] == "holds"
    assert said["clauses"]["KM-TOKEN"]["result"] == ("off" if name == "Bare" else "holds")
    assert said["clauses"]["KM-REF"]["result"] == ("off" if name == "BlackBox" else "holds")
    # KM-ATOMIC shows in the table only.
    atomic = {"Sound": "holds", "BlackBox": "inconclusive", "Bare": "off"}
    assert said["clauses"]["KM-ATOMIC"]["result"] == atomic[name]


def test_a_silence_longer_than_the_time_limit_fails_no_sound_port() -> None:
    assert misbehaving("BlackBox", "--settle", "1500", "--case", "0+a/1+a/ua").returncode == 0


def test_a_case_that_needs_what_the_port_has_not_declared_is_no_verdict() -> None:
    done = misbehaving("Bare", "--case", "0?a")
    assert (done.returncode, done.stdout) == (2, "")
    assert "0?a needs try, which the adapter has not declared (KM-EXPIRED)" in done.stderr


def test_an_adapter_that_starts_only_once_loses_no_finding(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    adapter = [*ADAPTERS, "StartsOnce", str(tmp_path / "lock")]
    done = conform("--timeout", "1", "--json", str(out), adapter=adapter)
    assert done.returncode == 1, done.stdout + done.stderr
    said = json.loads(out.read_text(encoding="utf-8"))
    assert "KM-FIFO" in said["violated"]
    assert "started once more for this case, it failed" in done.stdout
    assert "holds" not in {clause["result"] for clause in said["clauses"].values()}


def test_what_no_file_can_hold_is_written_as_escapes(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "junit", "html")}
    done = misbehaving("OddName", *(word for kind, path in files.items() for word in (f"--{kind}", str(path))))
    assert done.returncode == 1, done.stdout + done.stderr
    assert r"odd \ud800 \x1b[2J\x00" in done.stdout
    suite = ElementTree.parse(files["junit"]).getroot()
    assert any(r"\ud800\x00 has 1 refs" in failure.attrib["message"] for failure in suite.iter("failure"))
    assert r"odd \ud800" in files["html"].read_text(encoding="utf-8")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "clause"), [("Lifo", "KM-FIFO"), ("KeepsEntries", "KM-IDLE"), ("ForgetsOnThird", "KM-CANCEL")]
)
def test_known_bad_adapters_are_rejected_by_name_and_replayed(name: str, clause: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = misbehaving(name, "--json", str(out))
    assert done.returncode == 1, done.stdout + done.stderr
    said = json.loads(out.read_text(encoding="utf-8"))
    assert clause in said["violated"]
    case = said["cases"][0]["case"]
    again = misbehaving(name, f"--case={case}")
    assert again.returncode == 1
    assert last(again).startswith("KM-")
    assert misbehaving("Sound", f"--case={case}").returncode == 0


def test_a_case_is_drawn(tmp_path: Path) -> None:
    """KM-FIFO: the same rows as in the text, as a file of its own."""
    file = tmp_path / "case.svg"
    done = misbehaving("Lifo", "--case=0+a/1+a/2+a", f"--picture={file}")
    assert done.returncode == 1
    root = ElementTree.parse(file).getroot()
    told = root.findtext("{*}desc") or ""
    assert "client 2: lock a: got it" in told
    assert told.split("; ")[-1].startswith("KM-FIFO: ")
    assert len(told.split("; ")) == sum(line[:5] != "KM-FI" for line in done.stdout.splitlines() if line) - 2


QUEUE = "/".join(f"{call}+a" for call in range(25))
KINDS = [
    ("StrayBeside", "0+a,ua/1+a*20", "KM-REF"),
    ("StrayBesideBox", "0+a,ua/1+a*20", "KM-EXCL"),
    ("AcceptsStray", "0+a,ua/1+a*20", "KM-UNHELD"),
    ("TryOvertakes", "0+a/1+a/2?a,3?a,ua,4?a*20", "KM-HANDOFF"),
    ("LosesEarlyCancel", "0+a/1+a,c1*20", "KM-CANCEL"),
    ("CutsKeys", "0+a/ua/1+a@300", "KM-INDEP"),
    ("Striped4", "0+a/ua/1+a@300", "KM-INDEP"),
    ("Striped1024", "0+a/ua/1+a@300", "KM-INDEP"),
    ("LeaksAfter50", "0+a/ua/1+a@300", "KM-IDLE"),
    ("LifoPastFive", QUEUE, "KM-FIFO"),
    ("SlowTry", "0+a/1?a/2?b/ub*20", "KM-EXPIRED"),
    ("SaysKeepPasses", "0+a/1+a/ua,c1*20", "KM-RACE"),
    ("SaysPassKeeps", "0+a/1+a/ua,c1*20", "KM-RACE"),
    ("DropsRacedGrant", "0+a/1+a/ua,c1/2+a", "KM-RACE"),
    ("SaysRefuseTakes", "0!a/ua", "KM-CANCEL"),
    ("SaysTakeRefuses", "0!a/ua", "KM-CANCEL"),
    ("EarlyCancelLost", "0+a/1!a/ua@300", "KM-CANCEL"),
    ("EarlyCancelHolds", "0!a/1?a", "KM-CANCEL"),
    ("EarlyCancelStaysQueued", "0+a/1+a/2!a/c1", "KM-CANCEL"),
    ("LimitLost", "0+a/1+a:50/2+b", "KM-CANCEL"),
    ("LimitTooSoon", "0+a/1+a:50/2+a/ua", "KM-EXPIRED"),
    ("LimitTooSoon", "0+a/1+a:60000/2+a:50/ua", "KM-EXPIRED"),
    ("LimitStaysQueued", "0+a/1+a:50/ua@300", "KM-CANCEL"),
    ("LimitEndsGrant", "0+a:50/1+a:50/2?a", "KM-EXCL"),
    ("LimitMeetsGrantBox", "0+a/1+a:10,ua/2+a*100", "KM-RACE"),
    ("LimitMeetsGrant", "0+a/1+a:10,ua/2+a*100", "KM-RACE"),
    ("TokensAgain", "0+a/ua/1+a@300", "KM-TOKEN"),
    ("TokensAgainUnleased", "0+a/ua/1+a", "KM-TOKEN"),
]
"""Mistakes that the small vectors do not show, the vector that does, and the clause."""


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("name", "case", "clause"), KINDS)
def test_each_kind_of_mistake_has_a_vector(name: str, case: str, clause: str) -> None:
    from kmutex.conform.vectors import load, meetings

    assert case in {vector.case.id for vector in (*load(), *meetings())}
    done = misbehaving(name, "--case", case)
    assert done.returncode == 1, done.stdout + done.stderr
    assert clause in last(done).partition(": ")[0].split(", ")


@pytest.mark.parametrize("name", ["Fields", "TakesEarly"])
def test_early_cancels_time_limits_and_tokens_of_a_sound_port(name: str) -> None:
    """KM-CANCEL, KM-EXPIRED, KM-RACE, KM-TOKEN: an early cancel may take a free key or not, and the port says which."""
    cases = [word for case in ("...!...", "0+a...:60000...", "0+a:50...", "...:10,ua...") for word in ("--run", case)]
    done = misbehaving(name, *cases, "--random", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("tokens that rise (no token)" in last(done)) == (name == "TakesEarly")
    assert "no deadline" not in last(done)


def test_fields_that_a_port_lacks_are_not_judged_and_the_last_line_says_so() -> None:
    done = misbehaving("Sound", "--run", "0!a...", "--run", "0+a/ua/1+a@300", "--random", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "calls that are cancelled before they begin (no done)",
        "time limits other than 0 (no deadline)",
        "tokens that rise (no token)",
    ):
        assert words in last(done)
    assert "without the feature done: calls that are cancelled before they begin not judged" in done.stdout
    lacks = misbehaving("Sound", "--case", "0!a/1?a")
    assert lacks.returncode == 2
    assert "0!a/1?a needs done, which the adapter has not declared" in lacks.stderr


@pytest.mark.parametrize("name", ["Keeps", "Passes"])
def test_a_port_may_keep_or_pass_if_it_says_so(name: str) -> None:
    assert misbehaving(name, "--case", "0+a/1+a/ua,c1*20").returncode == 0


@pytest.mark.long
def test_one_defect_everywhere_does_not_hide_the_rest(tmp_path: Path) -> None:
    """Of a table that never forgets, the third failure is the last, and every other clause is judged."""
    out = tmp_path / "report.json"
    some = [word for name in ("0+a/1+a/c1...", "0+a/ua...", "0+a/r0...") for word in ("--run", name)]
    done = misbehaving("KeepsEntries", *some, "--random", "2", "--failures", "20", "--json", str(out))
    assert done.returncode == 1, done.stdout + done.stderr
    said = json.loads(out.read_text(encoding="utf-8"))
    assert (said["violated"], len(said["cases"]), said["skipped"]) == (["KM-IDLE"], 3, 0)
    assert said["passed"] > 20
    assert {row["result"] for clause, row in said["clauses"].items() if clause != "KM-IDLE"} <= {"holds"}
    assert "KM-IDLE was shown broken 3 times, and not asked for after that" in done.stdout


@pytest.mark.long
def test_a_clause_is_left_out_and_the_others_are_judged() -> None:
    """Also of the table: what is kept counts no more, and a reference too many does."""
    cases = ("--run", "0+a/1+a/c1...", "--random", "2")
    done = misbehaving("KeepsEntries", *cases, "--without", "KM-IDLE")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "KM-IDLE (--without)" in last(done)
    assert misbehaving("LifoKeepsEntries", "--without", "KM-IDLE", "--case", "0+a/1+a/2+a/ua").returncode == 1
    assert misbehaving("KeepsEntries", "--without", "KM-REF", "--case", "0+a").returncode == 1
    both = ("--without", "KM-REF", "--without", "KM-IDLE")
    assert misbehaving("KeepsEntries", *both, "--case", "0+a/1+a").returncode == 0


def test_a_waiter_too_many_has_a_name_also_where_references_are_not_judged() -> None:
    done = misbehaving("LimitStaysQueued", "--without", "KM-REF", "--case", "0+a/1+a:50/2+b")
    assert done.returncode == 1, done.stdout + done.stderr
    assert ">> KM-CANCEL: after 1+a:50" in done.stdout


def test_the_last_line_has_the_bounds_and_what_was_not_judged() -> None:
    done = misbehaving("BlackBox", "--run", "0+a/ua/1+a@300", "--run", "0+a/1+a/2+a/3+a,c3/4+a")
    assert done.returncode == 0, done.stdout + done.stderr
    line = last(done)
    assert "2 vectors and 6 random sequences" in line
    assert "up to 300 keys, 3 waiters and " in line
    assert "KM-REF, KM-IDLE (no stat)" in line
    assert "KM-ATOMIC (only stat shows it)" in line
    assert "KM-TOKEN (no case that tests it passed)" in line


def test_the_first_failure_is_said_at_once() -> None:
    done = misbehaving("LifoBare", "--random", "0")
    assert re.match(r"after [\d.]+ s, the first: \S+: KM-FIFO: ", done.stdout)


@pytest.mark.long
def test_vectors_are_listed_chosen_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    from kmutex.conform.vectors import load, meetings

    def listed(*options: str) -> set[str]:
        with pytest.raises(SystemExit) as end:
            main(["conform", "--list", *options])
        assert end.value.code == 0
        return {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()}

    vectors = (*load(), *meetings())
    assert listed() == {vector.case.id for vector in vectors}
    assert listed("--run", "0+a/1+a/ua,c1*20") == {"0+a/1+a/ua,c1*20"}
    race = {vector.case.id for vector in vectors if "KM-RACE" in vector.clauses}
    assert listed("--run", "KM-RACE") == race
    assert listed("--run", "KM-RACE", "--skip", "...c1") == {name for name in race if not name.endswith("c1")}
    with pytest.raises(SystemExit) as end:
        main(["conform", "--list", "--run", "0?z"])
    assert end.value.code == 4


@pytest.mark.long
def test_adapters_that_lock_the_same_keys_are_not_blamed_for_it(tmp_path: Path) -> None:
    """What fails beside others and not alone is no failure, and no pass."""
    out = tmp_path / "report.json"
    command = ["--run", "0+a/1?a...", "--random", "0", "--timeout", "20", "--json", str(out)]
    adapter = [*ADAPTERS, "SharesKeys", str(tmp_path)]
    done = conform(*command, adapter=adapter)
    said = json.loads(out.read_text(encoding="utf-8"))
    assert said["violated"] == [], done.stdout
    assert (done.returncode == 0) == (said["passed"] == said["vectors"])
    assert done.returncode in (0, 2)
    assert conform(*command, "--jobs", "1", adapter=adapter).returncode == 0


def test_an_adapter_that_can_be_there_only_once_is_used_alone(tmp_path: Path) -> None:
    adapter = [*ADAPTERS, "StartsOnce", str(tmp_path / "lock")]
    done = conform("--jobs", "3", "--timeout", "1", adapter=adapter)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "KM-FIFO" in last(done)


def test_all_adapters_end_with_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kmutex", "conform", "--timeout", "600", "--jobs", "3", "--"]
    running = subprocess.Popen([*command, *ADAPTERS, "HangsInAll", str(tmp_path)], cwd=HERE, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(processes := list(tmp_path.iterdir())) < 3:
        assert time.monotonic() < end, f"{len(processes)} of 3 adapters are there"
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 128 + signal.SIGTERM
    assert not any(is_there(int(path.name)) for path in processes)


def test_a_case_is_repeated(tmp_path: Path) -> None:
    """What happens once in some rounds is found in enough of them, and a sound port stays so."""
    assert misbehaving("Forgets20th", "--case", "0+a/1+a/c1").returncode == 0
    assert misbehaving("Forgets20th", "--case", "0+a/1+a/c1", "--repeat", "30").returncode == 1


BREAKS = [
    ("Hangs", "no reply to stat within 1 s"),
    ("NeverReads", "no reply to stat within 1 s"),
    ("Dies", "it ended with status 2 while it was needed; its last words: panic: index out of range"),
    ("Babbles", "a reply to 1000000000, which no command has"),
    ("MinusOne", "a reply to -1, which no command has"),
    ("HalfALine", """amid the line b'{"id": '"""),
    ("PanicsLikeGo", "its last words: panic: all is lost"),
    ("PanicsLikeRust", "its last words: thread 'main' panicked at src/lib.rs:1:1: all is lost"),
    ("LongLine", "it wrote a line of more than 65536 bytes"),
    ("Binary", "it wrote a line that is not JSON"),
    ("SaysItTwice", "which has its reply or was never sent"),
    ("OwnWords", "its reply to unlock is 'done'"),
    ("NoToken", "no whole number as its token"),
    ("OddTable", "its reply to stat is not as"),
    ("OddNumbers", "its reply to stat is not as"),
    ("DiesOfAnOddSignal", r"it was killed by signal 37 while it was needed; its last words: \x1b[31m\x00 gone"),
]
STARTS_NOT = [
    ("HangsAtHello", "no reply to hello within 2 s"),
    ("DiesAtOnce", "it ended with status 1 while it was needed; its last words: no such library"),
    ("OldProtocol", "not a hello of protocol 1"),
    ("OddFeature", "the feature 'quantum', which there is not"),
]
"""Adapters that fail, and words of what is said."""


def test_each_adapter_that_must_fail_is_tried() -> None:
    """What the catalogue says of them is put to the test here."""
    tried = {"StaysAfterBye", *(name for name, _ in BREAKS + STARTS_NOT)}
    assert {row.attribute for row in entries(kind="adapter", expect="failed")} == tried


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "words"), BREAKS)
def test_an_adapter_that_breaks_gets_a_clear_verdict(name: str, words: str) -> None:
    """And the check ends soon: after three such cases there is no sense in going on."""
    done = misbehaving(name)
    assert done.returncode == 3, done.stdout + done.stderr
    assert words in done.stdout
    assert last(done).startswith("the adapter failed: ")


@pytest.mark.parametrize(("name", "words"), STARTS_NOT)
def test_an_adapter_that_cannot_start_gets_one_line(name: str, words: str) -> None:
    done = misbehaving(name, "--starting", "2" if name == "HangsAtHello" else "30")
    assert done.returncode == 3
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_an_adapter_that_is_not_there() -> None:
    done = conform(adapter=["./no-such-adapter"])
    assert (done.returncode, done.stdout) == (3, "")
    assert "can't start ./no-such-adapter" in done.stderr


@pytest.mark.long
def test_an_adapter_that_stays_after_bye_has_failed() -> None:
    done = misbehaving("StaysAfterBye", "--random", "0")
    assert done.returncode == 3
    assert "still there 1 s after bye" in done.stdout


@pytest.mark.long
def test_no_process_is_left_behind(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    misbehaving("HasChildren", "--random", "0", "--json", str(out))
    child = int(json.loads(out.read_text(encoding="utf-8"))["name"].split()[1])
    end = time.monotonic() + 60
    while is_there(child):
        assert time.monotonic() < end, f"process {child} is still there"
        time.sleep(0.01)


def test_a_hang_up_ends_the_adapter_too(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    adapter = [*ADAPTERS, "HangsAtHello", str(file)]
    command = [sys.executable, "-m", "kmutex", "conform", "--starting", "600", "--", *adapter]
    running = subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, "the adapter was not started"
        time.sleep(0.01)
    running.send_signal(signal.SIGHUP)
    assert running.wait(60) == 128 + signal.SIGHUP
    assert not is_there(int(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("name", "clause"), [("UnlockPanics", "KM-UNHELD"), ("CancelPanics", "KM-CANCEL")])
def test_a_call_that_ends_in_an_error_has_a_clause_and_its_own_words(name: str, clause: str) -> None:
    done = misbehaving(name, "--case", "ua" if name == "UnlockPanics" else "0+a/1+a/c1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert clause in last(done).partition(": ")[0].split(", ")
    assert "error: it can't be" in last(done)
    assert "OSError" not in done.stdout


def is_there(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.long
def test_a_failure_that_a_longer_silence_mends_is_slow_and_no_pass(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = misbehaving("SlowBox", "--run", "0+a/1+a/2+a/3+a/...", "--run", "0+a/1+a/2+b...", "--json", str(out))
    said = json.loads(out.read_text(encoding="utf-8"))
    assert done.returncode == 2, done.stdout
    assert "slow" in {case["verdict"] for case in said["cases"]}
    assert said["violated"] == []
    assert "holds" not in {clause["result"] for clause in said["clauses"].values()}


@pytest.mark.long
def test_a_slow_black_box_conforms_where_the_silence_is_long_enough() -> None:
    """What the haste of level 1 has against it is taken back, and a slow one that is wrong stays wrong (KM-FIFO)."""
    some = ("--settle", "120", "--run", "0+a/1+a/2+a/3+a/ua/4+a", "--random", "0")
    done = conform(*some, adapter=[*ADAPTERS, "SlowBox"])
    assert done.returncode == 0, done.stdout + done.stderr
    done = conform(*some, adapter=[*ADAPTERS, "LifoSlowBox"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert last(done).startswith("violated (KM-FIFO")


def test_a_quick_black_box_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a silence of half a second most is saved. The two runs are compared with each other, not with a clock."""
    from kmutex.conform import run
    from kmutex.conform.vectors import load

    chosen = ("0+a/1+a/ua/2+a", "0+a/1+a/2+a/ua/3+a")
    vectors = [vector for vector in load() if vector.case.id in chosen]
    options = run.Options(Waits(settle=0.5), 30.0, 0, 0, 100.0, 1, jobs=1)
    seconds = []
    for times in (0, run.TIMES):
        monkeypatch.setattr(run, "TIMES", times)
        result = run.Conformance([*ADAPTERS, "BlackBox"], options).check(vectors)
        assert [played.verdict for played in result.played] == [CaseVerdict.PASSED] * len(chosen)
        seconds.append(sum(played.seconds for played in result.played))
    assert seconds[1] < seconds[0] / 2, seconds


def test_out_of_time_is_no_pass() -> None:
    done = misbehaving("BlackBox", "--settle", "500", "--seconds", "1")
    assert done.returncode == 2
    assert "not begun" in last(done)


@pytest.mark.long
def test_known_failures_must_go_on_failing(tmp_path: Path) -> None:
    """Listed and failing: exit 0. Listed and passing: exit 1. Not listed and failing: exit 1."""
    from kmutex.conform.report import ConformReport
    from kmutex.conform.run import Conformance, Options
    from kmutex.conform.vectors import load

    vectors = [vector for vector in load() if set(vector.case.needs) <= {"fifo"}]

    def reported(name: str, known: dict[str, str]) -> ConformReport:
        options = Options(Waits(0.2, 0.01), 60.0, 0, 0, 1000.0, 1, known, whole=True)
        adapter = [*ADAPTERS, name]
        return ConformReport(Conformance(adapter, options).check(vectors), options, adapter, vectors)

    failing = {p.case.id: "as ever" for p in reported("LifoBare", {}).result.vectors if p.verdict is CaseVerdict.FAILED}
    assert len(failing) > 1
    known = reported("LifoBare", failing)
    assert (known.exit_status, len(known.known), known.violated) == (0, len(failing), [])
    healed = reported("Bare", failing)
    assert healed.exit_status == 1
    assert set(healed.healed) == set(failing)
    first = next(iter(failing))
    assert reported("LifoBare", {first: failing[first]}).exit_status == 1


@pytest.mark.long
def test_a_random_sequence_can_be_a_known_failure() -> None:
    """And others that break only what it breaks are counted with it; one that breaks more is not."""
    from kmutex.conform.report import ConformReport
    from kmutex.conform.run import Conformance, Options

    def reported(known: dict[str, str], adapter: str = "LifoBare", seed: int = 0) -> ConformReport:
        options = Options(Waits(0.2, 0.01), 10.0, 20, seed, 10_000.0, 999, known)
        command = [*ADAPTERS, adapter]
        return ConformReport(Conformance(command, options).check([]), options, command, [])

    found = reported({})
    name = found.result.random[-1].case.id
    assert (found.exit_status, len(found.failed)) == (1, 1)
    again = reported({name: "served from the wrong end"})
    assert (again.exit_status, again.failed, again.never) == (0, [], [])
    assert len(again.known) > 1
    assert reported({name: "mended"}, "Bare").healed == [name]
    assert reported({name: "of another seed"}, "Bare", 10_000).exit_status == 2
    broken = reported({name: "served from the wrong end"}, "LifoKeepsEntries")
    assert broken.exit_status == 1
    assert "KM-IDLE" in broken.violated


@pytest.mark.long
@pytest.mark.parametrize("name", ["Bare", "LifoBare"])
def test_a_flaky_case_may_fail_or_not(name: str, tmp_path: Path) -> None:
    """Listed by a pattern; what is not listed must pass all the same."""
    listed = tmp_path / "flaky.txt"
    listed.write_text("0+a/1+a,2+a...  a race\nrandom:KM-FIFO,KM-HANDOFF  the same race\n")
    done = misbehaving(name, "--known-flaky", str(listed), "--run", "0+a/1+a,2+a...", "--random", "6")
    assert done.returncode == 0, done.stdout
    assert ("flaky, as listed" in last(done)) == (name == "LifoBare")
    assert misbehaving(name, "--known-flaky", str(listed), "--case", "0+a/1+a/2+a/ua").returncode == (name != "Bare")


def test_a_panic_can_be_flaky_too(tmp_path: Path) -> None:
    """It decides nothing else."""
    listed = tmp_path / "flaky.txt"
    listed.write_text("0+a/1+a,c1...  it panics now and then\n")
    done = misbehaving("Dies", "--known-flaky", str(listed), "--run", "0+a/1+a,c1*20", "--random", "0")
    assert done.returncode == 2, done.stdout
    assert "1 flaky, as listed" in last(done)


def test_reports_for_ci_have_every_case(tmp_path: Path) -> None:
    """JUnit and TAP: those that passed, failed, are known to fail, and were not played, with the reason."""
    junit, tap, known = tmp_path / "junit.xml", tmp_path / "report.tap", tmp_path / "known.txt"
    known.write_text("0+a/1+a/2+a/ua...  served from the wrong end\n")
    files = ("--junit", str(junit), "--tap", str(tap), "--known-failures", str(known))
    done = misbehaving("LifoBare", "--run", "0+a/1+a...", "--skip", "...@300", "--failures", "1", *files)
    assert done.returncode == 1, done.stdout
    suite = ElementTree.parse(junit).getroot()
    cases = suite.findall("testcase")
    assert {case.attrib["classname"] for case in cases} == {"kmutex.vectors"}
    assert all(float(case.attrib["time"]) >= 0 for case in cases)
    count = {kind: len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "error", "skipped")}
    assert [int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")] == [
        len(cases),
        *count.values(),
    ]
    reasons = {skip.attrib["message"] for skip in suite.findall("testcase/skipped")}
    assert {"needs cancel", "left out by --run or --skip", "not begun"} <= reasons
    lines = tap.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["TAP version 14", f"1..{len(cases)}"]
    tests = [line for line in lines if re.match(r"(not )?ok \d", line)]
    assert [line.split(" - ")[0].split()[-1] for line in tests] == [str(number + 1) for number in range(len(cases))]
    assert sum("# SKIP " in line or "# TODO " in line for line in tests) == count["skipped"]
    assert sum(line.startswith("not ok") and "# TODO" not in line for line in tests) == count["failure"]


@pytest.mark.long
def test_a_known_failure_that_passes_is_said(tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text("# of the next release\n0+a/1+a,2+a/...  served from the wrong end\n")
    done = misbehaving("Bare", "--known-failures", str(known), "--run", "0+a/1+a,2+a...")
    assert done.returncode == 1, done.stdout
    assert "take it out of the list" in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0+a\n", "has no reason"),
        ("zero why\n", "is not a command"),
        ("ua x\nua y\n", "listed twice"),
        ("random:KM-NONE why\n", "'KM-NONE' is not a clause"),
    ],
)
def test_a_list_of_known_failures_that_is_none(text: str, words: str, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text(text)
    done = misbehaving("Sound", "--known-failures", str(known))
    assert (done.returncode, done.stdout) == (4, "")
    assert words in done.stderr


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "options",
    [
        ["--case", "1+a"],
        ["--case", "0+a/1+a/ua,ua"],
        ["--seed", "-1"],
        ["--picture", "x.svg"],
        ["--case", "0+a", "--picture", "x.png"],
        ["--json", "/no/such/x"],
        ["--timeout", "0"],
        ["--settle", "0"],
        ["--jobs", "0"],
        ["--without", "KM-EXCL"],
        ["--without", "fifo"],
        ["--run", "0?z"],
        ["--case", "0+a", "--run", "0+a"],
    ],
)
def test_wrong_usage(options: list[str]) -> None:
    done = misbehaving("Sound", *options)
    assert (done.returncode, done.stdout) == (4, "")
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_the_random_sequence_that_fails_is_made_smaller(tmp_path: Path) -> None:
    """Vectors find this as well; with them away, the sequences alone must come down to the shortest story."""
    from kmutex.conform.run import Conformance, Options

    options = Options(Waits(0.5, 0.02), 10.0, 200, 0, 100.0, 3)
    result = Conformance([*ADAPTERS, "ForgetsOnThird"], options).check([])
    assert result.smaller is not None
    assert result.smaller.verdict is CaseVerdict.FAILED
    assert result.smaller.case.id == "0+a/1+a/2+a/c2"


@pytest.mark.long
def test_a_black_box_is_made_smaller_by_confirmed_failures_only() -> None:
    """One that is late as well fails without a long silence; the short form fails with one."""
    from kmutex.conform.case import parse_moves
    from kmutex.conform.expected import make_case
    from kmutex.conform.run import Conformance, Options

    command = [*ADAPTERS, "LifoSlowBox"]
    result = Conformance(command, Options(Waits(0.5, 0.02), 10.0, 50, 0, 100.0, 3)).check([])
    assert result.smaller is not None
    assert result.smaller.verdict is CaseVerdict.FAILED
    patient = Options(Waits(1.0, 0.5), 10.0, 0, 0, 100.0, 3)
    again = Conformance(command, patient).one(make_case(parse_moves(result.smaller.case.id)))
    assert again.verdict is CaseVerdict.FAILED
    assert set(again.clauses) & set(result.smaller.clauses)


def test_the_reports_say_the_same(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "junit", "html")}
    done = misbehaving("KeepsEntries", *(word for kind, path in files.items() for word in (f"--{kind}", str(path))))
    said: dict[str, Any] = json.loads(files["json"].read_text(encoding="utf-8"))
    suite = ElementTree.parse(files["junit"]).getroot()
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) >= len(said["cases"])
    page = files["html"].read_text(encoding="utf-8")
    assert page.count("<article>") == len(said["cases"])
    for case in said["cases"]:
        assert case["replay"].startswith("kmutex conform --timeout 1 --case ")
        assert case["case"] in page
    pictures = re.findall("<svg .*?</svg>", page, re.DOTALL)
    assert len(pictures) == len(said["cases"])
    assert all(ElementTree.fromstring(picture).attrib["role"] == "img" for picture in pictures)
    assert not re.search(r"(src|href)\s*=", page)
    assert last(done) in page.replace("&#x27;", "'")


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """`kmutex conform ... | head -1` says nothing on standard error."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "kmutex", "conform", "--random", "0", "--case", "0+a", "--", *ADAPTERS, "Sound"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
