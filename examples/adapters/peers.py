"""The page of what conform says of the original and of other keyed locks, as they are. It runs the command for each.

    python examples/adapters/peers.py --containerd REPOSITORY --sync REPOSITORY --write docs/conform-peers.md

REPOSITORY is a clone of containerd, and of golang.org/x/sync. Needs git, go, npm, javac and Guava (Debian:
libguava-java). `--only WORD` prints the rows of the subjects with that word in them, and needs no more than these do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
CONTAINERD = "v2.3.4"
NEW, OLD = "v0.19.0", "v0.4.0"
"""Of golang.org/x/sync: from v0.5.0 on a semaphore gives a grant back that meets a cancellation."""
_OF_NEW = "pass,refuse"
"""The older one keeps it, and says that a call which is cancelled before it begins may take a free key."""
OPTIONS = ("--quiet", "--random", "10", "--failures", "3")
LONGER = "0+a,ua/1+a*2000"
"""A stray unlock beside a lock at a free key, in so many rounds."""


class Subject(NamedTuple):
    """What is run, and how its adapter is started in the folder where it was built."""

    title: str
    source: str
    """Who builds it: a function of this file."""
    adapter: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Beside those of all."""


SUBJECTS = (
    Subject(f"containerd kmutex, x/sync {NEW}", "containerd", (f"./containerd-{NEW}", "containerd", _OF_NEW)),
    Subject(f"containerd kmutex, x/sync {OLD}", "containerd", (f"./containerd-{OLD}", "containerd", "keep")),
    Subject("containerd kmutex, recovered", "containerd", (f"./containerd-{NEW}", "containerd", _OF_NEW, "recover")),
    Subject("containerd kmutex, recovered, slowed", "containerd", ("./slowed", "containerd", _OF_NEW, "recover")),
    Subject("async-lock", "npm", ("node", "adapter.mjs", "async-lock")),
    Subject("async-lock, without time limits", "npm", ("node", "adapter.mjs", "async-lock"), ("--skip", "...:...")),
    Subject("async-mutex, one for each key", "npm", ("node", "adapter.mjs", "async-mutex")),
    Subject("async-await-mutex-lock", "npm", ("node", "adapter.mjs", "async-await-mutex-lock")),
    Subject(
        "async-await-mutex-lock, without KM-IDLE",
        "npm",
        ("node", "adapter.mjs", "async-await-mutex-lock"),
        ("--without", "KM-IDLE"),
    ),
    Subject("Guava Striped.lock(4)", "guava", ("lock", "4")),
    Subject("Guava Striped.lock(1024)", "guava", ("lock", "1024")),
    Subject("Guava Striped.lock(1024), without KM-INDEP", "guava", ("lock", "1024"), ("--without", "KM-INDEP")),
    Subject("Guava Striped.semaphore(1024, 1)", "guava", ("semaphore", "1024")),
)

HEAD = """# What conform says of the original and its peers

The Go original and keyed locks from npm and Maven, as they are, each under `kmutex conform` with an adapter from
`examples/adapters/`. An adapter declares what the documentation of its subject promises, no more; clauses that nobody
promised are not judged. One that is violated is listed with the first case that showed it.

This page is made by `python examples/adapters/peers.py --write docs/conform-peers.md`, with two clones of public
repositories; `{options}` are the options.

| subject | version | level | features | verdict | holds | violated: the case | inconclusive |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

MEANING = """
- **containerd** is played at level 2: the adapter reads the map and the semaphores' lists, each under its own mutex. A
  stray unlock ends the process, so it is asked for only where the adapter recovers from the panic. *slowed* is the same
  code with a pause of 1 ms put between counting and waiting, where the window is that the next section is about.
- **async-mutex** is not keyed. The adapter has a map of them and deletes none, so KM-IDLE would be the adapter's.
- **async-lock** and **async-await-mutex-lock** have no count of references; `stat` is made from their maps. In
  async-lock's queue a call whose time is over stays until its turn. Until then it counts as one of `maxPending`.
