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

import trio


class Locks:
    def __init__(self):
        self._locks = collections.defaultdict(trio.Lock)

    async def lock(self, key):
        await self._locks[key].acquire()

    def unlock(self, key):
        self._locks[key].release()


class Queues:
    def __init__(self):
        self._queues = collections.defaultdict(list)

    async def lock(self, key):
        queue = self._queues[key]
        queue.append(trio.Event())
        while queue[0] is not queue[-1]:
            await queue[-1].wait()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def unlock(self, key):
        self._queues.pop(key)
"""
"""Lockers whose loop is not one of asyncio's."""


def prepared(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(SUBJECTS, folder / "subjects.py")
    for name, text in {**MODULES, "for_trio.py": FOR_TRIO}.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder
