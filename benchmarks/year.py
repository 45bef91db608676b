"""A dataset of a year: nights over it, what it takes on disk, and questions to it beside one compact file a table.

Made anew each time, in over two minutes; kept only if ``BENCHMARKS_YEAR`` names a folder for it.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_world import World, a_year, execution_id
from benchmarks.engines import ENGINES, MONTH, QUERIES, YEAR
from benchmarks.measure import CALL_BY_CALL, Sample, bench_server, configure, exporter, middle, python, run, table
from etl.dataset.comparisons import Comparison, read_compared, write_compared
from etl.files.names import COMPARED
from etl.files.open import open_files

ONE_IN = 100
SWEEP_DAYS = 30
SWEEPING = {"settle_by": "detail", "metrics": "exact", "sweep_days": SWEEP_DAYS}
QUIET = "nothing changed"
FIGURES = (("cpu_seconds", 2), ("wall_seconds", 2), ("peak_mb", 0))


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    run_tests, days = (3, 60) if is_quick else (50, 365)
    rounds, fewer = (1, 1) if is_quick else (5, 3)
    kept = Path(os.environ.get("BENCHMARKS_YEAR") or folder) / f"{run_tests}x{days}"
    run(python("plain", "year_data", kept, str(run_tests), str(days)))
    return {
        "a year on disk": _sizes(kept),
        "nights of a year": _nights(folder, kept / "dataset", a_year(run_tests, days), rounds),
        "questions to a year": _questions(kept, fewer),
        "wide calls of a year": _wide(kept / "dataset", fewer),
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
        with self._server(**changes) as url:
            return self._run(name, target, url, verb, CALL_BY_CALL)

    def sweep(self) -> None:
        """A night that sweeps its share for the first time, a month later again, and a bare loop over the same lists.

        Raises:
            SystemExit: it found a difference, or it did not compare just its share.
        """
        files = open_files(str(self.dataset))
        fingerprints: dict[str, str] = {}
        with self._server(details=True) as url:
            for name in ("swept for the first time", "swept again"):
                share, compared = self._compared_before(fingerprints)
                write_compared(files, compared)
                told = json.loads(self._run(f"{QUIET}, a thirtieth {name}", self.dataset, url, "run", SWEEPING).output)
                _check_sweep(told, len(share))
                found = read_compared(files)
                if {key for key, each in found.items() if each.at > compared[key].at} != share:
                    raise SystemExit("another share was swept than that which was due")
                if any(compared[key].fingerprint not in ("", found[key].fingerprint) for key in share):
                    raise SystemExit("the lists of an unchanged world have other fingerprints")
                fingerprints = {key: each.fingerprint or _hash(key) for key, each in found.items()}
            self.note(
                "the same lists, read by a bare loop",
                python("plain", "baselines.lists", url, json.dumps(sorted(share))),
            )
        (self.dataset / COMPARED).unlink()

    def _compared_before(self, fingerprints: Mapping[str, str]) -> tuple[set[str], dict[str, Comparison]]:
        """The executions that are due now, and when each one was compared: as many in each of the nights before.

        All have their turn in a night less than ``SWEEP_DAYS``, because what is due before the next night is due now.
        """
        now, nights = datetime.now(UTC), SWEEP_DAYS - 1
        ids = [execution_id(number) for test in range(self._world.run_tests) for number in self._world.numbers(test)]
        night_of = {key: place * nights // len(ids) for place, key in enumerate(ids)}
        compared = {
            key: Comparison(now - timedelta(days=nights - night), fingerprints.get(key, ""))
            for key, night in night_of.items()
        }
        return {key for key, night in night_of.items() if night == 0}, compared

    @contextmanager
    def _server(self, **changes: Any) -> Iterator[str]:
        world = asdict(replace(self._world, **changes))
        with bench_server(**{each: value for each, value in world.items() if value}) as url:
            yield url

    def _run(self, name: str, target: Path, url: str, verb: str, export: Mapping[str, object]) -> Sample:
        names = self._world.names
        configuration = configure(self._folder, url, target, run_tests=names, export=export, concurrency=50)
        return self.note(name, exporter("plain", verb, "--config", configuration, "--json"))

    def note(self, name: str, command: Sequence[str | Path]) -> Sample:
        """Run the command, and keep what it cost."""
        sample = run(command)
        self.samples.setdefault(name, []).append(sample)
        return sample

    def table(self) -> str:
        """The median of each that has a name, and how many quiet nights that is."""
        quiet = middle(self.samples[QUIET], "cpu_seconds")
        rows = [
            [
                name,
                *(f"{middle(each, figure):.{digits}f}" for figure, digits in FIGURES),
                f"{middle(each, 'cpu_seconds') / quiet:.2f}",
            ]
            for name, each in self.samples.items()
            if name
        ]
        return table(["", "CPU s", "wall s", "peak MB", f"CPU / {QUIET}"], rows)


def _check_sweep(told: Mapping[str, Any], swept: int) -> None:
    """Raise a SystemExit if a night that swept so many executions did more than read its lists.

    ``told`` is the summary of the run.
    """
    lists = len(told["run_tests"])
    expected: dict[str, Any] = {"exit_code": 0, "findings": [], "notices": [], "rows": {}, "files": 0}
    requests = {"list": lists, "first_fetch": 0, "settle": 0, "dead_letters": 0, "sweep": 2 * swept}
    expected |= {"requests": lists + 2 * swept, "requests_by_purpose": requests, "call_requests": 0}
    if (found := {name: told[name] for name in expected}) != expected:
        raise SystemExit(f"a sweep over what has not changed: {found}, not {expected}")


def _hash(key: str) -> str:
    """As long, and as hard to compress, as a fingerprint."""
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _nights(folder: Path, dataset: Path, world: World, rounds: int) -> str:
    nights = _Nights(folder, dataset, world)
    configured = ("--config", folder / "dataset.toml")
    nights.run("", dataset)  # an earlier benchmark may have been stopped
    (dataset / "_state" / "index.parquet").unlink()
    nights.run("nothing changed, without the index", dataset)
    for _ in range(rounds):
        quiet = nights.run(QUIET, dataset)
        if rows := json.loads(quiet.output)["rows"]:
            raise SystemExit(f"{rows} in a night in which nothing changed")
        nights.run("the lists alone: `metrics-etl plan` for an empty dataset", nights.empty, verb="plan")
        nights.note("`metrics-etl status`", exporter("plain", "status", *configured, "--json"))
        nights.sweep()
    nights.note("`metrics-etl verify`", exporter("plain", "verify", *configured))
    changed = shutil.copytree(dataset, folder / "changed")  # what is kept has to stay as it is
    nights.run("", changed)
    for generation in range(1, rounds + 1):
        changes: dict[str, Any] = {"changed_every": ONE_IN, "generation": generation}
        nights.run("1% changed, in every file", changed, **changes)
        nights.run("these calls into an empty dataset", nights.empty, **changes, only_changed=True)
        shutil.rmtree(nights.empty)
    return nights.table()


def _questions(kept: Path, rounds: int) -> str:
    rows = []
    for query in QUERIES:
        for engine in ENGINES:
            ours, beside = _answers([(engine, query, kept / layout) for layout in ("dataset", "compact")], rounds)
            if ours.rows != beside.rows:
                raise SystemExit(f"{engine}, {query}: {ours.rows} rows, and {beside.rows} of one file")
            cells = [
                f"{ours.cpu_seconds:.2f}",
                f"{beside.cpu_seconds:.2f}",
                f"{ours.cpu_seconds / beside.cpu_seconds:.1f}",
            ]
            cells += [f"{ours.seconds:.2f}", f"{beside.seconds:.2f}", f"{ours.seconds / beside.seconds:.1f}"]
            rows.append([f"{query}, {engine}", *cells, f"{ours.peak_mb:.0f}", f"{beside.peak_mb:.0f}"])
    header = ["", "CPU s", "one file", "ratio", "wall s", "one file", "ratio", "peak MB", "one file"]
    return table(header, rows)


def _wide(dataset: Path, rounds: int) -> str:
    ways = {'`etl.read_calls(evals="wide")`': "etl", "pandas alone: `read_parquet`, `pivot`, `merge`": "wide in pandas"}
    rows = []
    for scope, month, often in (("a month", MONTH, rounds), ("the year", YEAR, 1)):
        answers = _answers([(engine, month, dataset) for engine in ways.values()], often)
        for name, each in zip(ways, answers, strict=True):
            cells = [f"{each.rows:,}", f"{each.cpu_seconds:.2f}", f"{each.seconds:.2f}", f"{each.peak_mb:.0f}"]
            rows.append([f"{name}, {scope}", *cells])
    return table(["", "rows", "CPU s", "wall s", "peak MB"], rows)


@dataclass(frozen=True)
class _Answer:
    """Medians of what the answer alone took, of the peak of its process, and how many rows it has."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    rows: int


def _answers(questions: Sequence[tuple[str, str, Path]], rounds: int) -> list[_Answer]:
    """Each question is an engine, a query and the dataset; they are asked in turns."""
    command = (sys.executable, "-m", "benchmarks.engines")
    samples = [[run([*command, *question]) for question in questions] for _ in range(rounds)]
    return [_answer(own) for own in zip(*samples, strict=True)]


def _answer(samples: Sequence[Sample]) -> _Answer:
    told = [json.loads(sample.output) for sample in samples]
    seconds, cpu_seconds = (median(each[name] for each in told) for name in ("seconds", "cpu_seconds"))
    return _Answer(seconds, cpu_seconds, middle(samples, "peak_mb"), told[0]["rows"])
