"""A dataset of a year, made once: nights over it, what it takes on disk, and questions to it beside one compact file a table.

It is kept in the folder that ``BENCHMARKS_YEAR`` names, by default among the benchmarks' environments; remove it to make it anew.
"""

import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_world import World, a_year
from benchmarks.engines import ENGINES, FLEETS, MEAN_COST, MONTH, QUERIES, YEAR
from benchmarks.measure import ENVIRONMENTS, ROOT, Sample, bench_server, configure, exporter, middle, python, run, table

ONE_IN = 100
READERS = ROOT / ".venv-readers" / "bin" / "python"
FIGURES = (("cpu_seconds", 2), ("wall_seconds", 2), ("peak_mb", 0))


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    run_tests, days, rounds = (3, 60, 1) if is_quick else (50, 365, 3)
    kept = Path(os.environ.get("BENCHMARKS_YEAR") or ENVIRONMENTS / "year") / f"{run_tests}x{days}"
    run(python("plain", "year_data", kept, str(run_tests), str(days)))
    return {
        "a year on disk": _sizes(kept),
        "nights of a year": _nights(folder, kept / "dataset", a_year(run_tests, days), rounds),
        "questions to a year": _questions(kept, rounds),
        "a year in fleets": _fleets(kept / "dataset", rounds),
        "wide calls of a year": _wide(kept / "dataset", rounds),
    }


def _sizes(kept: Path) -> str:
    rows = []
    for name in ("executions", "calls", "evals"):
        files = list((kept / "dataset" / name).rglob("*.parquet"))
        size_mb = sum(file.stat().st_size for file in files) / 1e6
        compact_mb = (kept / "compact" / f"{name}.parquet").stat().st_size / 1e6
        rows.append([f"`{name}`", f"{len(files):,}", f"{size_mb:.0f}", f"{compact_mb:.0f}"])
    return table(["", "files", "MB", "MB in one file"], rows)


class _Nights:
    """Runs over the dataset against a server that says what it holds, but for changes; each sample has a name."""

    def __init__(self, folder: Path, dataset: Path, world: World) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self.dataset = dataset
        self.empty = folder / "empty"
        self._folder = folder
        self._world = world

    def run(self, name: str, target: Path, *, verb: str = "run", **changes: Any) -> Sample:
        """One command, while the API lists these changes."""
        world = asdict(replace(self._world, **changes))
        with bench_server(**{each: value for each, value in world.items() if value}) as url:
            configuration = configure(self._folder, url, target, run_tests=self._world.names, concurrency=50)
            return self.note(name, verb, "--config", configuration, "--json")

    def note(self, name: str, *command: str | Path) -> Sample:
        """Run the exporter, and keep what it cost."""
        sample = run(exporter("plain", *command))
        self.samples.setdefault(name, []).append(sample)
        return sample

    def table(self) -> str:
        """The median of each that has a name."""
        rows = [
            [name, *(f"{middle(each, figure):.{digits}f}" for figure, digits in FIGURES)]
            for name, each in self.samples.items()
            if name
        ]
        return table(["", "CPU s", "wall s", "peak MB"], rows)


def _nights(folder: Path, dataset: Path, world: World, rounds: int) -> str:
    nights = _Nights(folder, dataset, world)
    nights.run("", dataset)  # an earlier benchmark may have been stopped
    (dataset / "_state" / "index.parquet").unlink()
    nights.run("nothing changed, without the index", dataset)
    for _ in range(rounds):
        quiet = nights.run("nothing changed", dataset)
        if rows := json.loads(quiet.output)["rows"]:
            raise SystemExit(f"{rows} in a night in which nothing changed")
        nights.run("the lists alone: `metrics-etl plan` for an empty dataset", nights.empty, verb="plan")
        nights.note("`metrics-etl status`", "status", "--config", folder / "dataset.toml", "--json")
    nights.note("`metrics-etl verify`", "verify", "--config", folder / "dataset.toml")
    changed: dict[str, dict[str, Any]] = {
        "across the year": {"changed_every": ONE_IN},
        "of the same days": {"changed": world.executions // ONE_IN},
    }
    for what, changes in changed.items():
        for generation in range(1, rounds + 1):
            nights.run(f"1% changed, {what}", dataset, **changes, generation=generation)
            nights.run(
                f"these calls into an empty dataset, {what}",
                nights.empty,
                **changes,
                generation=generation,
                only_changed=True,
            )
            shutil.rmtree(nights.empty)
        nights.run("", dataset)
    return nights.table()


def _questions(kept: Path, rounds: int) -> str:
    rows = []
    for query in QUERIES:
        for engine in ENGINES:
            (seconds, cpu, peak, count), beside = (
                _answer(engine, query, kept / layout, rounds) for layout in ("dataset", "compact")
            )
            if count != beside[3]:
                raise SystemExit(f"{engine}, {query}: {count} rows, and {beside[3]} of one file")
            times = [f"{cpu:.2f}", f"{beside[1]:.2f}", f"{cpu / beside[1]:.1f}", f"{seconds:.2f}", f"{beside[0]:.2f}"]
            rows.append([f"{query}, {engine}", *times, f"{seconds / beside[0]:.1f}", f"{peak:.0f}", f"{beside[2]:.0f}"])
    header = ["", "CPU s", "one file", "ratio", "wall s", "one file", "ratio", "peak MB", "one file"]
    return table(header, rows)


def _fleets(dataset: Path, rounds: int) -> str:
    answers = {engine: _answer(engine, MEAN_COST, dataset, rounds, READERS) for engine in FLEETS}
    if len({count for *_, count in answers.values()}) > 1:
        raise SystemExit(f"{answers}")
    alone = answers["pandas"][0]
    rows = [[f"{MEAN_COST}, {name}", f"{each[0]:.1f}", f"{each[0] / alone:.1f}"] for name, each in answers.items()]
    return table(["", "wall s", "times pandas"], rows)


def _wide(dataset: Path, rounds: int) -> str:
    ways = {'`etl.read_calls(evals="wide")`': "etl", "pandas alone: `read_parquet`, `pivot`, `merge`": "wide in pandas"}
    rows = []
    for scope, month in (("a month", MONTH), ("the year", YEAR)):
        for name, engine in ways.items():
            seconds, cpu, peak, count = _answer(engine, month, dataset, rounds)
            rows.append([f"{name}, {scope}", f"{count:,}", f"{cpu:.2f}", f"{seconds:.2f}", f"{peak:.0f}"])
    return table(["", "rows", "CPU s", "wall s", "peak MB"], rows)


def _answer(
    engine: str, query: str, path: Path, rounds: int, interpreter: Path = Path(sys.executable)
) -> tuple[float, float, float, int]:
    """Wall seconds and processor seconds of the answer alone, the peak of its process, and its rows."""
    samples = [run([interpreter, "-m", "benchmarks.engines", engine, query, path]) for _ in range(rounds)]
    told = [json.loads(sample.output) for sample in samples]
    seconds, cpu = (median(each[name] for each in told) for name in ("seconds", "cpu_seconds"))
    return seconds, cpu, middle(samples, "peak_mb"), told[0]["rows"]
