"""First exports under a rate limit: refused requests, and time against the best schedule that the limit allows."""

import json
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import bench_server, configure, exporter, run, stats, table

CONCURRENCY = 32
CALLS_OF_AN_EXECUTION = 100
SCENARIOS: dict[str, dict[str, Any]] = {
    "300 a minute": {"limit": 300, "executions": 10},
    "300 a minute, no headers": {"limit": 300, "executions": 10, "no_headers": True},
    "1,000 a minute": {"limit": 1_000, "executions": 25},
    "1,000 a minute, no headers": {"limit": 1_000, "executions": 25, "no_headers": True},
    "1,000 a minute, server's clock 17 s ahead": {"limit": 1_000, "executions": 25, "skew_seconds": 17.3},
    "1,000 a minute, server's clock 30 s ahead, no headers": {
        "limit": 1_000, "executions": 25, "skew_seconds": 30, "no_headers": True,
    },
    "1,000 a minute, 20 ms": {"limit": 1_000, "executions": 25, "latency_ms": 20},
    "1,000 a minute, 500 ms": {"limit": 1_000, "executions": 25, "latency_ms": 500},
    "1,000 a minute, 500 ms, no headers": {"limit": 1_000, "executions": 25, "latency_ms": 500, "no_headers": True},
    "1,000 a minute, 300 of them taken by others": {"limit": 1_000, "executions": 25, "others": 300},
    "1,000 a minute, 450 calls": {"limit": 1_000, "executions": 5, "calls": 90},
    "1,000 a minute, 950 of the first taken by others": {"limit": 1_000, "executions": 25, "others_first": 950},
    "1,000 a minute, 950 of the first taken by others, no headers": {
        "limit": 1_000, "executions": 25, "others_first": 950, "no_headers": True,
    },
    "20 a second, no headers": {"limit": 20, "window_seconds": 1, "executions": 4, "calls": 109, "no_headers": True},
}  # fmt: skip
QUICK = {
    "300 in 5 s": {"limit": 300, "window_seconds": 5, "executions": 10},
    "1,000 in 5 s, 20 ms": {"limit": 1_000, "window_seconds": 5, "executions": 35, "latency_ms": 20},
}


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name. All scenarios at once: they wait nearly all the time."""
    scenarios = QUICK if is_quick else SCENARIOS
    rows: dict[str, list[str]] = {}
    failures: list[BaseException] = []

    def measure_one(number: int, name: str) -> None:
        try:
            rows[name] = [name, *_row(folder / str(number), scenarios[name])]
        except BaseException as error:  # noqa: BLE001 raised below
            failures.append(error)

    threads = [threading.Thread(target=measure_one, args=(number, name)) for number, name in enumerate(scenarios)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    header = ["", "requests", "refused", "wall s", "best s", "wall / best", "predicted s", "predicted / wall"]
    return {"quota": table(header, [rows[name] for name in scenarios])}


def _row(folder: Path, scenario: Mapping[str, Any]) -> list[str]:
    folder.mkdir()
    options = {"calls": CALLS_OF_AN_EXECUTION, **scenario}
    with bench_server(**options) as url:
        configuration = configure(folder, url, folder / "data", concurrency=CONCURRENCY)
        _wait_for_room(scenario)
        plan = json.loads(run(exporter("plain", "plan", "--config", configuration, "--json")).output)
        before = stats(url)
        run(exporter("plain", "run", "--config", configuration, "--quiet"))
        counted = stats(url)
    requests = counted["requests"] - before["requests"]
    refused = counted["refused"] - before["refused"]
    wall_seconds = counted["last_at"] - counted["first_at"]
    best_seconds = _best_seconds(scenario, requests - refused, before, counted["first_at"])
    predicted = None if plan["minutes"] is None else plan["minutes"] * 60
    return [
        f"{requests:,}",
        f"{refused}",
        f"{wall_seconds:.1f}",
        f"{best_seconds:.1f}",
        f"{wall_seconds / best_seconds:.3f}" if best_seconds else "",
        "unknown" if predicted is None else f"{predicted:.0f}",
        f"{predicted / wall_seconds:.2f}" if predicted else "",
    ]


def _wait_for_room(scenario: Mapping[str, Any]) -> None:
    """A plan says how long an export takes that begins at once: let both begin in one window."""
    window_seconds = scenario.get("window_seconds", 60)
    left_seconds = window_seconds - (time.time() + scenario.get("skew_seconds", 0)) % window_seconds
    if left_seconds < window_seconds / 4:
        time.sleep(left_seconds)


def _best_seconds(scenario: Mapping[str, Any], requests: int, before: Mapping[str, Any], first_at: float) -> float:
    """How long it takes whoever knows the limit, the window and all that is to be fetched."""
    window_seconds = scenario.get("window_seconds", 60)
    skew_seconds = scenario.get("skew_seconds", 0)
    allowance = scenario["limit"] - scenario.get("others", 0)
    window = math.floor((first_at + skew_seconds) / window_seconds)
    allowed = dict(before["windows"])
    left = allowance - allowed.get(window, 0)
    if "others_first" in scenario and window in allowed:
        left = max(0, left + scenario.get("others", 0) - scenario["others_first"])
    if requests <= left:
        return float(requests / CONCURRENCY * scenario.get("latency_ms", 0) / 1000)
    windows, rest = divmod(requests - left, allowance)
    last = window + windows + (rest > 0)
    tail_seconds = (rest or allowance) / CONCURRENCY * scenario.get("latency_ms", 0) / 1000
    return float(last * window_seconds - skew_seconds - first_at + tail_seconds)
