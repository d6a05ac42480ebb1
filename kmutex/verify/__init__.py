"""Checks of keyed lockers against the contract: one file for each method, rows of evidence, and the runner."""

from pathlib import Path

from kmutex.engine.threads import no_subject_below

no_subject_below(Path(__file__).parent)
