"""What every command shares: a line while it works, a console for what it has to say, how it complains and writes."""

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
        """One line about what is going on."""
        if self._status is not None:
            self._status.update(text)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Room for what is printed meanwhile."""
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
    """A display on standard error, if that is a terminal and nobody asked for quiet."""
    if quiet or not sys.stderr.isatty():
        yield Display(None)
        return
    # Whoever only checks an argument waits for no table.
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Display(None)
        return
    with console.status("starting") as status:
        yield Display(status)


def console() -> Console:
    """Standard output, for tables and colours where it is a terminal."""
    from rich.console import Console

    class OwnConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would exit with 1, which says here that a clause is violated.

    return OwnConsole(width=None if sys.stdout.isatty() else WIDTH)


def version() -> str:
    """The version of this package."""
    from importlib import metadata

    try:
        return metadata.version("kmutex")
    except metadata.PackageNotFoundError:
        return "unknown"


def complain(message: str, *, status: int = 4) -> int:
    """Say one line on standard error; the exit status, which by itself says wrong usage."""
    # The status is said also where there is nobody to hear why.
    with contextlib.suppress(OSError):
        print(f"kmutex: {message}", file=sys.stderr)
    return status


def no_folder(paths: Iterable[Path | None]) -> str:
    """What is wrong with the paths of files to be written, None among them for those not asked for; "" if nothing."""
    lost = (path for path in paths if path is not None and not path.absolute().parent.is_dir())
    return "".join(f"{path}: there is no such folder" for path in list(lost)[:1])


def write(reports: Iterable[tuple[Path | None, Callable[[], str]]]) -> str:
    """Write each report that has a path, whatever becomes of the others; what went wrong, "" if nothing did."""
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
    """The type of an argument that limits something. kind: float, or int for whole numbers only."""

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
