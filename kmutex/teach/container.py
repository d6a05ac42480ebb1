"""A container for the submissions of a class: it sees its own folder, Python and this package, and nothing else.

It is Bubblewrap, or Docker with an empty image: both get the same folders of this machine, read-only. To find out
whether one of them works, Python is run in it: on many machines they are installed but may not be used.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmutex import _sandbox

INSIDE = "/handed_in"
"""The folder of a submission within the container. Only this folder is writable."""
IMAGE = "kmutex-grade"
"""An image without a file in it."""
STARTING = 60.0
"""Real seconds that a container may take to start, on a busy machine."""
MOST_PROCESSES = 200
"""The most processes and threads in a Docker container."""
NEEDED = "apt-get install bubblewrap, or start Docker; --trust runs them with all the rights that you have"


@dataclass(frozen=True)
class Container:
    """How to run a command in a container."""

    name: str
    """bubblewrap, Docker, or "none" to run with the rights of the user."""

    def start(
        self, module: str, config: dict[str, Any], folder: Path, megabytes: int, **pipes: Any
    ) -> tuple[subprocess.Popen[str], Callable[[], None]]:
        """Run ``main()`` of a module of this package in ``folder``; return the process, and a function that ends it."""
        if self.name == "none":
            process = _sandbox.start(module, {**config, "folder": str(folder)}, folder=folder, **pipes)
            return process, lambda: _sandbox.kill(process)
        label = f"{IMAGE}-{uuid.uuid4().hex}"
        wrap = {"bubblewrap": _bubblewrap, "Docker": _docker}[self.name]
        process = _sandbox.start(
            module,
            {**config, "folder": INSIDE, "alone": True},
            inside=lambda command: [*wrap(folder, megabytes, label), *command],
            **pipes,
        )

        def end() -> None:
            if self.name == "Docker":
                # Killing the client does not end the container.
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    subprocess.run(["docker", "kill", label], capture_output=True, timeout=STARTING, check=False)
            _sandbox.kill(process)

        return process, end


TRUSTED = Container("none")


def find(hidden: Sequence[Path]) -> tuple[Container | None, list[str]]:
    """Return the first container in which Python runs and ``hidden`` is not visible, and a line for each that fails."""
    reasons = []
    for name, program in (("bubblewrap", "bwrap"), ("Docker", "docker")):
        why = _tried(Container(name), hidden) if shutil.which(program) else f"{program} is not installed"
        if not why:
            return Container(name), []
        reasons.append(f"{name}: {why}")
    return None, reasons


def _tried(container: Container, hidden: Sequence[Path]) -> str:
    """Return why the container can't be used, or ""."""
    if container.name == "Docker" and (why := _no_image()):
        return why
    with tempfile.TemporaryDirectory(prefix="kmutex-try-") as folder:
        try:
            process, end = container.start(
                __name__,
                {"hidden": [str(path.resolve()) for path in hidden]},
                Path(folder),
                1024,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            return f"it does not start: {error.strerror}"
        try:
            out, err = process.communicate(timeout=STARTING)
        except subprocess.TimeoutExpired:
            return f"it did not come up within {STARTING:g} s"
        finally:
            end()
    try:
        seen = json.loads(out)
    except ValueError:
        lines = err.strip().splitlines()
        return f"Python does not run in it: {lines[0] if lines else f'status {process.returncode}'}"
    return f"{seen[0]} is seen in it" if seen else ""


def main() -> None:
    """Print, within a container under trial, the visible paths; also import what a submission needs."""
    import kmutex.verify.machine  # noqa: F401
    from kmutex.teach.clauses import clauses

    clauses()
    config = _sandbox.argument()
    Path(config["folder"], "written").touch()
    print(json.dumps([path for path in config["hidden"] if os.path.exists(path)]))


def _no_image() -> str:
    """Make the empty image if it is missing; return an error message, or ""."""
    try:
        said = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, timeout=STARTING, check=False)
        if said.returncode == 0:
            return ""
        # Two empty blocks: a tar archive of nothing.
        made = subprocess.run(
            ["docker", "import", "-", IMAGE], input=bytes(1024), capture_output=True, timeout=STARTING, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"docker: {type(error).__name__}"
    words = made.stderr.decode(errors="replace").strip().splitlines()
    return "" if made.returncode == 0 else (words[-1] if words else f"docker import: status {made.returncode}")


def _bubblewrap(folder: Path, megabytes: int, label: str) -> list[str]:
    shared = [word for path in _shared() for word in ("--ro-bind", path, path)]
    links = [word for link, target in _links() for word in ("--symlink", target, link)]
    return [
        "bwrap",
        # With its own process numbers, so that all its processes end with the first.
        *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        # First, since Python itself may be in /tmp.
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *links,
        *shared,
        *("--bind", str(folder), INSIDE, "--chdir", INSIDE),
        "--clearenv",
        *(word for name, value in _environment().items() for word in ("--setenv", name, value)),
        "--",
    ]


def _docker(folder: Path, megabytes: int, label: str) -> list[str]:
    shared = [*_shared(), *(link for link, _ in _links())]
    return [
        *("docker", "run", "--rm", "--interactive", "--name", label, "--network", "none", "--read-only"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", str(MOST_PROCESSES)),
        # The grader and its workers, each of which has its own limit.
        *("--memory", f"{4 * megabytes}m", "--user", f"{os.getuid()}:{os.getgid()}", "--tmpfs", "/tmp"),
        *(word for path in shared for word in ("--volume", f"{path}:{path}:ro")),
        *("--volume", f"{folder}:{INSIDE}", "--workdir", INSIDE),
        *(word for name, value in _environment().items() for word in ("--env", f"{name}={value}")),
        IMAGE,
    ]


def _environment() -> dict[str, str]:
    """Return the environment of the container, without the user's variables, which may be secret."""
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def _links() -> Iterator[tuple[str, str]]:
    """Yield top folders that are links into /usr, as on Debian."""
    for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin"):
        link = Path("/", name)
        if link.is_symlink() and link.resolve().is_relative_to("/usr"):
            yield str(link), str(link.resolve())


def _shared() -> list[str]:
    """Return the folders and files of Python, this package and its dependencies."""
    linked = {link for link, _ in _links()}
    wanted = ["/usr", *(path for path in ("/bin", "/lib", "/lib64") if path not in linked), "/etc/ld.so.cache"]
    wanted += [sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix]
    wanted += [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    # Of a checkout only the package: other folders may have answers.
    for name in ("kmutex", "kmutex_model"):
        wanted += [str(Path(place).resolve()) for place in _places(name)]
    specs = Path(__file__).resolve().parents[2] / "specs"
    wanted += [str(specs)] if (specs / "clauses.toml").is_file() else []
    kept: list[str] = []
    for path in sorted({os.path.abspath(path) for path in wanted}, key=len):
        inside = any(Path(path).is_relative_to(other) for other in kept)
        if not inside and os.path.exists(path):
            kept.append(path)
    return kept


def _places(name: str) -> list[str]:
    module = sys.modules.get(name) or __import__(name)
    return list(module.__path__)
