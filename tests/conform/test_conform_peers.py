"""docs/conform-peers.md says what conform says of other keyed locks; here it is said again, by running it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import loaded

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "adapters" / "peers.py"


PEERS = loaded(SCRIPT)
PAGE = (ROOT / "docs" / "conform-peers.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """Of a table of subjects: the cells behind each title."""
    titles = {subject.title for subject in PEERS.SUBJECTS}
    lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|"))
    return {cells[0]: cells[1:] for cells in lines if cells[0] in titles and len(cells) > 2}


def test_the_page_has_a_row_for_each_subject() -> None:
    """In their order, and with the words of the command around them."""
    assert list(rows(PAGE)) == [subject.title for subject in PEERS.SUBJECTS]
    assert PEERS.MEANING in PAGE
    assert PEERS.STRAY.format(case=PEERS.LONGER) in PAGE


def test_a_source_that_is_missing_is_named() -> None:
    """Exit status 4 and one line that says what to do."""
    if any(PEERS.shutil.which(tool) is None for tool in ("git", "go")):
        pytest.skip("no git or no go here: apt-get install git golang-go")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--only", "containerd"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert re.fullmatch(r"peers: .*--containerd, --sync\n", done.stderr)


@pytest.mark.long
@pytest.mark.peers
@pytest.mark.parametrize("source", ["async", "Guava"])
def test_conform_says_what_the_page_says(source: str) -> None:
    """Version, level, features and verdict are those of the page, and one at least of the violated clauses."""
    done = subprocess.run([sys.executable, SCRIPT, "--only", source], capture_output=True, text=True, check=False)
    if done.returncode == 4:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    then = rows(PAGE)
    for title, now in rows(done.stdout).items():
        assert now[:4] == then[title][:4], title
        violated = [set(re.findall(r"KM-[A-Z]+", cells[5])) for cells in (now, then[title])]
        assert violated[0] & violated[1] or violated[0] == violated[1], title
