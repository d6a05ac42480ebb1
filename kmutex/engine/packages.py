"""The modules that are loaded, by their packages."""

from __future__ import annotations

import sys
from collections.abc import Set
from types import ModuleType


def loaded(tops: Set[str]) -> dict[str, ModuleType]:
    """Return the loaded modules of these top-level packages, by name.

    Another thread or a finalizer may import meanwhile, so it is a copy that is walked over.
    """
    return {name: module for name, module in sys.modules.copy().items() if name.partition(".")[0] in tops}
