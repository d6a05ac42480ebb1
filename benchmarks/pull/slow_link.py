"""A slow way to a server on loopback: a TCP proxy in a process of its own, which limits each connection.

Each connection gets its own rate, so many connections together are not limited: what a benchmark shows of many
fetches at once is then rather too good than too bad.

Run by itself it is the proxy: python slow_link.py HOST PORT BYTES_PER_SECOND LATENCY. It prints the port on which it
listens, and ends when its standard input does, so it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from types import TracebackType
from urllib.parse import urlsplit

_HOST = "127.0.0.1"
_CHUNK = 64 * 1024
_LEAST_CHUNK = 1024
_STOP_SECONDS = 10.0
# Shorter sleeps are not kept exactly; what is not slept now is part of a later, longer one.
_SHORTEST_SLEEP = 0.002


class SlowLink:
    """The proxy as a child process, for a ``with`` block; ``url`` leads through it.

    url: the server, http://HOST:PORT. bytes_per_second: for each connection, towards the client; 0 is no limit.
    latency: seconds by which each request is held back.
    On entry, RuntimeError: the proxy did not start.
    """

    def __init__(self, url: str, bytes_per_second: float = 0, latency: float = 0) -> None:
        self._server = urlsplit(url)
        self._limits = (str(bytes_per_second), str(latency))
        self._process: subprocess.Popen[str] | None = None
        self._port = ""

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    def __enter__(self) -> SlowLink:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._server.hostname), str(self._server.port), *self._limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._port = self._process.stdout.readline().strip()
        if not self._port:
            self._leave()
            raise RuntimeError("the slow link did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


async def _relay(client: socket.socket, server: tuple[str, int], rate: float, latency: float) -> None:
    loop = asyncio.get_running_loop()
    with client, socket.socket() as upstream:
        upstream.setblocking(False)
        for end in (client, upstream):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A connection that breaks at one end is closed at both, so neither side waits for the other.
        with contextlib.suppress(ConnectionError):
            await loop.sock_connect(upstream, server)
            ways = [
                asyncio.ensure_future(_pump(client, upstream, 0, latency)),
                asyncio.ensure_future(_pump(upstream, client, rate, 0)),
            ]
            try:
                await asyncio.gather(*ways)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)


async def _pump(source: socket.socket, target: socket.socket, rate: float, latency: float) -> None:
    loop = asyncio.get_running_loop()
    # Small enough for a slow rate to come as a trickle, not as a long silence.
    chunk = memoryview(bytearray(max(_LEAST_CHUNK, min(_CHUNK, int(rate / 100))) if rate else _CHUNK))
    due = 0.0
    while size := await loop.sock_recv_into(source, chunk):
        if latency:
            await asyncio.sleep(latency)
        if rate:
            # When the last byte of this chunk is to arrive. An idle connection saves up nothing.
            due = max(due, loop.time()) + size / rate
            if (early := due - loop.time()) > _SHORTEST_SLEEP:
                await asyncio.sleep(early)
        await loop.sock_sendall(target, chunk[:size])
    target.shutdown(socket.SHUT_WR)


async def _serve(server: tuple[str, int], rate: float, latency: float) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    relays: set[asyncio.Task[None]] = set()
    with socket.create_server((_HOST, 0), backlog=1024) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)

        async def accept() -> None:
            while True:
                client, _ = await loop.sock_accept(listener)
                client.setblocking(False)
                relay = asyncio.create_task(_relay(client, server, rate, latency))
                relays.add(relay)
                relay.add_done_callback(relays.discard)

        accepting = asyncio.create_task(accept())
        await over.wait()
        for task in (accepting, *relays):
            task.cancel()
        await asyncio.gather(accepting, *relays, return_exceptions=True)


if __name__ == "__main__":
    _, host, port, bytes_per_second, seconds = sys.argv
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve((host, int(port)), float(bytes_per_second), float(seconds)))
