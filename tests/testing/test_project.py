"""[tool.kmutex], and the page that shows it: what its samples say is what is read, and the commands are commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmutex.cli import _parser
from kmutex.engine.calls import Calls
from kmutex.verify.project import Project, Subject, read_project

ROOT = Path(__file__).resolve().parents[2]


def _blocks(language: str, page: str = "docs/ci.md") -> list[str]:
    """The blocks ```toml and ```yaml of a page."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_table_of_the_readme_is_all_that_is_needed(tmp_path: Path) -> None:
    """A folder with nothing else in its pyproject.toml."""
    (table,) = _blocks("toml", "README.md")
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    assert read_project(tmp_path) == Project(tmp_path, (Subject("mypackage.locks:MyLocker"),))


def test_the_table_of_the_page_is_read_as_it_says(tmp_path: Path) -> None:
    """Each entry comes to where the command's option would."""
    (table,) = _blocks("toml")
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    registry = Subject("mypackage.locks:Registry", ("len",), ("fifo",), Calls(get="lock_for", keys="str"))
    assert read_project(tmp_path) == Project(
        tmp_path,
        (Subject("mypackage.locks:Locks(maxsize=3)"), registry),
        "quick",
        tmp_path / "tests" / "schedules.txt",
    )
    assert registry.options == " --without len --with fifo --call get=lock_for --keys str"


@pytest.mark.parametrize("text", [None, "", "[tool.other]\nx = 1\n", "[project]\nname = 'kmutex'\n"])
def test_without_a_table_there_is_no_project(tmp_path: Path, text: str | None) -> None:
    """Nor without a file."""
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    assert read_project(tmp_path) is None


def _commands(value: Any) -> Iterator[str]:
    """What a workflow or a hook runs."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("run", "entry"):
                yield inner
            else:
                yield from _commands(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _commands(inner)


def test_the_commands_of_workflows_and_hooks_are_commands() -> None:
    """With options that there are; --strict, as a known-bad twin, has no number."""
    texts = [*_blocks("yaml"), (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")]
    commands = [command for text in texts for command in _commands(yaml.safe_load(text))]
    ours = [command.partition(" > ")[0].split() for command in commands if command.startswith("kmutex ")]
    assert len(ours) == 5
    for words in ours:
        assert _parser(words[1:]).parse_args(words[1:]).command == "verify"
    with pytest.raises(SystemExit):
        _parser(["verify"]).parse_args(["verify", "--no-such-option"])
