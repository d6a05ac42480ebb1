"""Checks of keyed lockers against the contract: one file for each method, rows of evidence, and the runner."""
