"""Logs of a running keyed locker, which `kmutex check-trace` judges.

`StepLog` is for the mutexes of this library, which write each step from inside; `Recorder` and `AsyncRecorder` go
around any locker and write what its callers see.

specs/trace.md is the page of the format and of what each clause can be judged by.
"""

from kmutex._steps import StepLog
from kmutex.trace.record import AsyncRecorder, Recorder

__all__ = ["AsyncRecorder", "Recorder", "StepLog"]
