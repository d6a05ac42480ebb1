"""For a test suite of your own: judge any keyed locker, threads or asyncio, against the contract."""
