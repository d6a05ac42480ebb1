"""The lock in Python, where the one that is imported is compiled: so that one run measures both."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

import kmutex


class _Sources(MetaPathFinder):
    """Finds the sources of kmutex that stand beside its compiled modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        file = Path(kmutex.__file__).with_name(f"{name}.py")
        return spec_from_file_location(fullname, file) if package == "kmutex" and file.exists() else None


@functools.cache
def in_python(name: str) -> type:
    """The class of that name, from the sources. ModuleNotFoundError: the one that is imported is from them already."""
    if not kmutex.compiled:
        raise ModuleNotFoundError("this kmutex is not compiled; nox -s compiled measures it beside one that is")
    kept = {module: sys.modules.pop(module) for module in list(sys.modules) if module.partition(".")[0] == "kmutex"}
    sys.meta_path.insert(0, _Sources())
    try:
        found: type = getattr(importlib.import_module("kmutex"), name)
        return found
    finally:
        del sys.meta_path[0]
        for module in [module for module in sys.modules if module.partition(".")[0] == "kmutex"]:
            del sys.modules[module]
        sys.modules.update(kept)
