"""First exports without a limit, beside a bare client loop, a general tool and two scripts: requests, time, memory."""

import json
import shutil
from pathlib import Path

from benchmarks.measure import Sample, bench_server, configure, exporter, middle, python, ratio, run, stats, table

CONCURRENCY = 50
CALLS_OF_AN_EXECUTION = 100
BARE = "bare aiohttp loop"
OURS = {"metrics-etl": "plain", "metrics-etl, uvloop": "fast"}
DLT = "dlt rest_api"
SEQUENTIAL = "requests + json_normalize"
BASELINES = {
    DLT: "baselines.dlt_rest_api",
    SEQUENTIAL: "baselines.sequential",
    "aiohttp gather + json_normalize": "baselines.gathered",
}


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    few, many = (1_000, 2_000) if is_quick else (10_000, 100_000)
    rounds = 1 if is_quick else 3
    tables = {}
    for calls, latency_ms in ((few, 0), (many, 0), (few, 20), (many, 20)):
        with bench_server(
            executions=calls // CALLS_OF_AN_EXECUTION, calls=CALLS_OF_AN_EXECUTION, latency_ms=latency_ms
        ) as url:
            # One call after the other would take an hour; dlt's many calls are enough to be seen once, without latency.
            left_out = {SEQUENTIAL} if calls == many or latency_ms else set()
            left_out |= {DLT} if calls == many and latency_ms else set()
            samples = _rounds(folder, url, calls, rounds, left_out)
            server_cpu = stats(url)["cpu_seconds"]
        tables[f"throughput of {calls:,} calls at {latency_ms} ms"] = _table(samples, calls, latency_ms)
        print(f"{calls} calls at {latency_ms} ms: the server used {server_cpu:.1f} s for all of them")
    return tables


def _rounds(folder: Path, url: str, calls: int, rounds: int, left_out: set[str]) -> dict[str, list[Sample]]:
    names = [BARE, *OURS, *(name for name in BASELINES if name not in left_out)]
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            if name == DLT and number and calls >= 100_000:
                continue
            sample = _run(folder, url, name)
            if _calls(name, sample) != calls:
                raise SystemExit(f"{name}: {_calls(name, sample)} of {calls} calls")
            samples[name].append(sample)
    return samples


def _run(folder: Path, url: str, name: str) -> Sample:
    target = folder / "out"
    shutil.rmtree(target, ignore_errors=True)
    if name == BARE:
        return run(python("plain", "baselines.bare", url, "Load"))
    if name in BASELINES:
        return run(python("baselines", BASELINES[name], url, "Load", target))
    configuration = configure(folder, url, target, concurrency=CONCURRENCY)
    return run(exporter(OURS[name], "run", "--config", configuration, "--json"))


def _calls(name: str, sample: Sample) -> int:
    if name in OURS:
        summary = json.loads(sample.output)
        if summary["requests"] != summary["necessary_requests"]:
            raise SystemExit(f"{summary['requests']} requests, {summary['necessary_requests']} were necessary")
        return int(summary["rows"]["calls"])
    return int(sample.output.split()[-1])


def _table(samples: dict[str, list[Sample]], calls: int, latency_ms: float) -> str:
    bare, ours = samples[BARE], samples["metrics-etl"]
    rows = []
    for name, own in samples.items():
        rows.append(
            [
                name,
                f"{middle(own, 'cpu_seconds'):.2f}",
                f"{ratio(own, bare[: len(own)], 'cpu_seconds'):.2f}",
                f"{middle(own, 'wall_seconds'):.2f}",
                f"{ratio(own, ours[: len(own)], 'wall_seconds'):.2f}",
                f"{middle(own, 'peak_mb'):.0f}",
            ]
        )
    if latency_ms:
        executions = calls / CALLS_OF_AN_EXECUTION
        best = (calls + executions) * latency_ms / 1000 / CONCURRENCY
        rows.append(
            [
                "requests x latency / concurrency",
                "",
                "",
                f"{best:.2f}",
                f"{best / middle(ours, 'wall_seconds'):.2f}",
                "",
            ]
        )
    return table(
        ["", "CPU s", "CPU / bare loop", "wall s", "wall / metrics-etl", "peak MB"],
        rows,
    )
