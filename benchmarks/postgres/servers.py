"""Real servers on loopback for the tests and the benchmarks: started here, as an ordinary user.

As root (initdb refuses root) the server runs as the user of the Debian package, or else as nobody.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

PATIENCE = 30.0
"""Seconds that a server may take to start or to end."""

DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs of the server: off the path, in a folder for each major version."""


FOLDER = "KMUTEX_POSTGRES"
"""Names the folder with the programs of the PostgreSQL to use, where several are installed."""


class NotInstalledError(RuntimeError):
    """The server is not on this machine. One line: how to install it."""


class ServerFailedError(RuntimeError):
    """The server is there, and did not start. The end of its log."""


def _user() -> str | None:
    """The ordinary user for the server; None: it is ours already."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise NotInstalledError("root may not run the server, and there is neither a user postgres nor a user nobody")


def _ends_with_us() -> None:
    # Linux: the kernel ends the server with whoever started it, however that dies. Elsewhere `stop` must do.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Kind = TypeVar("Kind", bound="Server")


class Server:
    """A process in a folder of its own. As a context manager it is started and stopped."""

    name = "server"

    def __init__(self) -> None:
        self.user = _user()
        self.folder = Path(tempfile.mkdtemp(prefix=f"kmutex-{self.name}-"))
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it; what it has stored stays, so that `start` can bring it back."""
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.wait(PATIENCE)
        self.process = None

    def __enter__(self: Kind) -> Kind:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _popen(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with open(self.folder / "log", "ab") as log:
            if self.user is None:
                return subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_ends_with_us, cwd=self.folder)
            group = pwd.getpwnam(self.user).pw_gid
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                user=self.user,
                group=group,
                extra_groups=[],
                preexec_fn=_ends_with_us,
                cwd=self.folder,
            )

    def _launch(self, command: Sequence[str]) -> None:
        self.process = self._popen(command)
        try:
            eventually(lambda: self.process is None or self.process.poll() is not None or self.answers())
        except TimeoutError:
            raise ServerFailedError(self.log()) from None
        if self.process.poll() is not None:
            raise ServerFailedError(self.log())

    def log(self) -> str:
        """The end of what it wrote."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]


class Postgres(Server):
    """PostgreSQL, without fsync: a crash of the server is survived, one of the machine is not."""

    name = "postgres"

    def __init__(self, **settings: object) -> None:
        """settings: of postgresql.conf. NotInstalledError."""
        self.bin = _postgres_bin()
        self.settings = settings
        super().__init__()

    @property
    def conninfo(self) -> str:
        """For psycopg."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def start(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            initdb = [str(self.bin / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"]
            if self._popen([*initdb, "-E", "UTF8", "--locale=C"]).wait() != 0:
                raise ServerFailedError(self.log())
        settings = {"max_connections": 60, "shared_buffers": "16MB", "fsync": "off", **self.settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        place = ["-k", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port)]
        self._launch([str(self.bin / "postgres"), "-D", str(data), *place, *options])

    def answers(self) -> bool:
        asked = subprocess.run(
            [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False, timeout=PATIENCE
        )
        return asked.returncode == 0


def _postgres_bin() -> Path:
    named = os.environ.get(FOLDER)
    if named:
        if not _is_postgres(Path(named)):
            raise NotInstalledError(f"{FOLDER} is {named}, where initdb and postgres are not: name their folder")
        return Path(named)
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else postgres_folders()
    for folder in reversed(folders):
        if _is_postgres(folder):
            return folder
    raise NotInstalledError("PostgreSQL is not installed: apt-get install postgresql")


def postgres_folders() -> list[Path]:
    """The programs of each version that Debian has installed here, the oldest first."""
    return [folder for folder in sorted(DEBIAN.glob("*/bin"), key=_major) if _is_postgres(folder)]


def _is_postgres(folder: Path) -> bool:
    return (folder / "initdb").exists() and (folder / "postgres").exists()


def _major(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def eventually(true: Callable[[], object], patience: float = PATIENCE) -> float:
    """Ask until the answer is yes; the seconds it took. TimeoutError: it never was."""
    begun = time.perf_counter()
    while not true():
        if time.perf_counter() - begun > patience:
            raise TimeoutError(f"not within {patience} s")
        time.sleep(0.002)
    return time.perf_counter() - begun