- **Guava** promises no order. Its keys share locks by design: KM-INDEP is what one gives up for a table that does not
  grow, and is judged here since no feature leaves it out. What is seen depends on how the names fall on stripes.
"""

STRAY = """
## A stray unlock beside a lock, played longer

`kmutex conform --case '{case}'`: the case of [divergences.md](../specs/divergences.md), section 1.

| subject | outcome |
| --- | --- |
"""

NIL = """
## A nil context

What Go lets a caller pass. `{command}` prints:

```text
{words}
```

With `x/sync` {new} `Lock` has counted its request and panics before it takes the semaphore: the entry keeps a reference
that nobody gives back, also of a key that was free. With {old} the panic comes where the call would wait. Its place in
the queue stays, the next grant goes to it, and nobody gets the key again.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the page of what conform says of other keyed locks.")
    parser.add_argument("--containerd", type=Path, metavar="REPOSITORY", help="a clone of containerd")
    parser.add_argument("--sync", type=Path, metavar="REPOSITORY", help="a clone of golang.org/x/sync")
    parser.add_argument("--guava", type=Path, metavar="JAR", default=Path("/usr/share/java/guava.jar"))
    parser.add_argument("--only", metavar="WORD", help="print the rows of these subjects")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            peers = Peers(Path(folder), given)
            if given.only is not None:
                sys.stdout.writelines(peers.row(subject) for subject in SUBJECTS if given.only in subject.title)
            elif given.write is None:
                sys.stdout.writelines(peers.page())
            else:
                given.write.write_text("".join(peers.page()), encoding="utf-8")
        except MissingError as missing:
            print(f"peers: {missing}", file=sys.stderr)
            return 4
    return 0


class MissingError(Exception):
    """A tool or a source is not here. One line that says what to do."""


