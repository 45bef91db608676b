"""What memory the first export of one large month takes: of few and of many executions, and of much text."""

from pathlib import Path

from benchmarks.measure import Sample, bench_server, configure, exporter, middle, run, table


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name. The first two are compared with each other, so they are measured some times, in turns."""
    share, rounds = (100, 1) if is_quick else (1, 3)
    compared = {
        "250 executions of 40 calls": {"executions": -(-250 // share), "calls": 40},
        "2,500 executions of 40 calls": {"executions": 2_500 // share, "calls": 40},
    }
    months = compared | {
        "20,000 executions of 10 calls": {"executions": 20_000 // share, "calls": 10},
        "1,000 executions of 20 calls with 20 KB of text": {"executions": 1_000 // share, "calls": 20, "text_kb": 20},
    }
    samples: dict[str, list[Sample]] = {name: [] for name in months}
    for number in range(rounds):
        for name in months if number == 0 else compared:
            samples[name].append(_export(folder / name / str(number), months[name]))
    rows = []
    for name, found in samples.items():
        files = list((folder / name / "0").rglob("*=*/*.parquet"))
        size_mb = sum(path.stat().st_size for path in files) / 1e6
        cpu, peak = (f"{middle(found, figure):.0f}" for figure in ("cpu_seconds", "peak_mb"))
        rows.append([name, cpu, peak, f"{len(files)}", f"{size_mb:.0f}"])
    return {"first exports": table(["one month", "CPU s", "peak MB", "files", "MB"], rows)}


def _export(folder: Path, world: dict[str, int]) -> Sample:
    folder.mkdir(parents=True)
    with bench_server(per_day=world["executions"], **world) as url:
        configuration = configure(folder, url, folder / "data", concurrency=50)
        return run(exporter("plain", "run", "--config", configuration, "--quiet"))
