"""A report over as many calls of few and of many run tests, beside reading these calls into pandas alone."""

import sys
from pathlib import Path

from benchmarks.bench_world import World
from benchmarks.measure import Sample, middle, ratio, run, table
from benchmarks.year_data import make_dataset

COMMAND = Path(sys.executable).with_name("metrics-etl")
READ = "import sys, etl; etl.read_calls(sys.argv[1], evals='wide')"
CALLS = 25
DAYS = 60


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    calls, rounds = (10_000, 1) if is_quick else (100_000, 3)
    header = ["run tests", "calls", "report, CPU s", "s", "MB", "page, MB", "reading alone, CPU s", "ratio"]
    return {"a report": table(header, [_row(folder / str(each), each, calls, rounds) for each in (1, 3, 20, 200)])}


def _row(folder: Path, run_tests: int, calls: int, rounds: int) -> list[str]:
    executions = calls // run_tests // CALLS
    world = World(run_tests=run_tests, executions=executions, calls=CALLS, evals=3, per_day=-(-executions // DAYS))
    folder.mkdir()
    make_dataset(folder / "data", world)
    page = folder / "report.html"
    settings = folder / "settings.toml"
    settings.write_text(f'[destination]\npath = "{folder / "data"}"\n')
    reading: list[Sample] = []
    report: list[Sample] = []
    for _ in range(rounds):
        reading.append(run([sys.executable, "-c", READ, folder / "data"]))
        report.append(run([COMMAND, "report", "--config", settings, "--output", page]))
    return [
        f"{run_tests:,}",
        f"{calls:,}",
        f"{middle(report, 'cpu_seconds'):.2f}",
        f"{middle(report, 'wall_seconds'):.2f}",
        f"{middle(report, 'peak_mb'):.0f}",
        f"{page.stat().st_size / 1e6:.2f}",
        f"{middle(reading, 'cpu_seconds'):.2f}",
        f"{ratio(report, reading, 'cpu_seconds'):.1f}",
    ]
