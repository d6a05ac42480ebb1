"""The help of each command, and what makes a shell complete it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from kmutex.cli import whole_parser
from kmutex.cli._examples import EXAMPLES, parsers
from kmutex.cli.completion import SHELLS
from tests.commands import told

QUICK = ("explain", "explore", "lesson", "completion", "prove --known-bad", "verify --help")
"""What is run here. The samples of the pages run the others, on lockers and adapters that are there."""
LINES = [line for lines in EXAMPLES.values() for line, _ in lines]


def words(line: str) -> list[str]:
    """The arguments of kmutex, as a shell gives them."""
    first, *arguments = shlex.split(line.partition(" > ")[0])
    assert first == "kmutex"
    return arguments


def test_every_command_has_examples_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = dict(parsers(whole_parser()))
    assert found.keys() == EXAMPLES.keys()
    for name, parser in found.items():
        shown = parser.format_help()
        assert [line for line in shown.splitlines() if len(line) > 80] == []
        assert [line for line, said in EXAMPLES[name] if f"  {line}" not in shown or f"  {said}\n" not in shown] == []


@pytest.mark.parametrize("line", LINES)
def test_an_example_is_one(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser takes it, and what is quick is done."""
    monkeypatch.chdir(tmp_path)
    if line.startswith(tuple(f"kmutex {name}" for name in QUICK)):
        assert told(capsys, *words(line))[0] == (1 if "--known-bad" in line else 0)
    else:
        assert whole_parser().parse_args(words(line)).command == words(line)[0]


@pytest.mark.parametrize("line", ["kmutex verify m:L --no-such", "kmutex lesson run", "kmutex explore x.html"])
def test_what_is_no_example_is_seen(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The known-bad twins."""
    assert told(capsys, *words(line))[0] == 4


COMPLETE = """\
source /dev/stdin
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p kmutex | sed 's/.*-F \\([^ ]*\\).*/\\1/') kmutex "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("kmutex ver", ["verify"]),
        ("kmutex explain KM-RE", ["KM-REF", "KM-RESULT", "KM-RETURN"]),
        ("kmutex grade --les", ["--lesson"]),
        ("kmutex lesson pre", ["predict"]),
        ("kmutex verify --format s", ["sarif"]),
        ("kmutex explain --no-such", []),
    ],
)
def test_bash_completes_it(typed: str, offered: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As bash calls it, when somebody has typed so much."""
    _, script, _ = told(capsys, "completion", "bash")
    command = ["bash", "-c", COMPLETE, "bash", *typed.split()]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is syntax to the shell, where that is installed, and has the commands, the options and the clauses."""
    _, script, _ = told(capsys, "completion", shell)
    assert [word for word in ("check-trace", "known-failures", "KM-REF") if word not in script] == []
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script, encoding="utf-8")
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
