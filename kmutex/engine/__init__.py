"""Deterministic schedulers, the contract as an observer, and the search over schedules.

`program` says what the clients do, `search` which alternative a run takes and how all schedules up to a bound are
tried. `threads` runs a program on real threads that pass a baton, `eventloop` on an event loop of its own. Both tell an
`Observer` what happens; `judge` is the one that knows the contract. `explorer` puts the three together.
"""
