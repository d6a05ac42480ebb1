"""A separate process for unknown code: its start, its limits, and its end."""

from __future__ import annotations

import _posixsubprocess
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEAT = 0.2
"""Real seconds between two checks whether the parent still exists."""
LARGEST_FILE = 64 * 2**20
"""The most bytes that a confined process may write to one file."""

_real_sleep = time.sleep


@dataclass(frozen=True)
class Confinement:
    """The limits of a process."""

    folder: Path
    """Its current folder, which is also searched first for imports."""
    megabytes: int
    """The limit on address space."""
    seconds: float
    """The limit on processor time. The parent enforces real time."""


def start(
    module: str,
    config: Mapping[str, Any],
    *,
    folder: Path | None = None,
    env: Mapping[str, str] = os.environ,
    inside: Callable[[list[str]], list[str]] = lambda command: command,
    **pipes: Any,
) -> subprocess.Popen[str]:
    """Start a new interpreter, in its own process group, that runs ``main()`` of a module of this package.

    ``config`` is the result of `argument` in that process. ``folder`` is its current folder, by default that of this
    process. ``inside`` gives the command that runs a command in a container.
    """
    # The user's current folder must not come before this package and the standard library.
    start = f"import sys; sys.path[:] = sys.argv.pop().split('\\n'); from {module} import main; main()"
    # From 3.13 on, Python itself imports something for -c.
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    home = str(Path(__file__).resolve().parents[1])
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    command = [
        sys.executable,
        *safe,
        "-c",
        start,
        json.dumps({**config, "parent": os.getpid()}),
        "\n".join(path if home in path else [*path, home]),
    ]
    return subprocess.Popen(
        inside(command),
        text=True,
        encoding="utf-8",
        start_new_session=True,
        cwd=folder,
        # Without this, glibc sets aside address space for each thread, much of what a confined process has.
        env={**env, "PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2"},
        **pipes,
    )


def argument() -> dict[str, Any]:
    """Return, in a process made by `start`, its config, with the "parent" whose end it must share."""
    config: dict[str, Any] = json.loads(sys.argv[1])
    return config


def end_with(parent: int) -> None:
    """End this process and its children when its parent has ended. Runs in a thread."""
    while os.getppid() == parent:
        _real_sleep(BEAT)
    os.killpg(0, signal.SIGKILL)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and the rest of its group, and wait for its end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def confine(megabytes: int, seconds: float, *, deletes: bool = False) -> None:
    """Limit this process, for clumsy code. It is not a jail: the code runs with all rights of its user.

    It may not start processes. What is refused raises PermissionError.

    Args:
        megabytes: The limit on address space.
        seconds: The limit on processor time.
        deletes: Whether it may delete and rename files.
    """
    limits = (
        (resource.RLIMIT_AS, megabytes * 2**20),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    )
    for what, most in limits:
        _, hard = resource.getrlimit(what)
        # Some systems have a limit but refuse to set it.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    sys.dont_write_bytecode = True
    refused = _PROCESSES if deletes else _PROCESSES | _DELETIONS

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in refused:
            raise PermissionError(f"{refused[event]} is not allowed here ({event})")

    sys.addaudithook(hook)
    # multiprocessing starts processes by this function, which has no audit event.
    _posixsubprocess.fork_exec = _no_process


def _no_process(*_: object) -> int:
    raise PermissionError("starting a process is not allowed here (fork_exec)")


_PROCESSES = dict.fromkeys(
    ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen"), "starting a process"
)
_DELETIONS = dict.fromkeys(
    ("os.remove", "os.rmdir", "os.rename", "os.truncate", "shutil.rmtree"), "deleting or renaming files"
)
