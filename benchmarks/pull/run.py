"""Pull one image many times at once from a real registry: with suppression, failing fast, and with neither.

    python benchmarks/pull/run.py [--quick] [--json FILE]

Starts Debian's docker-registry itself, on loopback. Exit: 0 under suppression each blob was asked for once and each
layer unpacked once; 1 they were not; 2 nothing was put to the test, as no pull got in another's way even without
suppression; 3 the registry is not installed, or something failed; 4 usage. The wall time is reported and never
decides the exit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / "examples" / "pull"),
    str(Path(__file__).resolve().parent),
    str(ROOT / "benchmarks"),
]

from figures import GOAL_AT_ONCE, GOAL_RATIO, Goal, Row, Sample, goal, rows  # noqa: E402
from image import DEFAULT_BYTES, Image, build  # noqa: E402
from kmutex import KeyedMutex  # noqa: E402
from picture import Bar, text_bars  # noqa: E402
from puller import Puller, Way  # noqa: E402
from registry import DebianRegistry, InProcessRegistry, Registry, RegistryFailedError  # noqa: E402
from slow_link import SlowLink  # noqa: E402
from span import Span  # noqa: E402
from stop import Stop  # noqa: E402
from terms import Parser, at_least, busy, machine, progress  # noqa: E402

LABELS = {Way.SUPPRESS: "suppression", Way.FAIL_FAST: "fail fast, retry", Way.NONE: "none"}
COLUMNS = (
    *("at once", "way", "seconds", "x one\npull", "least..\nmost"),
    *("GETs\nper blob", "unpacks per\nchain id", "failed\ncommits", "retries"),
)
AT_ONCE = (1, 20, 100)
ROUNDS, QUICK_ROUNDS = 5, 2
QUICK_BYTES = 2_000_000
# Per connection, so that a fetch takes long enough on loopback for others to come in the middle of it.
BYTES_PER_SECOND = 8_000_000
# Blobs and unpacked layers of one pull, for each byte of the image; see image.build.
DISK_PER_BYTE = 3.5
# An interrupted fetch notices with its next chunk, or else when the link goes, which is after this time.
STOP_SECONDS = 2.0


class FailedError(Exception):
    """A pull failed, or left something behind. The figures would be of something else."""


@dataclass(frozen=True)
class Measured:
    """What one sample has before the registry's log is read."""

    way: Way
    at_once: int
    round: int
    repository: str
    seconds: float
    unpacks: Mapping[str, int]
    failed_commits: int
    retries: int


