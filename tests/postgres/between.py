"""What may stand between a locker and its server: a wire that a test can cut or silence, and a pooler."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Wire:
    """Passes bytes between clients and a port of this host, until told otherwise. The kernel answers keepalives."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        """Client's side and server's side of each connection, in their order."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._flowing.set()
        self._listening.close()
        for pair in self.pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
                side.close()

    def swallow(self) -> None:
        """From here on nothing arrives, neither way, and no connection ends."""
        self._flowing.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self.pairs.append((client, server))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                if not self._flowing.is_set():
                    return
                sink.sendall(content)
            if self._flowing.is_set():
                sink.shutdown(socket.SHUT_WR)
