"""Real threads under a scheduler: their locks, their run, and the parts of the standard library that are replaced."""

from kmutex.engine.threads.bytecode import Bytecode, bytecode_events_seen, foreign, no_subject_below
from kmutex.engine.threads.clients import Crew, one_core
from kmutex.engine.threads.locks import CoopLock, CoopRLock
from kmutex.engine.threads.patching import acts_unseen, controlled, progress, replaced
from kmutex.engine.threads.run import ThreadRun

__all__ = [
    "Bytecode",
    "CoopLock",
    "CoopRLock",
    "Crew",
    "ThreadRun",
    "acts_unseen",
    "bytecode_events_seen",
    "controlled",
    "foreign",
    "no_subject_below",
    "one_core",
    "progress",
    "replaced",
]
