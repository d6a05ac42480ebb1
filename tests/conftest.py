"""How the tests share the cores: a file stays together, and so do the ports, which build into their own folders."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group of each test for `--dist loadgroup`."""
    for item in items:
        name = item.path.relative_to(HERE)
        item.add_marker(pytest.mark.xdist_group("ports" if name.parts[0] == "ports" else name.as_posix()))
