"""How much memory an export takes while many answers are large at once.

They are large by spaces: what is decoded and kept is small.
"""

from pathlib import Path

from benchmarks.measure import bench_server, configure, exporter, middle, run, table

AT_ONCE = 16
FIGURES = (("cpu_seconds", 1), ("wall_seconds", 1), ("peak_mb", 0))


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    sizes, rounds = ((0, 6), 1) if is_quick else ((0, 6, 60), 3)
    rows = []
    for size in sizes:
        with bench_server(executions=1, calls=AT_ONCE, padding_mb=size) as url:
            samples = []
            for number in range(rounds):
                configuration = configure(folder, url, folder / f"data-{size}-{number}", concurrency=AT_ONCE)
                samples.append(run(exporter("plain", "run", "--config", configuration, "--quiet")))
        rows.append([f"{size} MB", *(f"{middle(samples, figure):.{digits}f}" for figure, digits in FIGURES)])
    return {"large answers": table(["each of 16 answers", "CPU s", "wall s", "peak MB"], rows)}
