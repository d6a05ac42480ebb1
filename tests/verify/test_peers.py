"""docs/peers.md says what verify says of other people's locks; here it is said again, by running it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parents[2]


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", ROOT / "docs" / "site" / "peers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PEERS = _module()
PAGE = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")


def test_the_page_has_a_row_for_each_subject() -> None:
    """The rows of the page are those of its command, and so are their order and the rest of the page."""
    assert re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE) == list(PEERS.SUBJECTS)
    assert PAGE.endswith(PEERS.TAIL)


@pytest.mark.parametrize("words", PEERS.SUBJECTS)
def test_verify_says_what_the_page_says(words: str) -> None:
    """Exit status, package, version, violated and remarked clauses are those of the page."""
    assert PEERS.row(words) in PAGE.splitlines(keepends=True)
