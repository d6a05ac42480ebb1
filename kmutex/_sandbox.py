"""A process of its own for code that nobody has read: how it is started, what it may use, and how it ends."""

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
"""Real seconds between two looks at whether the parent is still there."""
LARGEST_FILE = 64 * 2**20
"""Bytes that a confined process may write to one file."""

_real_sleep = time.sleep


@dataclass(frozen=True)
class Confinement:
    """What a process may use."""

    folder: Path
    """Where it stands; what it imports is looked for there first."""
    megabytes: int
    """Of address space."""
    seconds: float
    """Of processor time. The parent enforces real time."""


def start(
    module: str,
    config: Mapping[str, Any],
    *,
    folder: Path | None = None,
    env: Mapping[str, str] = os.environ,
    inside: Callable[[list[str]], list[str]] = lambda command: command,
    **pipes: Any,
) -> subprocess.Popen[str]:
    """A new interpreter, in a process group of its own, that runs ``main()`` of a module of this package.

    config: what its `argument` returns there. folder: where it stands; None: where this process does. inside: gives
    the command that runs a command in a container.
    """
    # The folder in which the user stands must not come before this package and the standard library.
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
    """In the process that `start` made: its config, and the "parent" that it has to end with."""
    config: dict[str, Any] = json.loads(sys.argv[1])
    return config


def end_with(parent: int) -> None:
    """In a thread: end this process, and what was started in it, when the one that started it is gone."""
    while os.getppid() == parent:
        _real_sleep(BEAT)
    os.killpg(0, signal.SIGKILL)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process, and what it has left in its group, and wait for its end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def confine(megabytes: int, seconds: float, *, deletes: bool = False) -> None:
    """Keep this process within limits, for clumsy code. It is no jail: the code runs with all rights of its user.

    megabytes: of address space. seconds: of processor time. deletes: whether it may delete and rename files.
    It may start no process. What is refused raises PermissionError.
    """
    limits = (
        (resource.RLIMIT_AS, megabytes * 2**20),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    )
    for what, most in limits:
        _, hard = resource.getrlimit(what)
        # Some systems know a limit and refuse to set it.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    sys.dont_write_bytecode = True
    refused = _PROCESSES if deletes else _PROCESSES | _DELETIONS

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in refused:
            raise PermissionError(f"{refused[event]} is not allowed here ({event})")

    sys.addaudithook(hook)
    # multiprocessing starts its processes by this, and nothing is audited there.
    _posixsubprocess.fork_exec = _no_process


def _no_process(*_: object) -> int:
    raise PermissionError("starting a process is not allowed here (fork_exec)")


_PROCESSES = dict.fromkeys(
    ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen"), "starting a process"
)
_DELETIONS = dict.fromkeys(
    ("os.remove", "os.rmdir", "os.rename", "os.truncate", "shutil.rmtree"), "deleting or renaming files"
)
