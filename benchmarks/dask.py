"""A first export by the workers of a Dask cluster, against one process."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.measure import ENVIRONMENTS, KEYS, ROOT, Sample, bench_server, configure, exporter, run, table

ROUNDS = 3
LATENCY_MS = 50
CONCURRENCY = 4


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions, calls = (4, 50) if is_quick else (20, 100)
    rounds = 1 if is_quick else ROUNDS
    kinds = {
        f"one process, {CONCURRENCY} requests at a time": (1, CONCURRENCY),
        f"two workers, {CONCURRENCY} each": (2, CONCURRENCY),
        f"one process, {2 * CONCURRENCY} at a time": (1, 2 * CONCURRENCY),
    }
    samples: dict[str, list[Sample]] = {name: [] for name in kinds}
    with cluster(folder, 2) as address:
        for round_ in range(rounds):
            with bench_server(executions=executions, calls=calls, latency_ms=LATENCY_MS) as url:
                for name, (workers, concurrency) in kinds.items():
                    data = folder / f"{round_}-{name}"
                    samples[name].append(_export(folder, url, data, concurrency, address if workers > 1 else None))
    seconds = {name: median(each.wall_seconds for each in found) for name, found in samples.items()}
    one, two, wide = seconds.values()
    rows = [
        [name, f"{seconds[name]:.1f}", f"{executions * calls / seconds[name]:,.0f}", f"{one / seconds[name]:.2f}"]
        for name in kinds
    ]
    rows[1][-1] += f" ({two / wide:.2f} times the time of as many requests in one process)"
    return {"dask": table(["", "wall s", "calls / s", "times the first"], rows)}


def _export(folder: Path, url: str, data: Path, concurrency: int, address: str | None) -> Sample:
    configuration = configure(folder, url, data, concurrency=concurrency)
    if address:
        configuration.write_text(f'{configuration.read_text()}[engine]\nkind = "dask"\naddress = "{address}"\n')
    return run(exporter("dask", "run", "--config", configuration, "--quiet"))


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """A scheduler and so many workers of one thread; gives the scheduler's address."""
    log = folder / "scheduler.log"
    processes = [_start(log, "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")]
    try:
        address = _wait_for(log, r"Scheduler at:\s+(tcp://\S+)")
        for number in range(workers):
            options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder))
            processes.append(_start(folder / f"worker{number}.log", "worker", address, *options))
            _wait_for(folder / f"worker{number}.log", "(Registered to)")
        yield address
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def _start(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    python = ENVIRONMENTS / "dask" / "bin" / "python"
    with log.open("wb") as file:
        return subprocess.Popen([python, "-m", "dask", *arguments], stdout=file, stderr=file, cwd=ROOT, env=KEYS)


def _wait_for(log: Path, pattern: str) -> str:
    for _ in range(600):
        if found := re.search(pattern, log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"{log.read_text()[-2000:]}")
