"""Logs of a running keyed locker: `Recorder` and `AsyncRecorder` write one, `kmutex check-trace` judges it.

specs/trace.md is the page of the format and of what each clause can be judged by.
"""

from kmutex.trace.record import AsyncRecorder, Recorder

__all__ = ["AsyncRecorder", "Recorder"]
