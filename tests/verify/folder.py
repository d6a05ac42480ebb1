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


def prepared(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(SUBJECTS, folder / "subjects.py")
    for name, text in MODULES.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder
