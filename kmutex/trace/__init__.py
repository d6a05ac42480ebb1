"""Logs of a running keyed locker, which `kmutex check-trace` judges.

`StepLog` is for the mutexes of this library, which log each step from inside. `Recorder` and `AsyncRecorder` wrap any
locker and log what its callers see.

specs/trace.md describes the format, and what is needed to judge each clause.
"""

from kmutex._steps import StepLog
from kmutex.trace.record import AsyncRecorder, Recorder

__all__ = ["AsyncRecorder", "Recorder", "StepLog"]
