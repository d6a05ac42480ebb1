"""``[tool.kmutex]`` in pyproject.toml: the lockers of a project, and what each of them promises. For example:

    [tool.kmutex]
    subjects = [
        "mypkg.locks:Locks(maxsize=3)",
        { target = "mypkg.locks:Registry", calls = "get=lock_for", keys = "str", with = ["fifo"], without = ["len"] },
    ]
    mode = "quick"                        # or "full"
    schedules = "tests/schedules.txt"     # replayed first; new findings are added

``kmutex verify`` without a target and the pytest plugin read it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmutex.engine.calls import LOOKING, Calls, CallsError, calls_of
from kmutex.engine.features import PROMISES, UnknownFeatureError, clauses_off, unpromised
from kmutex.verify.runner import BY_MODE
from kmutex.verify.target import TargetError, target_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"
_WHERE = f"{FILE}, [tool.kmutex]"
_OF_PROJECT = ("subjects", "mode", "schedules")
_OF_SUBJECT = ("target", "without", "with", "strict", "calls", "keys")


class ProjectError(ValueError):
    """The table is wrong. The message names the file, the entry, and the possible values, in one line."""


@dataclass(frozen=True)
class Subject:
    """A locker and what is declared of it, as by the options of the command."""

    target: str
    """MODULE:FACTORY, or an expression in the place of FACTORY."""
    without: tuple[str, ...] = ()
    promises: tuple[str, ...] | None = None
    """None: not declared."""
    calls: Calls = LOOKING

    @property
    def options(self) -> str:
        """Return the same as options of the command, with a blank before each."""
        words = [word for name in self.without for word in ("--without", name)]
        promises = self.promises or ()
        strict = set(PROMISES) <= set(promises)
        words += ["--strict"] if strict else []
        words += [word for name in promises if not (strict and name in PROMISES) for word in ("--with", name)]
        return "".join(f" {shlex.quote(word)}" for word in (*words, *self.calls.options))

    @property
    def name(self) -> str:
        """Return a name that is unique in the project."""
        return self.target + self.options


@dataclass(frozen=True)
class Project:
    """The content of the table."""

    folder: Path
    subjects: tuple[Subject, ...]
    mode: str = "quick"
    schedules: Path | None = None
    """The file of saved schedules; None if the table names none."""

    def saved(self) -> list[str]:
        """Return the commands in that file."""
        if self.schedules is None or not self.schedules.exists():
            return []
        lines = [line.strip() for line in self.schedules.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    def save(self, commands: Iterable[str]) -> None:
        """Append the commands that the file does not have."""
        had = self.saved()
        new = [command for command in dict.fromkeys(commands) if command not in had]
        if self.schedules is not None and new:
            with self.schedules.open("a", encoding="utf-8") as file:
                file.writelines(f"{command}\n" for command in new)


def schedules_of(commands: Iterable[str], subject: Subject) -> list[str]:
    """Return the schedules that commands replay on a subject, each once."""
    return list(dict.fromkeys(schedule for name, schedule in map(_parsed, commands) if name == subject.name))


def _parsed(command: str) -> tuple[str, str]:
    """Return the subject's name and the schedule of a replay command; two empty strings for any other command."""
    try:
        words = shlex.split(command)
        at = words.index("--replay")
    except ValueError:
        return "", ""
    if words[:2] != ["kmutex", "verify"] or at < 3 or len(words) != at + 2:
        return "", ""
    return words[2] + "".join(f" {shlex.quote(word)}" for word in words[3:at]), words[at + 1]


def read_project(folder: Path) -> Project | None:
    """Read the table in a folder's pyproject.toml; None if there is no such file or no such table.

    Raises:
        ProjectError: The table is wrong.
    """
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{FILE} can't be read: {error}") from None
    try:
        tools = tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{FILE} is not TOML: {error}") from None
    if not isinstance(tools, dict) or "kmutex" not in tools:
        return None
    return _project(folder, tools["kmutex"])


def _project(folder: Path, table: object) -> Project:
    entries = _table(table, _WHERE, _OF_PROJECT)
    listed = entries.get("subjects")
    if not isinstance(listed, list) or not listed:
        raise _wrong(f"{_WHERE} subjects", "name at least one: subjects = ['MODULE:FACTORY']")
    subjects = tuple(subject_of(entry, f"{_WHERE} subjects[{number}]") for number, entry in enumerate(listed))
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise _wrong(f"{_WHERE} subjects", f"{max(names, key=names.count)!r} is listed twice")
    mode = _text(entries, "mode", _WHERE) or "quick"
    if mode not in BY_MODE:
        raise _wrong(f"{_WHERE} mode", f"it must be {' or '.join(BY_MODE)}, not {mode!r}")
    schedules = _text(entries, "schedules", _WHERE)
    return Project(folder, subjects, mode, folder / schedules if schedules else None)


def subject_of(entry: object, where: str) -> Subject:
    """Read an entry: a target, or a table.

    Args:
        entry: The entry.
        where: Its name for an error.

    Raises:
        ProjectError: The entry is wrong.
    """
    table = {"target": entry} if isinstance(entry, str) else _table(entry, where, _OF_SUBJECT)
    target = _text(table, "target", where)
    without = _names(table, "without", where)
    promises: tuple[str, ...] | None = _names(table, "with", where) or None
    strict = table.get("strict", False)
    if not isinstance(strict, bool):
        raise _wrong(f"{where}.strict", "it must be true or false")
    calls: Any = table.get("calls", [])
    words = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(word, str) for word in words):
        raise _wrong(f"{where}.calls", "it must be a string, such as 'get=lock_for'")
    try:
        clauses_off(without)
        target_of(target)
        unpromised(promises, "")
        made = calls_of(words, _text(table, "keys", where))
    except (UnknownFeatureError, CallsError, TargetError) as error:
        raise _wrong(where, str(error)) from None
    return Subject(target, without, (*PROMISES, *(promises or ())) if strict else promises, made)


def _table(value: object, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, f"it must be a table of {', '.join(known)}")
    for name in value:
        if name not in known:
            raise _wrong(where, f"{name!r} is unknown; the names are {', '.join(known)}")
    return value


def _text(table: Mapping[str, Any], name: str, where: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise _wrong(where, f"{name} must be a string, not {value!r}")
    return value


def _names(table: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = table.get(name, [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise _wrong(where, f"{name} must be a list of names")
    return tuple(names)


def _wrong(where: str, what: str) -> ProjectError:
    return ProjectError(f"{where}: {what}")
