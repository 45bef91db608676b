"""First exports without a limit, next to a bare client loop, a general tool and two scripts: time and memory.

On two servers: the product's own load server, and one in C whose answers look otherwise.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from benchmarks.measure import Sample, bench_server, c_server, configure, exporter, middle, python, ratio, run, table

CONCURRENCY = 50
CALLS_OF_AN_EXECUTION = 100
LATENCY_MS = 20
EXPORTER = "metrics-etl"
FAST = "metrics-etl, uvloop"
BARE = "bare aiohttp loop"
GATHERED = "aiohttp gather + json_normalize"
SEQUENTIAL = "requests + json_normalize"
DLT = "dlt rest_api"
EACH_SIZE = (BARE, GATHERED, EXPORTER)
ONLY_SMALL = (FAST, SEQUENTIAL, DLT)
SCRIPTS = {GATHERED: "gathered", SEQUENTIAL: "sequential", DLT: "dlt_rest_api"}
ROUNDS = 5

Server = Callable[..., AbstractContextManager[str]]


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    sizes, rounds = ((1_000, 2_000), 1) if is_quick else ((10_000, 50_000, 100_000), ROUNDS)
    with_latency = sizes[1]
    servers: dict[str, Server] = {"Python": bench_server, "C": partial(c_server, folder)}
    rows: list[list[str]] = []
    waits: list[list[str]] = []
    for server, start in servers.items():
        for calls in sizes:
            names = (*EACH_SIZE, *ONLY_SMALL) if calls == sizes[0] else EACH_SIZE
            rows += _rows([server, f"{calls:,}"], _rounds(folder, start, names, calls, rounds))
        samples = _rounds(folder, start, (EXPORTER,), with_latency, rounds, latency_ms=LATENCY_MS)
        waits.append(_wait(server, with_latency, samples[EXPORTER]))
    header = ["server", "calls", "", "CPU s", "CPU / bare loop", "CPU / metrics-etl", "wall s", "peak MB"]
    of_waits = ["server", "calls", "requests sent", "wall s", "least s", "wall / least"]
    return {"throughput": table(header, rows), f"throughput at {LATENCY_MS} ms": table(of_waits, waits)}


def _rounds(
    folder: Path, start: Server, names: tuple[str, ...], calls: int, rounds: int, **options: int
) -> dict[str, list[Sample]]:
    """One process after the other, so often; all against the same server."""
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with start(executions=calls // CALLS_OF_AN_EXECUTION, calls=CALLS_OF_AN_EXECUTION, **options) as url:
        for _ in range(rounds):
            for name in names:
                sample = _run(folder, url, name)
                if (found := _calls(name, sample)) != calls:
                    raise SystemExit(f"{name}: {found} of {calls} calls")
                samples[name].append(sample)
    return samples


def _run(folder: Path, url: str, name: str) -> Sample:
    target = folder / "out"
    shutil.rmtree(target, ignore_errors=True)
    if name == BARE:
        return run(python("plain", "baselines.bare", url, "Load"))
    if name in SCRIPTS:
        return run(python("baselines", f"baselines.{SCRIPTS[name]}", url, "Load", target))
    configuration = configure(folder, url, target, concurrency=CONCURRENCY)
    return run(exporter("fast" if name == FAST else "plain", "run", "--config", configuration, "--json"))


def _calls(name: str, sample: Sample) -> int:
    is_ours = name in (EXPORTER, FAST)
    return int(json.loads(sample.output)["rows"]["calls"] if is_ours else sample.output.split()[-1])


def _rows(start: list[str], samples: dict[str, list[Sample]]) -> list[list[str]]:
    return [
        [
            *start,
            name,
            f"{middle(own, 'cpu_seconds'):.2f}",
            f"{ratio(own, samples[BARE], 'cpu_seconds'):.2f}",
            f"{ratio(own, samples[EXPORTER], 'cpu_seconds'):.2f}",
            f"{middle(own, 'wall_seconds'):.2f}",
            f"{middle(own, 'peak_mb'):.0f}",
        ]
        for name, own in samples.items()
    ]


def _wait(server: str, calls: int, samples: list[Sample]) -> list[str]:
    """Beside the least that an export can take: a request for each call and each execution, so many at a time."""
    requests = json.loads(samples[0].output)["requests"]
    wall_seconds = middle(samples, "wall_seconds")
    least_seconds = (calls + calls // CALLS_OF_AN_EXECUTION) * LATENCY_MS / 1000 / CONCURRENCY
    times = f"{wall_seconds / least_seconds:.2f}"
    return [server, f"{calls:,}", f"{requests:,}", f"{wall_seconds:.1f}", f"{least_seconds:.1f}", times]
