"""What a command costs when there is nothing to do, beside the interpreter alone, and each stage of a call alone."""

import json
from pathlib import Path

from benchmarks.measure import ENVIRONMENTS, Sample, bench_server, configure, exporter, middle, python, run, table

EXECUTIONS = 20
FIGURES = (("cpu_seconds", 2), ("wall_seconds", 2), ("peak_mb", 0))


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    rounds = 1 if is_quick else 5
    with bench_server(executions=EXECUTIONS, calls=10) as url:
        config = ("--config", configure(folder, url, folder / "data", concurrency=50))
        for _ in range(2):  # the first night indexes what had just been written
            run(exporter("plain", "run", *config, "--quiet"))
        commands: dict[str, list[str | Path]] = {
            "the interpreter alone": [ENVIRONMENTS / "plain" / "bin" / "python", "-c", "pass"],
            "`metrics-etl --version`": exporter("plain", "--version"),
            "`metrics-etl --help`": exporter("plain", "--help"),
            f"`metrics-etl status`, {EXECUTIONS} executions": exporter("plain", "status", *config),
            f"a night in which nothing changed, {EXECUTIONS} executions": exporter("plain", "run", *config, "--quiet"),
        }
        samples: dict[str, list[Sample]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                samples[name].append(run(command))
    rows = [
        [name, *(f"{middle(found, figure):.{digits}f}" for figure, digits in FIGURES)]
        for name, found in samples.items()
    ]
    with bench_server(executions=50, calls=100) as url:
        stages = json.loads(run(python("plain", "stages", url)).output)
    return {
        "start-up": table(["", "CPU s", "wall s", "peak MB"], rows),
        "stages": table(["", "CPU, microseconds a call"], [[name, f"{cost:.0f}"] for name, cost in stages.items()]),
    }
