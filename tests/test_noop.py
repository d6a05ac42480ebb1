"""The lockers that lock nothing."""

from __future__ import annotations

import pytest

from kmutex import AsyncNoopLocker, NoopLocker
from tests.driver import Driver, Tasks, Threads, at_once


@pytest.mark.parametrize("driver", [Threads(NoopLocker()), Tasks(AsyncNoopLocker())], ids=["threads", "asyncio"])
def test_it_takes_every_call_and_refuses_none(driver: Driver) -> None:
    """It is a locker in form, and keeps no clause: one key is locked twice and unlocked three times, without a loop."""

    async def calls() -> None:
        assert isinstance(driver.locker, driver.face)
        await driver.lock("k")
        await driver.lock("k", 0)
        async with driver.hold("k", timeout=0) as lease:
            lease.release()
            lease.release()
        for _ in range(3):
            driver.unlock("k")

    at_once(calls())
