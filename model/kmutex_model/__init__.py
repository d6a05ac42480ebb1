"""The state machine of the keyed mutex, and its explorer."""
