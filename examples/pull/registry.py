"""Two registries on loopback with one face: Debian's real one as a child process, and a labelled stand-in for tests.

Both count the requests for each blob from their own access log.
"""

from __future__ import annotations

import http.client
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import parse_qs, urlencode, urlsplit

from image import Image, digest_of

BINARY = "docker-registry"
_HOST = "127.0.0.1"
_START_SECONDS = 20.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_STARTS = 5
_TOKEN_HEADER = "X-Kmutex-Registry"

# The combined log format, which the real registry writes and the stand-in imitates as far as it is read here.
_BLOB_GET = re.compile(r'"GET /v2/(?P<repository>[^ "]+)/blobs/(?P<digest>sha256:[0-9a-f]{64}) HTTP/[\d.]+" \d{3} ')


class RegistryFailedError(Exception):
    """The registry could not be started, or refused a request that it should serve."""


class RegistryMissingError(RegistryFailedError):
    """Debian's registry is not installed."""


class Registry(Protocol):
    """What both registries offer."""

    label: str

    @property
    def url(self) -> str: ...

    def push(self, image: Image, repository: str = "demo", tag: str = "latest", mount_from: str = "") -> str: ...

    def requests_per_blob(self, repository: str) -> Mapping[str, int]: ...

    def stop(self) -> None: ...


def push(url: str, image: Image, repository: str, tag: str, mount_from: str) -> str:
    """Push ``image`` by the registry's HTTP API and return its reference, ``repository:tag``.

    mount_from: a repository that has the blobs already; they are then linked from there and no byte is sent.
    RegistryFailedError: the registry refused a request.
    """
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        for digest, blob in image.blobs.items():
            uploads = f"/v2/{repository}/blobs/uploads/"
            if mount_from:
                query = urlencode({"mount": digest, "from": mount_from})
                _ask(connection, "POST", f"{uploads}?{query}", 201)
                continue
            place = urlsplit(_ask(connection, "POST", uploads, 202))
            query = "&".join(filter(None, (place.query, urlencode({"digest": digest}))))
            _ask(connection, "PUT", f"{place.path}?{query}", 201, blob, "application/octet-stream")
        _ask(connection, "PUT", f"/v2/{repository}/manifests/{tag}", 201, image.manifest, image.manifest_type)
    return f"{repository}:{tag}"


def _ask(
    connection: http.client.HTTPConnection, method: str, target: str, expected: int, body: bytes = b"", kind: str = ""
) -> str:
    """One request; the Location of its answer, or ''."""
    connection.request(method, target, body, {"Content-Type": kind} if kind else {})
    response = connection.getresponse()
    answer = response.read()
    if response.status != expected:
        raise RegistryFailedError(f"{method} {target}: {response.status} instead of {expected}: {answer[:500]!r}")
    return response.getheader("Location", "")


def count_blob_requests(lines: Iterable[str], repository: str) -> Counter[str]:
    """GET requests for each blob of ``repository``, whatever their status, in the lines of an access log."""
    found = (_BLOB_GET.search(line) for line in lines)
    return Counter(match["digest"] for match in found if match and match["repository"] == repository)


