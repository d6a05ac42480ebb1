"""What a class handed in: a folder or a zip file, in the forms in which learning systems export it, by student.

It is read and never run here. Code of notebooks becomes a file; what can't be imported by its name gets another one.
"""

from __future__ import annotations

import ast
import json
import keyword
import lzma
import re
import sys
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kmutex.teach.submission import Submission, SubmissionError, UnreadableError, read, submission

MOST_BYTES = 1_000_000
"""Of one file; a larger one is not read."""
CODE = (".py", ".ipynb")
LONGEST_NAME = 100
"""Of a file that is made for one that was handed in: a name may be longer than a file system takes."""
_JUNK = ("__MACOSX", "__pycache__")

_MOODLE = re.compile(r"(?P<student>.+_\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)")
_CANVAS = re.compile(
    r"(?P<name>\w*?)_?(?:(?<![^_])(?P<late>LATE)_)?(?P<id>anon_[0-9A-Za-z]+|\d+)"
    r"_(?:\d+_(?P<file>.+)|(?:text|link)\.html)"
)
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)
_WRITES = re.compile(r"%%(?:writefile|file)\b.*\.py[\"']?\s*\n")
_MAGIC = re.compile(r"^(\s*)(?=[%!]|\?|.*\?\s*$)")


class HandedInError(Exception):
    """The folder can't be graded as it stands. One line; the exit status is 4."""


@dataclass
class HandedIn:
    """What one student handed in."""

    student: str
    """As the export names them."""
    files: dict[str, bytes] = field(default_factory=dict)
    """By the name that the student gave."""
    late: bool = False
    """Canvas says so in the name of the file."""
    assignment: str = ""
    """In nbgrader's form: the folder below the student's."""
    faults: list[str] = field(default_factory=list)
    """Why a file was not read."""


def by_student(source: Path, assignment: str = "") -> tuple[list[HandedIn], list[str]]:
    """Each student's files, and the names of what belongs to nobody.

    source: a folder or a zip file. assignment: of nbgrader's form, that one only.
    HandedInError: nothing is there, or there are several assignments and none is named.
    """
    found: dict[str, HandedIn] = {}
    ignored = []
    for parts, content in sorted(_members(source), key=lambda member: member[0]):
        place = _place(parts)
        if place is None:
            ignored.append("/".join(parts))
            continue
        student, name, late = place
        mine = found.setdefault(student, HandedIn(student))
        mine.late |= late
        if not name.lower().endswith(CODE):
            continue
        if isinstance(content, str):
            mine.faults.append(f"{name}: {content}")
        else:
            mine.files[name] = content
    for mine in found.values():
        _choose(mine, assignment)
    if not any(mine.files or mine.faults for mine in found.values()):
        raise HandedInError(f"{source}: nothing is handed in there: no .py and no .ipynb file")
    return sorted(found.values(), key=lambda mine: mine.student), ignored


def _choose(mine: HandedIn, assignment: str) -> None:
    """Of nbgrader's form STUDENT/ASSIGNMENT/FILE, the files of the assignment."""
    folders = {name.partition("/")[0] for name in mine.files if "/" in name}
    if len(folders) > 1 and not assignment:
        raise HandedInError(
            f"{mine.student} has several folders: {', '.join(sorted(folders))}; say which: --assignment NAME"
        )
    mine.assignment = assignment or "".join(folders)
    if assignment and folders:
        mine.files = {name: code for name, code in mine.files.items() if name.startswith(f"{assignment}/")}


def _place(parts: tuple[str, ...]) -> tuple[str, str, bool] | None:
    """Student, the student's own name of the file, and whether it was late; None where it is nobody's."""
    first, rest = parts[0], "/".join(parts[1:])
    if moodle := _MOODLE.fullmatch(first):
        return moodle["student"], rest or moodle["file"], False
    if rest:
        return first, rest, False
    if canvas := _CANVAS.fullmatch(first):
        student = "_".join(part for part in (canvas["name"], canvas["id"]) if part)
        return student, canvas["file"] or "", canvas["late"] is not None
    stem, dot, suffix = first.rpartition(".")
    return (stem, first, False) if dot and f".{suffix.lower()}" in CODE else None


def _members(source: Path) -> Iterator[tuple[tuple[str, ...], bytes | str]]:
    """Path and content of each file, or why it is not read. No link is followed."""
    try:
        if source.is_dir():
            for path in source.rglob("*"):
                parts = path.relative_to(source).parts
                if path.is_symlink() and not _junk(parts):
                    yield parts, "a link, which is not followed"
                elif path.is_file() and not _junk(parts):
                    large = path.stat().st_size > MOST_BYTES
                    code = path.name.lower().endswith(CODE)
                    yield parts, _LARGE if large else path.read_bytes() if code else b""
            return
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                parts = tuple(part for part in PurePosixPath(entry.filename).parts if part not in ("/", ".."))
                if entry.is_dir() or not parts or _junk(parts):
                    continue
                code = entry.filename.lower().endswith(CODE)
                yield parts, _LARGE if entry.file_size > MOST_BYTES else _member(archive, entry) if code else b""
    except zipfile.BadZipFile:
        raise HandedInError(f"{source}: neither a folder nor a zip file") from None
    except (OSError, RuntimeError, NotImplementedError) as error:
        raise HandedInError(f"{source}: {getattr(error, 'strerror', None) or error}") from None


