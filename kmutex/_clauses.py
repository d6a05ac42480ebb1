"""The ids of the contract's clauses. specs/contract.md has their text."""

from __future__ import annotations

CLAUSES = (
    "KM-EXCL",
    "KM-REF",
    "KM-IDLE",
    "KM-FIFO",
    "KM-HANDOFF",
    "KM-INDEP",
    "KM-CANCEL",
    "KM-RACE",
    "KM-INTERRUPT",
    "KM-EXPIRED",
    "KM-UNHELD",
    "KM-ATOMIC",
    "KM-TOKEN",
    "KM-LIVE",
    "KM-LOOP",
    "KM-ALL",
)
"""The clauses of the keyed mutex, in the order of reports."""

FLIGHT_CLAUSES = (
    "KM-ONE",
    "KM-RESULT",
    "KM-LEADER",
    "KM-FOLLOWER",
    "KM-FORGET",
    "KM-APART",
    "KM-RETURN",
)
"""The clauses of duplicate suppression, in the order of reports."""

EVERY_CLAUSE = (*CLAUSES, *FLIGHT_CLAUSES)
"""Both, for reports of either."""
