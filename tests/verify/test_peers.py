"""docs/peers.md says what verify says of other people's locks; here it is said again, by running it."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.scripts import loaded

pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parents[2]


PEERS = loaded(ROOT / "docs" / "site" / "peers.py")
PAGE = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")


def test_the_page_has_a_row_for_each_subject() -> None:
    """The rows of the page are those of its command, and so are their order and the rest of the page."""
    assert re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE) == list(PEERS.SUBJECTS)
    assert PAGE.endswith(PEERS.TAIL)


@pytest.mark.parametrize("words", PEERS.SUBJECTS)
def test_verify_says_what_the_page_says(words: str) -> None:
    """Exit status, package and version are those of the page, and one at least of the violated clauses."""
    top = words.partition(":")[0].partition(".")[0]
    if importlib.util.find_spec(top) is None:
        pytest.skip(f"{top} is not installed: nox -s peers brings it")
    (said,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{words}` |"))
    now, then = (line.split("|")[2:5] for line in (PEERS.row(words), said))
    assert now[:2] == then[:2]
    # How many more are found in the two seconds after the first depends on the machine.
    assert set(now[2].split()) & set(then[2].split()) or now[2].split() == then[2].split()