_LARGE = f"larger than {MOST_BYTES:,} bytes"
_DAMAGED = (zlib.error, zipfile.BadZipFile, EOFError, lzma.LZMAError, RuntimeError, NotImplementedError)
"""What reading one member of a zip file raises; the others can be read all the same."""


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | str:
    try:
        return archive.read(entry)
    except _DAMAGED as error:
        return f"can't be read from the zip file: {error}"


def _junk(parts: tuple[str, ...]) -> bool:
    return any(part in _JUNK or part.startswith(".") for part in parts)


# ------------------------------------------------------------------------------------------------------------
# As files that can be imported


def stage(mine: HandedIn, folder: Path) -> dict[Path, str]:
    """Write the student's files into an empty folder, as Python that can be imported; what the student calls each.

    UnreadableError: no code.
    """
    staged: dict[Path, str] = {}
    faults = list(mine.faults)
    for name, content in mine.files.items():
        try:
            code = from_notebook(content) if name.lower().endswith(".ipynb") else content
        except UnreadableError as error:
            faults.append(f"{name}: {error}")
            continue
        path = folder / f"{_importable(PurePosixPath(name).name.rpartition('.')[0], {p.stem for p in staged})}.py"
        path.write_bytes(code)
        staged[path] = name
    if not staged:
        raise UnreadableError("; ".join(faults) or "no .py and no .ipynb file was handed in")
    return staged


def the_locker(staged: Iterable[Path]) -> Submission:
    """The one among the files that has the locker. SubmissionError, UnreadableError: none has it, or several have."""
    found, refused = [], []
    staged = list(staged)
    for path in staged:
        try:
            found.append(submission(str(path)))
        except (SubmissionError, UnreadableError) as error:
            refused.append(error)
    if not found:
        raise (
            refused[0]
            if len(refused) == 1
            else SubmissionError(
                f"in none of these is a class with lock and unlock: {', '.join(path.name for path in staged)}"
            )
        )
    # A helper is imported by the file that is meant.
    helpers = {name for one in found for name in _imported(read(one.path))}
    meant = [one for one in found if one.module not in helpers] or found
    if len(meant) > 1:
        raise SubmissionError(f"several files have a locker: {', '.join(one.path.name for one in meant)}; leave one")
    return meant[0]


def the_tests(staged: Iterable[Path]) -> Path:
    """The one among the files that has tests. SubmissionError: there are several."""
    staged = list(staged)
    named = [path for path in staged if path.stem.startswith("test") or path.stem.endswith("test")]
    if len(named if len(staged) > 1 else staged) != 1:
        raise SubmissionError(f"which file has the tests: {', '.join(path.name for path in staged)}? Name it test_...")
    return (named if len(staged) > 1 else staged)[0]


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _importable(stem: str, taken: set[str]) -> str:
    """A module name like the file's: letters, digits and _, and nobody else's."""
    name = re.sub(r"\W", "_", unicodedata.normalize("NFKC", stem))
    name = (name if name[:1].isidentifier() else f"_{name}")[:LONGEST_NAME]
    # What stands beside this package in its environment must not be hidden by it either.
    others = sys.stdlib_module_names | sys.modules.keys() | {"hypothesis", "pytest", "rich"}
    while name in taken or name in others or keyword.iskeyword(name):
        name += "_"
    return name


def from_notebook(content: bytes) -> bytes:
    """The code cells as a file of Python, each after a line that numbers it. UnreadableError: it is no such notebook.

    In one that writes files of Python (``%%writefile``), as a lesson's does, only these count. Else lines that are
    commands of IPython (``%``, ``!``, ``?``) are left out, as comments.
    """
    try:
        notebook = json.loads(content)
        language = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
        if language != "python":
            raise UnreadableError(f"a notebook in {language}")
        cells = notebook["cells"] if "cells" in notebook else [c for w in notebook["worksheets"] for c in w["cells"]]
        sources = ["".join(cell.get("source", cell.get("input", ""))) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnreadableError("no notebook") from None
    cells = list(enumerate(sources, 1))
    written = [(number, _WRITES.sub("", source)) for number, source in cells if _WRITES.match(source)]
    code = "\n".join(f"# cell {number}\n{_plain(source)}" for number, source in written or cells)
    # Each cell may have them, and a file at its beginning only.
    future = "".join(f"{line}\n" for line in dict.fromkeys(_FUTURE.findall(code)))
    return (future + _FUTURE.sub(r"pass  # \g<0>", code)).encode()


def _plain(cell: str) -> str:
    try:
        ast.parse(cell)
    except (SyntaxError, ValueError):
        pass
    else:
        return cell + "\n"
    if cell.startswith("%%") and not re.match(r"%%(time|capture)\b", cell):
        return "".join(f"# {line}\n" for line in cell.splitlines())
    return "".join(_MAGIC.sub(r"\1pass  # ", line) + "\n" for line in cell.splitlines())
