"""The common part of all commands: progress, the console, error messages, and writing reports."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

Number = TypeVar("Number", int, float)
WIDTH = 160
"""Columns where standard output is no terminal: wide enough that no row of a table is broken."""


class Display:
    """Shows progress; see `shown`."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def say(self, text: str) -> None:
        """Show one line about the progress."""
        if self._status is not None:
            self._status.update(text)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Hide the progress line while the block prints."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()


@contextmanager
def shown(*, quiet: bool) -> Iterator[Display]:
    """Yield a display on standard error, if that is a terminal and --quiet is not given."""
    if quiet or not sys.stderr.isatty():
        yield Display(None)
        return
    # Imported here: a command that only checks its arguments need not load it.
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Display(None)
        return
    with console.status("starting") as status:
        yield Display(status)


def console() -> Console:
    """Return the console for standard output, with colours if that is a terminal."""
    from rich.console import Console

    class OwnConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would exit with 1, which means here that a clause is violated.

    return OwnConsole(width=None if sys.stdout.isatty() else WIDTH)


def version() -> str:
    """Return the version of this package."""
    from importlib import metadata

    try:
        return metadata.version("kmutex")
    except metadata.PackageNotFoundError:
        return "unknown"


def complain(message: str, *, status: int = 4) -> int:
    """Print one line on standard error; return the exit status, by default that of wrong usage."""
    # The status is returned even if standard error is closed.
    with contextlib.suppress(OSError):
        print(f"kmutex: {message}", file=sys.stderr)
    return status


def no_folder(paths: Iterable[Path | None]) -> str:
    """Return an error message if the folder of an output file does not exist, else "". None stands for no file."""
    lost = (path for path in paths if path is not None and not path.absolute().parent.is_dir())
    return "".join(f"{path}: there is no such folder" for path in list(lost)[:1])


def write(reports: Iterable[tuple[Path | None, Callable[[], str]]]) -> str:
    """Write each report that has a path, even if others fail; return an error message, or ""."""
    faults = []
    for path, text in reports:
        if path is not None:
            try:
                path.write_text(text(), encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
    return "; ".join(faults)


def write_whole(path: Path, text: str) -> int:
    """Write a text file; readers see the old content or the new, never a part. A link is followed, the mode is kept.

    Returns:
        The number of bytes.

    Raises:
        OSError: It can't be written; the old file is unchanged.
    """
    target = path.resolve()
    content = text.encode(errors="backslashreplace")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            file.write(content)
        if target.exists():
            part.chmod(target.stat().st_mode & 0o777)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return len(content)


def number_of(unit: str, kind: Callable[[str], Number], least: int, most: int) -> Callable[[str], Number]:
    """Return the type of a numeric argument; ``kind`` is float, or int for whole numbers."""

    def number(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} from {least} to {most}")
        return value

    return number


seconds = number_of("seconds", float, 1, 86_400)
