"""How a benchmark is spoken to: its arguments, its progress, and what it says of the machine."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Parser(argparse.ArgumentParser):
    """Wrong arguments end with 4."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(4, f"{self.prog}: {message}\n")


def at_least(least: int) -> Callable[[str], int]:
    """An argument that is a whole number from ``least`` up."""

    def whole_number(word: str) -> int:
        number = int(word)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
        return number

    return whole_number


def progress() -> Progress:
    """What is being measured, how far it is, and since when; on standard error, and gone at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def machine(load: float) -> dict[str, object]:
    """What the figures were measured on. load: of the machine, before."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
    }


def busy(load: float) -> list[str]:
    """A warning, where the machine had other work."""
    return [f"The machine was not quiet: its load was {load:.2f} before the first sample."] if load > 0.5 else []
