"""Checking a port of the lock, in whatever language, through its adapter: see specs/protocol.md."""