class DebianRegistry:
    """Debian's ``docker-registry`` as a child process on a free loopback port, its storage in a temporary folder.

    Use as a context manager; on leaving, the process has ended and the folder is gone. A SIGKILL of this process
    leaves both behind: nothing can clean up then.

    binary: name or path of the program.
    On entry, RegistryMissingError: it is not installed. RegistryFailedError: it does not start.
    """

    label = "Debian's docker-registry"

    def __init__(self, binary: str = BINARY) -> None:
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    def push(self, image: Image, repository: str = "demo", tag: str = "latest", mount_from: str = "") -> str:
        """See `push`."""
        return push(self.url, image, repository, tag, mount_from)

    def requests_per_blob(self, repository: str) -> Mapping[str, int]:
        """GET requests for each blob of ``repository`` so far.

        The registry writes a line when it has served the request, which may be after the client read the last
        byte. After `stop` the log is whole.
        """
        with (self._folder / "access.log").open(encoding="utf-8", errors="replace") as lines:
            return count_blob_requests(lines, repository)

    def stop(self) -> None:
        """End the process, once it has served what it is serving. The log can still be read."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> DebianRegistry:
        program = shutil.which(self._binary)
        if program is None:
            raise RegistryMissingError(f"{self._binary} is not installed: apt-get install docker-registry")
        self._folder = Path(tempfile.mkdtemp(prefix="kmutex-registry-"))
        try:
            self._start(program)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, program: str) -> None:
        # The registry can't choose a port itself, so another process may take it first. Then try the next one.
        for left in reversed(range(_STARTS)):
            self._port = _free_port()
            token = secrets.token_hex(16)
            config = self._folder / "config.yml"
            config.write_text(_CONFIG.format(root=self._folder / "data", address=f"{_HOST}:{self._port}", token=token))
            # Variables named REGISTRY_... would override the configuration.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
            with (self._folder / "access.log").open("wb") as out, (self._folder / "errors.log").open("wb") as errors:
                self._process = subprocess.Popen(
                    [program, "serve", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env=environment,
                )
            if self._answers(self._process, token):
                return
            self.stop()
            words = (self._folder / "errors.log").read_text(errors="replace").strip()[-1000:]
            if not left or "address already in use" not in words:
                raise RegistryFailedError(f"{program} did not answer on {self.url}: {words or 'it wrote no error'}")

    def _answers(self, process: subprocess.Popen[bytes], token: str) -> bool:
        """Whether this very process, told by the token in its answer, serves /v2/ before the deadline or its end."""
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with closing(http.client.HTTPConnection(_HOST, self._port, timeout=1)) as connection:
                    connection.request("GET", "/v2/")
                    response = connection.getresponse()
                    if response.status == 200 and response.getheader(_TOKEN_HEADER) == token:
                        return True
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(_POLL_SECONDS)
        return False


_CONFIG = f"""\
version: 0.1
log:
  level: warn
  accesslog:
    disabled: false
storage:
  filesystem:
    rootdirectory: "{{root}}"
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: "{{address}}"
  secret: "{{token}}"
  draintimeout: 10s
  headers:
    {_TOKEN_HEADER}: ["{{token}}"]
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Status:
    """Fault: answer with this status instead."""

    code: int = 500


@dataclass(frozen=True)
class Truncate:
    """Fault: send ``keep`` bytes only. The length says so if ``announced``; else it is the full one, and we close."""

    keep: int = 0
    announced: bool = False


@dataclass(frozen=True)
class Corrupt:
    """Fault: the right length, with the last byte changed."""


@dataclass(frozen=True)
class Stall:
    """Fault: send ``after`` bytes, set ``reached``, and send the rest once ``go`` is set.

    Stopping the registry ends the wait, and the rest is not sent.
    """

    after: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


Fault = Status | Truncate | Corrupt | Stall


class InProcessRegistry:
    """A stand-in for tests, in threads of this process: as much of the API as a push and a pull need, and faults.

    It keeps blobs in memory and shares the interpreter with the client, so its times say nothing about a registry.
    Use as a context manager. On leaving, its threads have ended, and an error inside it is raised.
    """

    label = "in-process stand-in, not a real registry"

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._log: list[str] = []
        self._faults: dict[str, deque[Fault]] = {}
        self._stalls: list[Stall] = []
        self._errors: list[BaseException] = []
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._server: _Server | None = None
        self._thread = threading.Thread()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    def push(self, image: Image, repository: str = "demo", tag: str = "latest", mount_from: str = "") -> str:
        """See `push`."""
        return push(self.url, image, repository, tag, mount_from)

    def requests_per_blob(self, repository: str) -> Mapping[str, int]:
        """GET requests for each blob of ``repository`` so far, each counted before the answer's first byte."""
        with self._changed:
            return count_blob_requests(self._log, repository)

    def wait_for_requests(self, repository: str, digest: str, count: int, seconds: float = 30.0) -> None:
        """Return once ``count`` GETs for the blob have been counted. TimeoutError: not within ``seconds``."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: count_blob_requests(self._log, repository)[digest] >= count, timeout=seconds
            ):
                raise TimeoutError(f"fewer than {count} requests for {digest} within {seconds} s")

    def inject(self, target: str, *faults: Fault) -> None:
        """The next GETs of ``target``, a digest or a tag, get these faults, one each, in this order."""
        with self._changed:
            self._faults.setdefault(target, deque()).extend(faults)
            self._stalls.extend(fault for fault in faults if isinstance(fault, Stall))

    def stop(self) -> None:
        """Close every connection and end every thread. The log can still be read."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        server.closing.set()
        with self._changed:
            for stall in self._stalls:
                stall.go.set()
        server.close_connections()
        server.server_close()
        self._thread.join()

    def __enter__(self) -> InProcessRegistry:
        self._server = _Server(self)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._errors and error is None:
            raise RegistryFailedError("the in-process registry failed") from self._errors[0]

    # What the handler calls.

    def note_request(self, line: str) -> None:
        with self._changed:
            self._log.append(line)
            self._changed.notify_all()

    def note_error(self, error: BaseException) -> None:
        self._errors.append(error)

    def next_fault(self, target: str) -> Fault | None:
        with self._changed:
            faults = self._faults.get(target)
            return faults.popleft() if faults else None

    def blob(self, repository: str, digest: str) -> bytes | None:
        with self._changed:
            return self._blobs.get((repository, digest))

    def put_blob(self, repository: str, digest: str, data: bytes) -> None:
        with self._changed:
            self._blobs[repository, digest] = data

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes] | None:
        with self._changed:
            return self._manifests.get((repository, reference))

    def put_manifest(self, repository: str, tag: str, kind: str, data: bytes) -> None:
        with self._changed:
            for reference in (tag, digest_of(data)):
                self._manifests[repository, reference] = (kind, data)