def pull_at_once(puller: Puller, reference: str, image: Image, at_once: int) -> float:
    """Seconds from the common start to the last return. FailedError: a pull failed, or gave another image."""
    stops = [Stop() for _ in range(at_once)]
    failures: list[BaseException] = []
    ends: list[float] = []
    begun: list[float] = []
    # The clock is read before anybody is let go: this thread may be the last to run again.
    start = threading.Barrier(at_once, action=lambda: begun.append(time.perf_counter()))

    def pull(stop: Stop) -> None:
        start.wait()
        try:
            pulled = puller.pull(reference, stop=stop)
            ends.append(time.perf_counter())
            if (pulled.manifest_digest, tuple(pulled.chain_ids)) != (image.manifest_digest, image.chain_ids):
                raise FailedError(f"pulled another image: {pulled}")
        except BaseException as error:
            failures.append(error)

    # Daemons, so that nothing that hangs keeps an interrupted benchmark alive.
    threads = [threading.Thread(target=pull, args=(stop,), daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        for stop in stops:
            stop.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise
    if failures:
        raise FailedError(f"{len(failures)} of {at_once} pulls of {reference} failed") from failures[0]
    return max(ends) - begun[0]


def measure(
    registry: Registry, url: str, image: Image, plan: Sequence[tuple[int, Way, int]], note: Callable[[str], None]
) -> list[Measured]:
    """Run the plan, (round, way, at once) each into an empty store. Round 0 is warm-up and not kept.

    Each sample pulls from a repository of its own, to which the blobs are linked. So the registry's log tells the
    samples apart, whenever it writes its lines.
    """
    registry.push(image, "bench")
    kept = []
    for number, way, at_once in plan:
        note(f"round {number}, {at_once} at once, {LABELS[way]}" if number else f"warm-up, {LABELS[way]}")
        repository = f"bench/{way.value}-{at_once}-{number}"
        reference = registry.push(image, repository, mount_from="bench")
        with (
            tempfile.TemporaryDirectory(prefix="kmutex-pull-", ignore_cleanup_errors=True) as folder,
            Puller(Path(folder), url, locker=(locker := KeyedMutex()), way=way) as puller,
        ):
            seconds = pull_at_once(puller, reference, image, at_once)
            counts = puller.counts
        if len(locker):
            raise FailedError(f"{len(locker)} keys are still locked, way {LABELS[way]}")
        if number:
            unpacks = {chain_id: counts.unpacks.get(chain_id, 0) for chain_id in image.chain_ids}
            failed_commits, retries = counts.failed_commits.total(), counts.unavailable.total()
            kept.append(Measured(way, at_once, number, repository, seconds, unpacks, failed_commits, retries))
    return kept


def interleaved(rounds: int, at_once: Sequence[int]) -> list[tuple[int, Way, int]]:
    """Round 0 warms each way up. Then each round has every cell once and starts one cell later than the last."""
    cells = [(way, number) for number in at_once for way in Way]
    plan = [(0, way, 1) for way in Way]
    for number in range(1, rounds + 1):
        shift = (number - 1) % len(cells)
        plan += [(number, *cell) for cell in cells[shift:] + cells[:shift]]
    return plan


def run(options: argparse.Namespace) -> tuple[list[Sample], dict[str, object]]:
    """Measure. RegistryFailedError, FailedError, OSError: it could not be done."""
    image = build(options.bytes)
    plan = interleaved(options.rounds, options.at_once)
    needed = int(max(options.at_once) * image.total_bytes * DISK_PER_BYTE)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        raise FailedError(
            f"{tempfile.gettempdir()} has {_mb(free)} free, this takes {_mb(needed)}; TMPDIR sets another"
        )
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        registry: Registry
        if options.in_process:
            registry = stack.enter_context(InProcessRegistry())
        else:
            registry = stack.enter_context(DebianRegistry())
        url = registry.url
        with ExitStack() as inner:
            if options.rate or options.latency:
                url = inner.enter_context(SlowLink(url, options.rate, options.latency / 1000)).url
            shown = inner.enter_context(progress())
            task = shown.add_task("", total=len(plan))
            done = iter(range(len(plan)))

            def note(words: str) -> None:
                shown.update(task, description=words, completed=next(done))

            measured = measure(registry, url, image, plan, note)
        registry.stop()  # Only then is its log whole.
        samples = []
        for one in measured:
            found = registry.requests_per_blob(one.repository)
            requests = {digest: found.get(digest, 0) for digest in image.blobs}
            samples.append(
                Sample(
                    one.way.value,
                    one.at_once,
                    one.round,
                    one.seconds,
                    requests,
                    one.unpacks,
                    one.failed_commits,
                    one.retries,
                )
            )
        facts: dict[str, object] = {
            "registry": registry.label,
            "image_bytes": image.total_bytes,
            "layers": len(image.layers),
            "manifest_digest": image.manifest_digest,
            "bytes_per_second": options.rate,
            "latency_ms": options.latency,
            "rounds": options.rounds,
            **machine(load),
        }
    return samples, facts


def conditions(facts: Mapping[str, object]) -> list[str]:
    """What the figures were measured on and what they can't say, in lines."""
    limits = [f"{_mb(float(str(facts['bytes_per_second'])))}/s on each connection"] if facts["bytes_per_second"] else []
    limits += [f"{facts['latency_ms']} ms for each request"] if facts["latency_ms"] else []
    link = f"a proxy in its own process: {', '.join(limits)}, the same in each way" if limits else "no proxy: loopback"
    lines = [
        f"Registry: {facts['registry']}. Link: {link}.",
        f"Image: {facts['layers']} layers, {_mb(float(str(facts['image_bytes'])))}. Rounds: {facts['rounds']},"
        f" interleaved. Python {facts['python']}, {facts['cores']} cores ({facts['machine']}).",
    ]
    return [*lines, *busy(float(str(facts["load_before"])))]


def table_of(found: Sequence[Row]) -> Table:
    table = Table(title="Pulls of one image at once, each into an empty store: medians, or least..most")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "way" else "right", no_wrap=True)
    at_once = 0
    for row in sorted(found, key=lambda row: row.at_once):
        if at_once and at_once != row.at_once:
            table.add_section()
        at_once = row.at_once
        table.add_row(
            str(row.at_once),
            LABELS[Way(row.way)],
            f"{row.seconds.median:.2f}",
            f"{row.ratio.median:.2f}",
            _range(row.ratio, ".2f"),
            *(_range(span, "g") for span in (row.requests, row.unpacks, row.failed_commits, row.retries)),
        )
    return table


def bars_of(found: Sequence[Row]) -> list[Bar]:
    return [
        Bar(f"{row.at_once} at once", LABELS[Way(row.way)], row.ratio.median, f"{row.ratio.median:.2f}")
        for row in sorted(found, key=lambda row: row.at_once)
        if row.at_once > 1
    ]


def goal_lines(result: Goal) -> list[str]:
    once = "met" if result.once else "NOT MET"
    if result.once and not result.contended:
        once = "not put to the test: without suppression no blob was asked for twice either"
    lines = [f"Goal, under suppression: one GET per blob and one unpack per chain id: {once}"]
    if result.ratio is not None:
        fast = "met" if result.fast else "NOT MET"
        lines.append(
            f"Goal, under suppression: {GOAL_AT_ONCE} at once <= {GOAL_RATIO} x one pull:"
            f" {fast} ({result.ratio:.2f}; reported, never part of the exit status)"
        )
    return lines


def exit_status(result: Goal) -> int:
    if not result.once:
        return 1
    return 0 if result.contended else 2


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small image and few rounds: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples and rows there")
    parser.add_argument("--rounds", type=at_least(1), metavar="N", help=f"default {ROUNDS}, or {QUICK_ROUNDS} if quick")
    parser.add_argument("--bytes", type=at_least(0), metavar="N", help="size of the image")
    parser.add_argument(
        "--at-once", type=at_least(1), nargs="+", default=list(AT_ONCE), metavar="N", help="1 is always among them"
    )
    parser.add_argument(
        "--rate", type=at_least(0), default=BYTES_PER_SECOND, metavar="N", help="bytes per second, 0: no limit"
    )
    parser.add_argument("--latency", type=at_least(0), default=0, metavar="MS", help="milliseconds for each request")
    parser.add_argument("--in-process", action="store_true", help="use the stand-in; its times mean little")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.bytes is None:
        options.bytes = QUICK_BYTES if options.quick else DEFAULT_BYTES
    options.at_once = sorted({1, *options.at_once})
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    # A line is never cut for a file or a pipe.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        samples, facts = run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (RegistryFailedError, FailedError, OSError, RuntimeError) as error:
        cause = f": {error.__cause__!r}" if error.__cause__ else ""
        print(f"{error}{cause}", file=sys.stderr)
        if isinstance(error, RegistryFailedError) and not options.in_process:
            print("--in-process runs on a stand-in that needs no installation.", file=sys.stderr)
        return 3
    found = list(rows(samples))
    result = goal(samples)
    console.print(table_of(found))
    console.print()
    console.print("Wall time as a multiple of one pull in the same way", markup=False)
    for line in (*text_bars(bars_of(found)), "", *conditions(facts), *goal_lines(result)):
        console.print(line, markup=False, soft_wrap=True)
    if options.json:
        document = {
            "conditions": facts,
            "rows": [asdict(row) for row in found],
            "goal": {**asdict(result), "fast": result.fast},
            "samples": [asdict(sample) for sample in samples],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return exit_status(result)


def _range(span: Span, form: str) -> str:
    return f"{span.least:{form}}..{span.most:{form}}"


def _mb(size: float) -> str:
    return f"{size / 1_000_000:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
