"""An adapter for lockers in Python, threads or asyncio: what `kmutex conform` talks to.

    kmutex conform -- python examples/adapters/adapter.py kmutex:KeyedMutex
    kmutex conform -- python examples/adapters/adapter.py kmutex:AsyncKeyedMutex

The protocol is in specs/protocol.md. This is also the shortest whole adapter there is to read. A locker for threads has
no way to end one of its waits from outside, so it is driven without the features `cancel` and `done`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

_SAYING = threading.Lock()


def say(number: int, result: str = "", **more: Any) -> None:
    """Write a reply."""
    body = {"id": number, **({"result": result} if result else {}), **more}
    with _SAYING:
        sys.stdout.write(json.dumps(body) + "\n")
        sys.stdout.flush()


def unlock(locker: Any, command: dict[str, Any]) -> None:
    """Unlock by key; any exception of a locker means that the key was not held."""
    try:
        locker.unlock(command["key"])
    except Exception:
        say(command["id"], "unheld")
    else:
        say(command["id"], "released")


def stat(locker: Any, number: int) -> None:
    """The table, from the locker's snapshot."""
    rows = {key: {"refs": entry.refs, "waiters": len(entry.waiters)} for key, entry in locker.snapshot().items()}
    say(number, keys=rows)


def limits(command: dict[str, Any]) -> dict[str, float]:
    """The time limit of a call of lock, in seconds."""
    return {"timeout": command["timeout"] / 1000} if "timeout" in command else {}


def in_a_thread(locker: Any, command: dict[str, Any]) -> None:
    """One call of lock in a thread of its own."""

    def call() -> None:
        try:
            locker.lock(command["key"], **limits(command))
        except TimeoutError:
            say(command["id"], "timeout")
        except Exception as error:
            say(command["id"], "error", message=repr(error))
        else:
            say(command["id"], "granted")

    threading.Thread(target=call, daemon=True).start()


def in_a_task(locker: Any, command: dict[str, Any]) -> asyncio.Task[None]:
    """One call of lock in a task of its own, which may be cancelled before it begins."""

    async def call() -> None:
        if command.get("done"):
            # The lock is told where it first waits. At a free key it may not wait, and the cancel comes after it.
            task.cancel()
        await locker.lock(command["key"], **limits(command))
        if command.get("done"):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    task = asyncio.ensure_future(call())
    task.add_done_callback(lambda ended: answer(command, ended))
    return task


def answer(command: dict[str, Any], ended: asyncio.Task[None]) -> None:
    """Say how the call ended."""
    try:
        ended.result()
    except asyncio.CancelledError:
        say(command["id"], "cancelled")
    except TimeoutError:
        say(command["id"], "timeout")
    except Exception as error:
        say(command["id"], "error", message=repr(error))
    else:
        say(command["id"], "granted")


def hello(command: dict[str, Any], name: str, locker: Any, *more: str) -> None:
    """Say who this is and what it has."""
    features = ["fifo", "unheld", *more]
    if hasattr(locker, "snapshot"):
        features.append("stat")
    if "timeout" in inspect.signature(locker.lock).parameters:
        features += ["try", "deadline"]
    say(command["id"], protocol=1, name=name, features=features)


def serve_threads(name: str, make: Callable[[], Any]) -> None:
    """Read commands and carry them out, for a locker for threads."""
    locker = make()
    for line in sys.stdin:
        command = json.loads(line)
        if command["op"] == "hello":
            hello(command, name, locker, "keep")
        elif command["op"] == "lock":
            in_a_thread(locker, command)
        elif command["op"] == "unlock":
            unlock(locker, command)
        elif command["op"] == "stat":
            stat(locker, command["id"])
        elif command["op"] == "reset":
            locker = make()
            say(command["id"], "ok")
        elif command["op"] == "bye":
            say(command["id"], "ok")
            return


async def serve_asyncio(name: str, make: Callable[[], Any]) -> None:
    """The same for a locker for asyncio."""
    locker = make()
    tasks: dict[int, asyncio.Task[None]] = {}
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        if command["op"] == "hello":
            hello(command, name, locker, "cancel", "pass", "done")
        elif command["op"] == "lock":
            tasks[command["id"]] = in_a_task(locker, command)
        elif command["op"] == "cancel":
            tasks[command["call"]].cancel()
            say(command["id"], "ok")
        elif command["op"] == "unlock":
            unlock(locker, command)
        elif command["op"] == "stat":
            stat(locker, command["id"])
        elif command["op"] == "reset":
            locker = make()
            tasks.clear()
            say(command["id"], "ok")
        elif command["op"] == "bye":
            say(command["id"], "ok")
            return


def main() -> None:
    """Serve the locker that the only argument names."""
    target = sys.argv[1]
    module, _, factory = target.partition(":")
    sys.path.insert(0, "")
    make = getattr(importlib.import_module(module), factory)
    if inspect.iscoroutinefunction(make().lock):
        asyncio.run(serve_asyncio(target, make))
    else:
        serve_threads(target, make)


if __name__ == "__main__":
    main()
