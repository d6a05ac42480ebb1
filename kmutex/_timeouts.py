"""The errors by which a locker may report that the time is over."""

from __future__ import annotations

import asyncio
import concurrent.futures

TIMED_OUT: tuple[type[BaseException], ...] = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError)
"""They are one class from Python 3.11 on."""
