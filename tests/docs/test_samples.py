"""Every sample of code in the documentation is run, or says why not.

A page is run from top to bottom in a folder of its own, so that a later sample can use what an earlier one has made.
In the folder are what the pages speak of: an adapter, and a package with a locker. A sample that begins with the name
of a file, ``# locks.py``, is written there; the files of README.md are in every folder.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import SkipTest

import pytest
from markdown_it import MarkdownIt

pytest.importorskip("sybil", reason="the dev extra has sybil: pip install -e '.[dev]'")

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "specs/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
)
STARTS = ("ci", "newcomers", "porters", "teachers")
LONG = ("README.md", "docs/verify.md", "docs/conform.md", *(f"docs/start/{page}.md" for page in STARTS))
"""Their commands search for many seconds."""
RUN_HERE = ("console", "python", "sh", "protocol")
RUN_ELSEWHERE = {
    "program": {
        "specs/contract.md": "tests/house/test_clauses.py",
        "specs/divergences.md": "tests/house/test_divergences.py",
    },
    "sql": {"docs/postgres.md": "tests/postgres/test_strangers.py"},
    "toml": {
        "docs/ci.md": "tests/testing/test_project.py",
        "README.md": "tests/testing/test_project.py",
        "docs/grade.md": "tests/teach/test_grade_class.py",
    },
    "trace": {"specs/trace.md": "tests/trace/test_command.py"},
    "yaml": {"docs/ci.md": "tests/testing/test_project.py"},
}
"""Languages of the specifications: by page, the test that reads them there."""
NO_CODE = ("text", "{lanes}", "{lesson-texts}")
"""Output, forms and addresses; and what the site puts a picture in place of."""
_SKIP = re.compile(r"^<!-+ *skip:.*", re.MULTILINE)
_REASON = re.compile(r'<!-- skip: next "[^"]{10,}" -->')
LOCKER = """\
from kmutex import KeyedMutex


class MyLocker(KeyedMutex):
    pass


class Bounded(KeyedMutex):
    def __init__(self, maxsize):
        super().__init__()


class Door:
    def __init__(self):
        self.inner = KeyedMutex()

    def knock(self, key):
        self.inner.lock(key)

    def slam(self, key):
        self.inner.unlock(key)


class KeyLock:
    all = KeyedMutex()

    def __init__(self, key):
        self.key = key

    def __enter__(self):
        self.all.lock(self.key)

    def __exit__(self, *error):
        self.all.unlock(self.key)
"""
FLIGHTS = """\
from kmutex.selfcheck.flights import Once


class SingleFlight(Once):
    pass


def dedupe(fn):
    flight = SingleFlight()
    return lambda key: flight.do(key, lambda: fn(key))


def cached(ttl):
    return dedupe
"""
ADAPTER = [sys.executable, str(ROOT / "examples" / "adapters" / "adapter.py"), "kmutex:AsyncKeyedMutex"]
COMMAND = """\
import subprocess
import sys

# What the pages leave to the default of half a minute is done sooner where that is enough.
searches = sys.argv[1] in ("show", "verify") and "--runs" not in sys.argv
for seconds in ("3", "12", "60") if searches else ("",):
    more = ["--seconds", seconds] if seconds else []
    status = subprocess.run([sys.executable, "-m", "kmutex", *sys.argv[1:2], *more, *sys.argv[2:]]).returncode
    if status != 2:
        break
