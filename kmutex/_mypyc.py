"""The mark by which mypyc lets classes in Python inherit from a compiled one. In Python it does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_options):
        """As `mypy_extensions.mypyc_attr`, which need not be installed."""
        return lambda kind: kind
