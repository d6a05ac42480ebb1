"""A folder in which a user of kmutex verify stands: lockers, and modules that can't be imported."""

from __future__ import annotations

import shutil
from pathlib import Path

SUBJECTS = Path(__file__).parents[1] / "lockers" / "odd.py"
MODULES = {
    "raises.py": "raise ValueError('not\\ntoday')",
    "exits.py": "raise SystemExit(0)",
    "leaves.py": "import os; os._exit(0)",
    "hangs.py": "while True: pass",
    "sleeps.py": "import time; time.sleep(1000)",
    "wrong.py": "def (",
    "needs.py": "import no_such_module_anywhere",
}
"""Modules that can't be imported."""
FOR_TRIO = """
import collections
import threading

import trio


class Flights:
    def __init__(self):
        self._events = {}

    async def do(self, key, work):
        event = self._events.get(key)
        if event is None:
            event = self._events[key] = trio.Event()
            await trio.lowlevel.checkpoint()
            event.result = await work()
            event.set()
        await event.wait()
        return event.result


class BySocket:
    def __init__(self):
        self._near, self._far = trio.socket.socketpair()

    async def lock(self, key):
        await self._near.recv(1)

    def unlock(self, key): ...


class ByThread:
    def __init__(self):
        self._locks = collections.defaultdict(threading.Lock)

    async def lock(self, key):
        await trio.to_thread.run_sync(self._locks[key].acquire)

    def unlock(self, key):
        self._locks[key].release()
"""
"""Subjects that wait by trio and can't be run."""


def prepared(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(SUBJECTS, folder / "subjects.py")
    for name, text in {**MODULES, "for_trio.py": FOR_TRIO}.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder
