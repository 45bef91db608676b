"""First exports of voice calls without a limit, by way, next to a bare client loop, a general tool and two scripts.

On two servers: the product's own load server, which has the lists that show calls whole, and one in C without them,
whose answers look otherwise.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from benchmarks.measure import (
    CALL_BY_CALL,
    Sample,
    bench_server,
    c_server,
    configure,
    exporter,
    middle,
    python,
    ratio,
    run,
    table,
)

CONCURRENCY = 50
CALLS_OF_AN_EXECUTION = 40
LATENCY_MS = 20
LISTS = "metrics-etl"
CALLS = 'metrics-etl, metrics = "calls"'
NO_DETAILS = 'metrics-etl, settle_by = "refetch"'
FAST = "metrics-etl, uvloop"
WAYS: Mapping[str, Mapping[str, object]] = {
    LISTS: {"sweep_days": 0},
    CALLS: {"metrics": "calls", "sweep_days": 0},
    NO_DETAILS: CALL_BY_CALL,
    FAST: {"sweep_days": 0},
}
BARE = "bare aiohttp loop"
GATHERED = "aiohttp gather + json_normalize"
SEQUENTIAL = "requests + json_normalize"
DLT = "dlt rest_api"
SCRIPTS = {GATHERED: "gathered", SEQUENTIAL: "sequential", DLT: "dlt_rest_api"}
ROUNDS = 3

Server = Callable[..., AbstractContextManager[str]]


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    sizes, rounds = ((1_000, 2_000), 1) if is_quick else ((10_000, 50_000, 100_000), ROUNDS)
    servers: dict[str, tuple[Server, tuple[str, ...], tuple[str, ...]]] = {
        "Python": (partial(bench_server, details=True), (LISTS, CALLS), (FAST, SEQUENTIAL, DLT)),
        "C": (partial(c_server, folder), (NO_DETAILS,), ()),
    }
    rows: list[list[str]] = []
    waits: list[list[str]] = []
    for server, (start, ways, only_small) in servers.items():
        for calls in sizes:
            names = (*ways, BARE, GATHERED, *(only_small if calls == sizes[0] else ()))
            rows += _rows([server, f"{calls:,}"], _rounds(folder, start, names, calls, rounds), calls)
        with_latency = _rounds(folder, start, ways, sizes[1], rounds, latency_ms=LATENCY_MS)
        waits += [_wait(server, way, sizes[1], with_latency[way]) for way in ways]
    of_times = ["minutes at 100", "at 1,000", "CPU ms a call", "/ script", "/ bare loop", "wall s", "peak MB"]
    of_waits = ["server", "calls", "", "requests", "wall s", "least s, call by call", "wall / least"]
    return {
        "throughput": table(["server", "calls", "", "requests", *of_times], rows),
        f"throughput at {LATENCY_MS} ms": table(of_waits, waits),
    }


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
    configuration = configure(folder, url, target, export=WAYS[name], concurrency=CONCURRENCY)
    return run(exporter("fast" if name == FAST else "plain", "run", "--config", configuration, "--json"))


def _calls(name: str, sample: Sample) -> int:
    return int(json.loads(sample.output)["rows"]["calls"] if name in WAYS else sample.output.split()[-1])


def _requests(name: str, sample: Sample, calls: int) -> int:
    """Ours are counted; all others send one for each call, for each execution and for the list of these."""
    return int(json.loads(sample.output)["requests"]) if name in WAYS else calls + calls // CALLS_OF_AN_EXECUTION + 1


def _rows(start: list[str], samples: dict[str, list[Sample]], calls: int) -> list[list[str]]:
    rows = []
    for name, own in samples.items():
        requests = _requests(name, own[0], calls)
        rows.append(
            [
                *start,
                name,
                f"{requests:,}",
                *(f"{requests / limit:,.1f}" for limit in (100, 1_000)),
                f"{middle(own, 'cpu_seconds') / calls * 1_000:.3f}",
                f"{ratio(own, samples[GATHERED], 'cpu_seconds'):.2f}",
                f"{ratio(own, samples[BARE], 'cpu_seconds'):.2f}",
                f"{middle(own, 'wall_seconds'):.2f}",
                f"{middle(own, 'peak_mb'):.0f}",
            ]
        )
    return rows


def _wait(server: str, way: str, calls: int, samples: list[Sample]) -> list[str]:
    """Beside the least that call by call can take: a request for each call and execution, so many at a time."""
    wall_seconds = middle(samples, "wall_seconds")
    least_seconds = (calls + calls // CALLS_OF_AN_EXECUTION) * LATENCY_MS / 1000 / CONCURRENCY
    requests, times = _requests(way, samples[0], calls), f"{wall_seconds / least_seconds:.2f}"
    return [server, f"{calls:,}", way, f"{requests:,}", f"{wall_seconds:.1f}", f"{least_seconds:.1f}", times]