sys.exit(status)
"""


def shell(example: Example) -> str | None:
    """Run lines of `kmutex` in a shell, in the current folder; what went wrong."""
    lines = [line for line in example.parsed.splitlines() if line.strip() and not line.startswith("#")]
    if strange := [line for line in lines if not line.startswith("kmutex ")]:
        return f"only kmutex is run here; the sample needs a skip with a reason for {strange}"
    done = run_in_shell(example.parsed)
    return None if done.returncode == 0 else f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


def run_in_shell(lines: str) -> subprocess.CompletedProcess[str]:
    """Run them where the reader would stand, with this checkout's kmutex."""
    folder = Path.cwd()
    variables = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "model"), str(folder))),
    }
    return subprocess.run(
        ["/bin/sh", "-euc", lines],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def console(example: Example) -> str | None:
    """A command after "$ ", and what it prints, whatever its exit status; a line of "..." stands for any lines."""
    command, _, shown = example.parsed.removeprefix("$ ").partition("\n")
    done = run_in_shell(command)
    out = done.stdout + done.stderr
    pattern = "".join("(?s:.*)" if line.strip() == "..." else re.escape(line) for line in shown.splitlines(True))
    return None if re.fullmatch(pattern, out) else f"the output is\n{out}"


_NAMED = re.compile(r"# (?P<file>[\w/]+\.py)\n")


def save(source: str) -> None:
    """Write a sample that has the name of a file into the current folder."""
    if named := _NAMED.match(source):
        file = Path(named["file"])
        file.parent.mkdir(exist_ok=True)
        file.write_text(source, encoding="utf-8")


def python(example: Example) -> None:
    """Keep the file of a sample, where it has one, and run it."""
    save(example.parsed)
    PythonEvaluator()(example)


def protocol(example: Example) -> str | None:
    """Say the lines with ">" to an adapter; the lines with "<" are what it must reply, in any order at a time."""
    with subprocess.Popen(ADAPTER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as adapter:
        assert adapter.stdin is not None
        assert adapter.stdout is not None
        due: list[dict[str, Any]] = []

        def heard() -> str | None:
            assert adapter.stdout is not None
            replies = {line["id"]: line for line in (json.loads(adapter.stdout.readline()) for _ in due)}
            for reply in due:
                seen = replies.get(reply["id"], {})
                # Each adapter has a name and features of its own.
                if "features" in reply:
                    reply, seen = ({**one, "name": "", "features": []} for one in (reply, seen))
                if seen != reply:
                    return f"the reply is {seen}, not {reply}"
            due.clear()
            return None

        for line in example.parsed.splitlines():
            if line.startswith("> "):
                if fault := heard():
                    return fault
                adapter.stdin.write(line[2:] + "\n")
                adapter.stdin.flush()
            else:
                due.append(json.loads(line.removeprefix("< ")))
        return heard()


SYBIL = Sybil(
    parsers=[
        CodeBlockParser("python", python),
        CodeBlockParser("sh", shell),
        CodeBlockParser("console", console),
        CodeBlockParser("protocol", protocol),
        SkipParser(),
    ]
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader would stand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").touch()
    (tmp_path / "mypackage" / "locks.py").write_text(LOCKER, encoding="utf-8")
    for example in SYBIL.parse(ROOT / "README.md").examples():
        save(str(example.parsed))
    (tmp_path / "mypackage" / "flights.py").write_text(FLIGHTS, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    _script(tmp_path / "bin" / "kmutex", f"#!{sys.executable}\n{COMMAND}")
    _script(tmp_path / "adapter", f"#!{sys.executable}\nimport os\nos.execv({ADAPTER[0]!r}, {ADAPTER!r})\n")
    return tmp_path


def _script(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


class Sample(NamedTuple):
    """A block of code in a page."""

    line: int
    language: str
    """Empty: the block is indented, or has none."""


def samples(page: str) -> list[Sample]:
    """All blocks, as a reader of Markdown sees them."""
    found = []
    for token in MarkdownIt("commonmark").parse(page):
        if token.type in ("fence", "code_block") and token.map:
            found.append(Sample(token.map[0] + 1, token.info.split()[0] if token.info.strip() else ""))
    return found


def uncovered(name: str, page: Path) -> list[str]:
    """The blocks of a page that nothing runs."""
    seen = {example.line for example in SYBIL.parse(page).examples()}
    text = page.read_text(encoding="utf-8")
    wrong = [f"{name}: {found[0]} has no reason" for found in _SKIP.finditer(text) if not _REASON.fullmatch(found[0])]
    for line, language in samples(text):
        covered = line in seen if language in RUN_HERE else name in RUN_ELSEWHERE.get(language, {})
        if not covered and language not in NO_CODE:
            wrong.append(f"{name}:{line}: nothing runs this block ({language or 'no language'})")
    return wrong


@pytest.mark.parametrize("name", PAGES)
def test_no_sample_is_left_out(name: str) -> None:
    assert uncovered(name, ROOT / name) == []


def test_a_sample_that_nothing_runs_is_seen(tmp_path: Path) -> None:
    """The known-bad twin: a skip without a reason, an indented block, one without a language, one in a language that
    nobody knows, and one that another test reads in other pages only."""
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- skip: next -->\n\n    kmutex verify\n\n```\nx\n```\n\n```perl\nx\n```\n\n"
        "```program\n0+a\n```\n\n```python\nx = 1\n```\n"
    )
    reason, *blocks = uncovered("docs/page.md", page)
    assert reason.endswith("has no reason")
    assert [words.split(":")[1] for words in blocks] == ["3", "5", "9", "13"]


@pytest.mark.parametrize(
    ("language", "page", "test"), [(k, p, t) for k, tests in RUN_ELSEWHERE.items() for p, t in tests.items()]
)
def test_what_is_run_elsewhere_is(language: str, page: str, test: str) -> None:
    """The test reads blocks of that language, in that page."""
    text = (ROOT / test).read_text(encoding="utf-8")
    assert f"```{language}" in text
    assert Path(page).name in text


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long) if name in LONG else name
        for name in PAGES
        if list(SYBIL.parse(ROOT / name).examples())
    ],
)
def test_the_samples_do_what_the_page_says(name: str, folder: Path) -> None:
    """From top to bottom, without those that say why they can't be run."""
    for example in SYBIL.parse(ROOT / name).examples():
        with suppress(SkipTest):
            example.evaluate()


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ("```python\nfrom kmutex import KeyedMutex\nKeyedMutex().unlock('a')\n```\n", "which nobody holds"),
        ("```sh\nkmutex check-trace nowhere.ndjson\n```\n", "exit status 3"),
        (
            "```console\n$ kmutex explain km-nothing\nthere is a clause\n...\n```\n",
            "the output is\nkmutex: there is no",
        ),
        ("```sh\nrm -r x\n```\n", "only kmutex is run here"),
        ('```protocol\n> {"op": "hello", "id": 1, "protocol": 1}\n< {"id": 1, "protocol": 2}\n```\n', "the reply is"),
    ],
)
def test_a_sample_that_fails_is_seen(sample: str, words: str, folder: Path) -> None:
    """The known-bad twins."""
    page = folder / "page.md"
    page.write_text(sample)
    (example,) = SYBIL.parse(page).examples()
    with pytest.raises(Exception, match=words):
        example.evaluate()


def test_a_timeline_is_what_its_replay_shows(folder: Path) -> None:
    """KM-EXCL, KM-REF: of a known-bad locker, by the command below it. Its lines move when others are added above."""
    page = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```\w+\n\$.*\n(KM-[^`]*\nreplay: [^`]*?)\.\.\.\n```", page)
    heading, *shown = [line for line in _unnumbered(block).splitlines() if line and not line.startswith("code:")]
    out = _unnumbered(run_in_shell(shown.pop().removeprefix("replay: ")).stdout).splitlines()
    assert out[: len(shown)] == shown
    assert heading in out


def _unnumbered(text: str) -> str:
    """With the same number for every line of code."""
    return re.sub(r"(?<= ) *\d+  (?=\S)", "  1  ", text)
