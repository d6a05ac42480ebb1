"""The lockers that lock nothing."""

from __future__ import annotations

import asyncio

from kmutex import AsyncKeyedLocker, AsyncNoopLocker, KeyedLocker, NoopLocker


def test_it_takes_every_call_and_refuses_none() -> None:
    """It is a `KeyedLocker` in form, and keeps no clause: one key is locked twice and unlocked three times."""
    locker = NoopLocker()
    assert isinstance(locker, KeyedLocker)
    locker.lock("k")
    locker.lock("k", 0)
    with locker.hold("k", timeout=0) as lease:
        lease.release()
        lease.release()
    for _ in range(3):
        locker.unlock("k")


def test_it_takes_every_call_in_asyncio() -> None:
    """It is an `AsyncKeyedLocker` in form."""

    async def calls() -> None:
        locker = AsyncNoopLocker()
        assert isinstance(locker, AsyncKeyedLocker)
        await locker.lock("k")
        await locker.lock("k", 0)
        async with locker.hold("k", timeout=0) as lease:
            lease.release()
            lease.release()
        for _ in range(3):
            locker.unlock("k")

    asyncio.run(calls())
