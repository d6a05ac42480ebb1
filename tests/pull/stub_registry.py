"""A registry for these tests: the reading half of the API, from memory, with faults."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from tests.pull.made import Made, digest_of


@dataclass(frozen=True)
class Status:
    """Answer with this status instead."""

    code: int = 500


@dataclass(frozen=True)
class Truncate:
    """Send so many bytes and close; the announced length is the full one, or that of what is sent if `announced`."""

    keep: int = 0
    announced: bool = False


@dataclass(frozen=True)
class Corrupt:
    """The right length, with the last byte changed."""


@dataclass(frozen=True)
class Stall:
    """Send ``after`` bytes, set ``reached``, and the rest once ``go`` is set."""

    after: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


Fault = Status | Truncate | Corrupt | Stall


class InProcessRegistry:
    """As a context manager: it serves on a free port of loopback until the block ends."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._content: dict[str, tuple[str, bytes]] = {}
        self._faults: dict[str, deque[Fault]] = {}
        self._gets: Counter[str] = Counter()
        self._stalls: list[Stall] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def push(self, image: Made, repository: str = "demo", tag: str = "latest") -> str:
        with self._guard:
            for digest, data in image.blobs.items():
                self._content[f"/v2/{repository}/blobs/{digest}"] = ("application/octet-stream", data)
            for name in (tag, digest_of(image.manifest)):
                self._content[f"/v2/{repository}/manifests/{name}"] = (image.manifest_type, image.manifest)
        return f"{repository}:{tag}"

    def inject(self, target: str, *faults: Fault) -> None:
        """The next GETs of ``target``, a digest or a tag, get these faults, one each, in this order."""
        with self._guard:
            self._faults.setdefault(target, deque()).extend(faults)
            self._stalls.extend(fault for fault in faults if isinstance(fault, Stall))

    def requests_per_blob(self, repository: str) -> Counter[str]:
        """GET requests by blob so far."""
        prefix = f"/v2/{repository}/blobs/"
        with self._guard:
            return Counter({k.removeprefix(prefix): n for k, n in self._gets.items() if k.startswith(prefix)})

    def __enter__(self) -> InProcessRegistry:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stall in self._stalls:
            stall.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def _next(self, path: str) -> tuple[tuple[str, bytes] | None, Fault | None]:
        with self._guard:
            self._gets[path] += 1
            faults = self._faults.get(path.rpartition("/")[2])
            return self._content.get(path), faults.popleft() if faults else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                found = registry._content.get(self.path)
                if found is None:
                    self._status(404)
                else:
                    self._head(found[0], found[1], len(found[1]))

            def do_GET(self) -> None:
                found, fault = registry._next(self.path)
                if isinstance(fault, Status):
                    return self._status(fault.code)
                if found is None:
                    return self._status(404)
                kind, whole = found
                data = whole
                if isinstance(fault, Corrupt):
                    data = whole[:-1] + bytes([whole[-1] ^ 1])
                if isinstance(fault, Truncate):
                    data = whole[: fault.keep]
                    self.close_connection = True
                    self._head(kind, whole, len(data) if fault.announced else len(whole))
                else:
                    self._head(kind, whole, len(data))
                try:
                    if isinstance(fault, Stall):
                        self.wfile.write(data[: fault.after])
                        fault.reached.set()
                        fault.go.wait(600)
                        data = data[fault.after :]
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _head(self, kind: str, whole: bytes, length: int) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(length))
                self.send_header("Docker-Content-Digest", digest_of(whole))
                if self.close_connection:
                    self.send_header("Connection", "close")
                self.end_headers()

            def _status(self, code: int) -> None:
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing: the counts tell."""

        return Handler
