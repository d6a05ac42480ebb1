"""The pytest plugin of kmutex. Every run of pytest loads this module; kmutex itself is loaded on first use.

It is used by ``[tool.kmutex]`` in the pyproject.toml of pytest's root folder, whose subjects become tests; by
``@pytest.mark.kmutex`` on a test function that returns a locker; and by `kmutex.testing.KeyedLockerSuite`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kmutex.testing.plugin import Plugin

FILE = "pyproject.toml"
MARK = (
    "kmutex(without=(), promises=None, strict=False, calls='', keys='', mode=''): the test function returns a new "
    "keyed locker at each call, which is checked against the contract of a keyed mutex"
)
_USED = "kmutex-used"
"""The name under which the real plugin is registered."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("kmutex").addoption(
        "--kmutex-mode",
        choices=("quick", "full"),
        help="how thoroughly each keyed locker is checked: quick takes some seconds, full a minute or more",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARK)
    if _has_table(config.rootpath):
        used(config).read_project()
        if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            # `testpaths` names folders of tests; the table is outside of them.
            config.args.append(str(config.rootpath / FILE))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    config = parent.config
    if file_path.name != FILE or file_path.parent != config.rootpath or not _has_table(file_path.parent):
        return None
    return used(config).file(parent, file_path)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    mark = pyfuncitem.get_closest_marker("kmutex")
    if mark is None:
        return None
    try:
        plugin = used(pyfuncitem.config)
    except pytest.UsageError as error:
        pytest.fail(str(error), pytrace=False)
    plugin.judge_function(pyfuncitem, mark)
    return True


def used(config: pytest.Config) -> Plugin:
    """Return the real plugin, loaded on first use.

    Raises:
        pytest.UsageError: ``kmutex[check]`` is not installed.
    """
    plugin: Any = config.pluginmanager.get_plugin(_USED)
    if plugin is None:
        try:
            from kmutex.testing.plugin import Plugin
        except ModuleNotFoundError as error:
            # The extra is not installed, and the error says so in one line.
            raise pytest.UsageError(str(error)) from None
        plugin = Plugin(config)
        config.pluginmanager.register(plugin, _USED)
    made: Plugin = plugin
    return made


def _has_table(folder: Path) -> bool:
    """Return whether the folder's pyproject.toml has a table for kmutex, right or wrong."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
        return "kmutex" in text and "kmutex" in _toml().loads(text).get("tool", {})
    except (OSError, ValueError, TypeError):
        # pytest itself reports such a file.
        return False


def _toml() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib
