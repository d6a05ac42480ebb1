"""A keyed mutex you can check."""
