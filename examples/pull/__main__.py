"""Pull images, also the same one many times at once, and say what was really fetched and unpacked."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from errors import PullError
from kmutex import KeyedLocker, KeyedMutex
from puller import Counts, Progress, Puller, Way
from stop import Stop


class Display:
    """A bar for each piece of work."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._guard = threading.Lock()
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def show(self, progress: Progress) -> None:
        """Draw it. From any thread."""
        name = (progress.work, progress.digest)
        with self._guard:
            if name not in self._tasks:
                what = f"{progress.work:6} {progress.digest[7:19]}"
                self._tasks[name] = self._bars.add_task(what, total=progress.total)
        self._bars.update(self._tasks[name], completed=progress.done, total=progress.total)


def table_of(counts: Counts) -> Table:
    """How often each thing was done."""
    table = Table("what", "digest", "times", "thrown away")
    for digest, times in sorted(counts.fetches.items()):
        table.add_row("fetch", digest[7:19], str(times), "")
    for chain_id, times in sorted(counts.unpacks.items()):
        table.add_row("unpack", chain_id[7:19], str(times), str(counts.failed_commits[chain_id]))
    return table


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python examples/pull", description=__doc__)
    parser.add_argument("ref", nargs="+", help="repository:tag or repository@digest")
    parser.add_argument("--registry", default="http://127.0.0.1:5000", help="default: %(default)s")
    parser.add_argument("--root", type=Path, required=True, help="the folder for blobs and snapshots")
    parser.add_argument("--way", type=Way, default=Way.SUPPRESS, metavar="WAY", help=", ".join(w.value for w in Way))
    parser.add_argument("--times", type=int, default=1, help="pull each so often, all at once")
    parser.add_argument("--timeout", type=float, help="seconds for each pull")
    parser.add_argument("--platform", default="linux/amd64", help="default: %(default)s")
    parser.add_argument(
        "--postgres", metavar="CONNINFO", help="share the root with other processes, by locks in this database"
    )
    return parser


@contextmanager
def locker_for(postgres: str | None, root: Path) -> Iterator[KeyedLocker]:
    """For this process, or for all that pull into the root."""
    if postgres is None:
        yield KeyedMutex()
        return
    # Here, so that nobody needs the client library who does not ask for it.
    from kmutex.postgres import PostgresKeyedMutex

    with PostgresKeyedMutex(postgres, space=f"pull {root.resolve()}") as locker:
        yield locker


def main() -> int:
    """0: all were pulled. 1: at least one failed. 2: usage."""
    parser = arguments()
    asked = parser.parse_args()
    if asked.times < 1:
        parser.error("--times must be at least 1")
    console = Console()
    refs = [ref for ref in asked.ref for _ in range(asked.times)]
    stops = [Stop(asked.timeout) for _ in refs]
    failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    try:
        with (
            locker_for(asked.postgres, asked.root) as locker,
            Bars(*columns, console=console) as bars,
            Puller(
                asked.root,
                asked.registry,
                locker=locker,
                shared=asked.postgres is not None,
                way=asked.way,
                platform=asked.platform,
                watch=Display(bars).show,
            ) as puller,
        ):
            with ThreadPoolExecutor(len(refs), thread_name_prefix="pull") as pool:
                pulls = [pool.submit(puller.pull, ref, stop=stop) for ref, stop in zip(refs, stops, strict=True)]
                try:
                    for ref, pull in zip(refs, pulls, strict=True):
                        try:
                            pulled = pull.result()
                        except (PullError, OSError) as error:
                            failed += 1
                            console.print(f"{ref}: {type(error).__name__}: {error}", markup=False)
                        else:
                            console.print(f"{ref}: {puller.rootfs(pulled)}", markup=False)
                except BaseException:
                    for stop in stops:
                        stop.set()
                    raise
            counts = puller.counts
    except (PullError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    console.print(table_of(counts))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
