"""Limits of a run that both schedulers share."""

TIMEOUT = 5.0
"""The timeout of a cancellable wait, in virtual seconds."""
POLLS = 2
"""How often a polling wait is ended without progress before the client counts as waiting."""
MOST_STEPS = 20_000
"""After this number of scheduling points, a run counts as endless."""
ENDLESS = 1e5
"""From this number of virtual seconds on, a time limit counts as no limit."""