class _Server(ThreadingHTTPServer):
    """Knows its open connections, so that a handler that waits for the next request can be ended."""

    daemon_threads = False  # server_close() then joins them.
    request_queue_size = 256

    def __init__(self, registry: InProcessRegistry) -> None:
        self.registry = registry
        self.closing = threading.Event()
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        super().__init__((_HOST, 0), _Handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        assert isinstance(request, socket.socket)
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._guard:
            for connection in self._open:
                with suppress(OSError):  # The client may have closed it first.
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        # A client that goes away in the middle is a thing that the tests do on purpose.
        if error is not None and not isinstance(error, ConnectionError):
            self.registry.note_error(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_POST(self) -> None:
        repository, _, _ = self._route()
        query = parse_qs(urlsplit(self.path).query)
        if "mount" in query:
            digest = query["mount"][0]
            data = self.server.registry.blob(query["from"][0], digest)
            if data is None:
                self._answer(404)
                return
            self.server.registry.put_blob(repository, digest, data)
            self._answer(201)
            return
        self._answer(202, {"Location": f"{self.server.registry.url}/v2/{repository}/blobs/uploads/one?_state=s"})

    def do_PUT(self) -> None:
        repository, what, reference = self._route()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if what == "manifests":
            self.server.registry.put_manifest(repository, reference, self.headers["Content-Type"], data)
            self._answer(201)
            return
        digest = parse_qs(urlsplit(self.path).query)["digest"][0]
        if digest != digest_of(data):
            self._answer(400)
            return
        self.server.registry.put_blob(repository, digest, data)
        self._answer(201)

    def _serve(self, body: bool) -> None:
        if self.path == "/v2/":
            self._send("application/json", b"{}", body, None)
            return
        repository, what, reference = self._route()
        found: tuple[str, bytes] | None = None
        if what == "manifests":
            found = self.server.registry.manifest(repository, reference)
            # As the real one: an OCI manifest is there only for a client that says it takes them.
            if found is not None and found[0] not in self.headers.get("Accept", ""):
                found = None
        elif what == "blobs":
            blob = self.server.registry.blob(repository, reference)
            found = None if blob is None else ("application/octet-stream", blob)
        if found is None:
            self._answer(404)
            return
        self._send(*found, body, self.server.registry.next_fault(reference) if body else None)

    def _send(self, kind: str, data: bytes, body: bool, fault: Fault | None) -> None:
        digest, length, pause = digest_of(data), len(data), 0
        if isinstance(fault, Status):
            self._answer(fault.code)
            return
        if isinstance(fault, Corrupt):
            data = data[:-1] + bytes([data[-1] ^ 1])
        elif isinstance(fault, Truncate):
            data = data[: fault.keep]
            length = len(data) if fault.announced else length
            # A whole answer leaves the connection open: a client that uses it again must not meet its end.
            self.close_connection = not fault.announced
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if not body:
            return
        if isinstance(fault, Stall):
            pause = fault.after
            self.wfile.write(data[:pause])
            fault.reached.set()
            fault.go.wait()
            if self.server.closing.is_set():
                self.close_connection = True
                return
        self.wfile.write(data[pause:])

    def _answer(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _route(self) -> tuple[str, str, str]:
        """Repository, 'blobs' or 'manifests', and the rest of a path /v2/REPOSITORY/WHAT/REST."""
        match = re.fullmatch(r"/v2/(.+)/(blobs|manifests)/(.+)", urlsplit(self.path).path)
        return (match[1], match[2], match[3]) if match else ("", "", "")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # Called before the first byte of an answer is sent, so a client that has it finds the line in the log.
        status = int(code)
        self.server.registry.note_request(f'{_HOST} - - [-] "{self.requestline}" {status} {size}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
