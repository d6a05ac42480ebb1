"""Deterministic schedulers: one run of real code, in which every switch is a recorded choice.

`program` says what the clients do, `choices` which way a run takes and how all ways are tried, `threads` runs a
program on real threads that pass a baton, `loop` on an event loop of its own. What a run means for a keyed
mutex is not known here; an `Observer` is told and judges.
"""
