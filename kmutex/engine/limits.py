"""The measures of a run that both schedulers share."""

TIMEOUT = 5.0
"""Virtual seconds that a cancellable wait asks for."""
POLLS = 2
"""How often a wait that nobody asked for is ended before the poller counts as waiting."""
MOST_STEPS = 20_000
"""Scheduling points after which a run counts as endless."""
ENDLESS = 1e5
"""Virtual seconds from which on a time limit counts as none."""
