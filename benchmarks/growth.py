"""What a night costs as the history grows, and what a commit costs as its part grows."""

import json
import shutil
from pathlib import Path

from benchmarks.measure import Sample, bench_server, configure, exporter, middle, run, table

CALLS_OF_AN_EXECUTION = 2
CHANGED = 10


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    histories = (100, 1_000) if is_quick else (1_000, 10_000, 100_000)
    parts = (1, 100) if is_quick else (1, 100, 10_000)
    rounds = 1 if is_quick else 2
    by_history = [[f"{executions:,}", *_nights(folder, executions, rounds, per_day=100)] for executions in histories]
    by_part = [
        [f"{executions:,}", *_nights(folder, executions, rounds, per_day=executions, changed=1)] for executions in parts
    ]
    header = ["plan, CPU s", "MB", "nothing new, CPU s", "MB", "requests", "changed, CPU s", "MB"]
    return {
        "growth of the history": table(["executions stored", *header], by_history),
        "growth of a part": table(["executions in it", *header], by_part),
    }


def _nights(folder: Path, executions: int, rounds: int, *, per_day: int, changed: int = CHANGED) -> list[str]:
    """A plan, a night in which nothing changed, and one in which ``changed`` executions ran again."""
    options = {"executions": executions, "calls": CALLS_OF_AN_EXECUTION, "per_day": per_day}
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    plans: list[Sample] = []
    unchanged: list[Sample] = []
    with bench_server(**options) as url:
        configuration = configure(folder, url, data, concurrency=50)
        run(exporter("plain", "run", "--config", configuration, "--quiet"))
        for _ in range(rounds):
            plans.append(run(exporter("plain", "plan", "--config", configuration, "--json")))
            unchanged.append(run(exporter("plain", "run", "--config", configuration, "--json")))
    nights: list[Sample] = []
    for number in range(rounds):
        with bench_server(**options, changed=changed, generation=number + 1) as url:
            configuration = configure(folder, url, data, concurrency=50)
            nights.append(run(exporter("plain", "run", "--config", configuration, "--quiet")))
    requests = json.loads(unchanged[0].output)["requests"]
    return [*_cells(plans), *_cells(unchanged), f"{requests:,}", *_cells(nights)]


def _cells(samples: list[Sample]) -> list[str]:
    return [f"{middle(samples, 'cpu_seconds'):.2f}", f"{middle(samples, 'peak_mb'):.0f}"]
