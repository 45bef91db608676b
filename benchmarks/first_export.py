"""What memory the first export of one large month takes: of many executions, and of much text."""

from pathlib import Path

from benchmarks.measure import bench_server, configure, exporter, run, table


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    share = 100 if is_quick else 1
    months = {
        "20,000 executions of 10 calls": {"executions": 20_000 // share, "calls": 10},
        "1,000 executions of 20 calls with 20 KB of text": {"executions": 1_000 // share, "calls": 20, "text_kb": 20},
    }
    rows = []
    for name, world in months.items():
        data = folder / "-".join(map(str, world.values()))
        with bench_server(per_day=world["executions"], **world) as url:
            sample = run(exporter("plain", "run", "--config", configure(folder, url, data, concurrency=50), "--quiet"))
        files = list(data.rglob("*=*/*.parquet"))
        size_mb = sum(path.stat().st_size for path in files) / 1e6
        rows.append([name, f"{sample.cpu_seconds:.0f}", f"{sample.peak_mb:.0f}", f"{len(files)}", f"{size_mb:.0f}"])
    return {"first exports": table(["one month", "CPU s", "peak MB", "files", "MB"], rows)}