class Peers:
    """The subjects, each source built once, when it is first asked for."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self._folder = folder
        self._given = given
        self._built: dict[str, tuple[Path, str]] = {}

    def page(self) -> Iterator[str]:
        """The whole page, piece by piece. Takes some minutes."""
        yield HEAD.format(options=" ".join(OPTIONS[1:]))
        for subject in SUBJECTS:
            yield self.row(subject)
        yield MEANING
        yield STRAY.format(case=LONGER)
        for subject in SUBJECTS:
            if subject.title.startswith("containerd kmutex, recovered"):
                yield f"| {subject.title} | {self.longer(subject)} |\n"
        words = []
        for sync in (NEW, OLD):
            command = [f"./containerd-{sync}", "-nil-context"]
            words += [f"x/sync {sync}, {line}" for line in _said(command, self._at("containerd")[0]).splitlines()]
        yield NIL.format(command="containerd -nil-context", words="\n".join(words), new=NEW, old=OLD)

    def row(self, subject: Subject) -> str:
        """The line of the table for this subject."""
        said, version = self._conform(subject)
        clauses: dict[str, list[str]] = {"holds": [], "violated": [], "inconclusive": []}
        for clause, row in said["clauses"].items():
            clauses.setdefault(row["result"], []).append(clause)
        cases: dict[str, str] = {}
        for case in said["cases"]:
            for clause in case["clauses"]:
                cases.setdefault(clause, case["case"])
        cells = (
            subject.title,
            version,
            "2" if "stat" in said["features"] else "1",
            " ".join(said["features"]),
            said["verdict"],
            " ".join(clauses["holds"]),
            "; ".join(f"{clause}: `{cases[clause]}`" for clause in said["violated"]),
            " ".join(clauses["inconclusive"]),
        )
        return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|\n"

    def longer(self, subject: Subject) -> str:
        """What the case in many rounds shows."""
        adapter, folder, _ = self._adapter(subject)
        command = [sys.executable, "-m", "kmutex", "conform", "--case", LONGER, "--", *adapter]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1, 2):
            raise RuntimeError(f"{subject.title}: exit status {done.returncode}: {done.stderr.strip()}")
        return (done.stdout.strip().splitlines() or ["nothing was said"])[-1].replace("|", "/")

    def _conform(self, subject: Subject) -> tuple[dict[str, Any], str]:
        adapter, folder, version = self._adapter(subject)
        report = self._folder / "report.json"
        command = [
            sys.executable,
            "-m",
            "kmutex",
            "conform",
            *OPTIONS,
            *subject.options,
            "--json",
            str(report),
            "--",
            *adapter,
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1, 2):
            raise RuntimeError(f"{subject.title}: exit status {done.returncode}: {done.stderr.strip()}")
        said: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return said, version

    def _adapter(self, subject: Subject) -> tuple[list[str], Path, str]:
        folder, version = self._at(subject.source)
        adapter = list(subject.adapter)
        if subject.source == "npm":
            package = json.loads((folder / "node_modules" / adapter[2] / "package.json").read_text(encoding="utf-8"))
            version = package["version"].lstrip("v")
        if subject.source == "guava":
            path = os.pathsep.join((str(folder), str(self._given.guava)))
            options = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", path)
            adapter = ["java", *options, "Peer", subject.title, *adapter]
        return adapter, folder, version

    def _at(self, source: str) -> tuple[Path, str]:
        """The folder in which a source was built, and its version."""
        if source not in self._built:
            folder = self._folder / source
            folder.mkdir()
            build = {"containerd": self._containerd, "npm": self._npm, "guava": self._guava}[source]
            self._built[source] = folder, build(folder)
        return self._built[source]

    def _containerd(self, folder: Path) -> str:
        _needed("git", "go")
        if self._given.containerd is None or self._given.sync is None:
            raise MissingError("name clones of containerd and of golang.org/x/sync: --containerd, --sync")
        (folder / "go.mod").write_text("module peer\n\ngo 1.18\n", encoding="utf-8")
        shutil.copy(HERE / "containerd" / "main.go", folder)
        kmutex = _at_tag(self._given.containerd, CONTAINERD, "internal/kmutex/kmutex.go")
        _write(folder / "kmutex" / "kmutex.go", re.sub(r'"golang\.org/x/sync/semaphore"', '"peer/semaphore"', kmutex))
        for sync in (OLD, NEW):
            semaphore = _at_tag(self._given.sync, sync, "semaphore/semaphore.go")
            _write(folder / "semaphore" / "semaphore.go", semaphore)
            _said(["go", "build", "-buildvcs=false", "-o", f"containerd-{sync}", "."], folder)
        slowed, windows = re.subn(r"(?=if err := l\.Acquire)", "time.Sleep(time.Millisecond)\n\t", kmutex)
        if windows != 1:
            raise RuntimeError(f"containerd {CONTAINERD} has {windows} places to slow, and not one")
        slowed = slowed.replace('"sync"\n', '"sync"\n\t"time"\n', 1)
        _write(folder / "kmutex" / "kmutex.go", slowed.replace('"golang.org/x/sync/semaphore"', '"peer/semaphore"'))
        _said(["go", "build", "-buildvcs=false", "-o", "slowed", "."], folder)
        return CONTAINERD

    def _npm(self, folder: Path) -> str:
        _needed("node", "npm")
        for name in ("adapter.mjs", "package.json"):
            shutil.copy(HERE / "npm" / name, folder)
        _said(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"], folder)
        return ""

    def _guava(self, folder: Path) -> str:
        _needed("java", "javac")
        jar = self._given.guava
        if not jar.exists():
            raise MissingError(f"no {jar}: install libguava-java, or name the file: --guava")
        port = HERE.parents[1] / "ports" / "java"
        _said(
            ["javac", "-d", str(folder), "-cp", str(jar), "-sourcepath", str(port), str(HERE / "guava" / "Peer.java")]
        )
        with zipfile.ZipFile(jar) as archive:
            manifest = archive.read("META-INF/MANIFEST.MF").decode()
        found = re.search(r"^Bundle-Version: *(\S+)", manifest, re.MULTILINE)
        return found[1] if found else "unknown"


def _needed(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            raise MissingError(f"no {tool} here")


def _at_tag(repository: Path, tag: str, path: str) -> str:
    """A file of a clone as it was at a tag."""
    return _said(["git", "-C", str(repository), "show", f"{tag}:{path}"])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _said(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
