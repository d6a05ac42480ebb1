"""How fast check-trace is, beside porcupine on the same history, and what recording costs.

    python benchmarks/trace/run.py [--events N] [--porcupine CHECKOUT]

One run of threads is recorded from outside and from inside at once. Each figure is the best of some rounds, in
processor time; on a busy machine their ratios count. porcupine is a checker of linearizability in Go; CHECKOUT is a
folder with its module, and `go` must be installed.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kmutex import KeyedMutex
from kmutex.trace import Recorder, StepLog
from kmutex.trace.reader import check

THREADS, KEYS, ROUNDS = 8, 100, 5


def record(events: int) -> tuple[str, str]:
    """A history of about so many events, as logged from outside and from inside."""
    outer, inner = io.StringIO(), io.StringIO()
    log = StepLog(inner)
    km = Recorder(KeyedMutex(record=log), outer)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(events // 4 // THREADS):
            with km.hold(f"key {rng.randrange(KEYS)}"):
                pass

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    km.close()
    log.close()
    return outer.getvalue(), inner.getvalue()


def seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def passes(log: bytes) -> None:
    report = check(io.BytesIO(log))
    assert report.verdict.value == "pass", report


def only_json(log: bytes) -> None:
    for line in log.splitlines():
        json.loads(line)


def locks(mutex: KeyedMutex) -> Callable[[], None]:
    def run() -> None:
        for _ in range(5000):
            mutex.lock("k")
            mutex.unlock("k")

    return run


def porcupine(checkout: Path, log: str, folder: Path) -> Callable[[], float]:
    """Build it; what is given measures one run, in processor seconds."""
    here = Path(__file__).with_name("porcupine.go")
    (folder / "main.go").write_text(here.read_text(encoding="utf-8"), encoding="utf-8")
    module = "github.com/anishathalye/porcupine"
    (folder / "go.mod").write_text(
        f"module bench\n\nrequire {module} v0.0.0\n\nreplace {module} => {checkout.resolve()}\n", encoding="utf-8"
    )
    subprocess.run(["go", "build", "-o", "checker", "."], cwd=folder, check=True)
    (folder / "log").write_text(log, encoding="utf-8")

    def run() -> float:
        done = subprocess.run([folder / "checker", folder / "log"], capture_output=True, text=True, check=True)
        verdict, _, _, took = done.stdout.split()
        assert verdict == "Ok", done.stdout
        return float(took)

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--porcupine", type=Path, metavar="CHECKOUT")
    args = parser.parse_args()
    outer, inner = record(args.events)
    outside, inside = outer.encode(), inner.encode()
    off, on = locks(KeyedMutex()), locks(KeyedMutex(record=StepLog(io.StringIO())))
    figures: dict[str, tuple[int, Callable[[], float]]] = {
        "check-trace, outside": (outer.count("\n"), lambda: seconds(lambda: passes(outside))),
        "check-trace, inside": (inner.count("\n"), lambda: seconds(lambda: passes(inside))),
        "json.loads of each line, inside": (inner.count("\n"), lambda: seconds(lambda: only_json(inside))),
    }
    with tempfile.TemporaryDirectory() as folder:
        if args.porcupine is not None:
            figures["porcupine, outside"] = (outer.count("\n"), porcupine(args.porcupine, outer, Path(folder)))
        rounds = [{name: measure() for name, (_, measure) in figures.items()} for _ in range(ROUNDS)]
        best = {name: min(one[name] for one in rounds) for name in figures}
    for name, (events, _) in figures.items():
        print(f"{name}: {events / best[name]:,.0f} events/s")
    cost = [(seconds(on), seconds(off)) for _ in range(ROUNDS)]
    ratio = min(one for one, _ in cost) / min(other for _, other in cost)
    print(f"lock and unlock, recorded: {ratio:.1f} times as long as without")


if __name__ == "__main__":
    main()
