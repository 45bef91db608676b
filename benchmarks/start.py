"""What a run costs when there is nothing to do (the help, a night in which nothing changed), and each stage of a call alone."""

import json
from pathlib import Path

from benchmarks.measure import bench_server, configure, exporter, middle, python, run, table

FIGURES = (("cpu_seconds", 2), ("wall_seconds", 2), ("peak_mb", 0))


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions, rounds = (1_000, 1) if is_quick else (10_000, 7)
    helps = [run(exporter("plain", "--help")) for _ in range(rounds)]
    with bench_server(executions=executions, calls=10, per_day=100) as url:
        configuration = configure(folder, url, folder / "data", concurrency=50)
        run(exporter("plain", "run", "--config", configuration, "--quiet"))
        nights = [run(exporter("plain", "run", "--config", configuration, "--quiet")) for _ in range(rounds)]
    rows = [
        [name, *(f"{middle(samples, figure):.{digits}f}" for figure, digits in FIGURES)]
        for name, samples in (
            ("`metrics-etl --help`", helps),
            (f"unchanged night over {executions:,} executions with {executions * 10:,} calls", nights),
        )
    ]
    with bench_server(executions=50, calls=100) as url:
        stages = json.loads(run(python("plain", "stages", url)).output)
    return {
        "start-up": table(["", "CPU s", "wall s", "peak MB"], rows),
        "stages": table(["", "CPU, microseconds a call"], [[name, f"{cost:.0f}"] for name, cost in stages.items()]),
    }
