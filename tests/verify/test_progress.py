"""What is shown of a check while it runs."""

from __future__ import annotations

import io
import sys

import pytest

from kmutex._console import shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_says_nothing_on_a_terminal(quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same terminal gets the line where nobody asked for quiet."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown(quiet=quiet) as display:
        display.say("model ...")
    assert ("model ..." in terminal.getvalue()) is not quiet
