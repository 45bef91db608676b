"""Loads into DuckDB and PostgreSQL of everything, ten executions, and nothing, next to the driver and dlt's merge."""

import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.bench_world import World
from benchmarks.measure import Sample, bench_server, configure, middle, python, ratio, run, table
from benchmarks.year_data import make_dataset
from tests.warehouses import postgresql

COMMAND = Path(sys.executable).with_name("metrics-etl")
CALLS = 30
EVALS = 3
CHANGED = 10
EXPORTER = "metrics-etl load"
PLAIN = "the driver alone"
DLT = "dlt, merge"
FIRST = "first load"
DELTA = f"{CHANGED} executions changed"
NOTHING = "nothing changed"
LARGE = "first load, ten times as much"


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions, rounds = (50, 1) if is_quick else (1_000, 3)
    with postgresql() as url:
        samples: dict[tuple[str, str, str], list[Sample]] = {}
        before, after, changed = _datasets(folder, executions)
        large = folder / "large"
        make_dataset(large, World(executions=executions * 10, calls=CALLS, evals=EVALS))
        for number in range(rounds):
            for engine in ("DuckDB", "PostgreSQL"):
                place = (
                    f"{url.rpartition('/')[0]}/round_{number}"
                    if engine == "PostgreSQL"
                    else f"duckdb://{folder}/{number}"
                )
                _measure(samples, folder, engine, place, (before, after, large), changed)
    return {"loads into a warehouse": _table(samples, executions)}


def _datasets(folder: Path, executions: int) -> tuple[Path, Path, list[str]]:
    """A dataset, the same after some executions ran again, and the ids of these."""
    before = _export(folder, "dataset", executions)
    after = Path(shutil.copytree(before, folder / "changed" / "dataset"))
    _export(folder / "changed", "dataset", executions, changed=CHANGED, generation=1)
    was, now = (
        {row["execution_id"]: row["exported_at"] for row in pq.read_table(each / "executions").to_pylist()}
        for each in (before, after)
    )
    return before, after, [each for each in now if now[each] != was[each]]


def _export(folder: Path, name: str, executions: int, **changes: int) -> Path:
    with bench_server(executions=executions, calls=CALLS, evals=EVALS, **changes) as url:
        run([COMMAND, "run", "--json", "--config", configure(folder, url, folder / name, concurrency=50)])
    return folder / name


def _measure(
    samples: dict[tuple[str, str, str], list[Sample]],
    folder: Path,
    engine: str,
    url: str,
    datasets: tuple[Path, Path, Path],
    changed: list[str],
) -> None:
    before, after, large = datasets

    def note(what: str, how: str, command: list[str | Path]) -> None:
        samples.setdefault((engine, what, how), []).append(run(command))

    ours = [_settings(folder, each, _new(url, "ours")) for each in (before, after)]
    for what, settings in ((FIRST, ours[0]), (NOTHING, ours[0]), (DELTA, ours[1])):
        note(what, EXPORTER, [COMMAND, "load", "--quiet", "--config", settings])
    note(LARGE, EXPORTER, [COMMAND, "load", "--quiet", "--config", _settings(folder, large, _new(url, "large"))])
    plain, merged = _new(url, "plain"), _new(url, "merged")
    state = folder / f"dlt-{merged.rpartition('/')[2]}"
    for what, dataset, ids in ((FIRST, before, []), (DELTA, after, changed)):
        note(what, PLAIN, [sys.executable, "-m", "benchmarks.baselines.plain_load", dataset, plain, *ids])
        note(what, DLT, python("baselines", "baselines.dlt_merge", dataset, merged, state, *ids))


def _new(url: str, name: str) -> str:
    """An empty database."""
    if not url.startswith("postgresql"):
        return f"{url}-{name}.duckdb"
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415

    server, _, database = url.rpartition("/")
    with dbapi.connect(f"{server}/postgres", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {database}_{name}")
        cursor.execute(f"CREATE DATABASE {database}_{name}")
    return f"{url}_{name}"


def _settings(folder: Path, dataset: Path, url: str) -> Path:
    path = folder / f"{dataset.parent.name}-{dataset.name}.toml"
    path.write_text(f'[destination]\npath = "{dataset}"\n[warehouse]\nurl = "{url}"\n')
    return path


def _table(samples: dict[tuple[str, str, str], list[Sample]], executions: int) -> str:
    rows = []
    for (engine, what, how), mine in samples.items():
        baseline = samples.get((engine, what, PLAIN))
        times = f"{ratio(mine, baseline, 'wall_seconds'):.2f}" if baseline else ""
        wall, cpu = (f"{middle(mine, figure):.2f} s" for figure in ("wall_seconds", "cpu_seconds"))
        rows.append([engine, what, how, wall, times, cpu, f"{middle(mine, 'peak_mb'):.0f} MB"])
    calls = executions * CALLS
    header = [f"{calls:,} calls, {calls * EVALS:,} evals", "", "", "wall", "of the driver alone", "CPU", "peak"]
    return table(header, rows)
