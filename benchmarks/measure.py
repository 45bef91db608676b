"""Run whole processes, one after the other, and measure each: processor time, wall time, peak memory."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv-bench"
CALL_BY_CALL: Mapping[str, object] = {"settle_by": "refetch", "sweep_days": 0}
"""``[export]`` of all benchmarks that do not say otherwise: each call is fetched by itself, and nothing is swept."""
KEYS = {"FI_API_KEY": "benchmark-api-key", "FI_SECRET_KEY": "benchmark-secret-key"}


@dataclass(frozen=True)
class Sample:
    """One finished process."""

    cpu_seconds: float
    wall_seconds: float
    peak_mb: float
    output: str


def run(command: Sequence[str | Path]) -> Sample:
    """Run the command to its end.

    Raises:
        SystemExit: it failed; with its last words.
    """
    with tempfile.NamedTemporaryFile() as figures:
        launched = [sys.executable, "-m", "benchmarks.launch", figures.name, *map(str, command)]
        environment = {**os.environ, **KEYS, "PYTHONDONTWRITEBYTECODE": ""}  # modules are compiled once, not each time
        finished = subprocess.run(launched, check=False, capture_output=True, text=True, env=environment, cwd=ROOT)
        if finished.returncode:
            raise SystemExit(f"{command}: exit {finished.returncode}\n{finished.stderr[-2000:]}")
        return Sample(**json.load(figures), output=finished.stdout)


def exporter(environment: str, *arguments: str | Path) -> list[str | Path]:
    """The exporter's command in one of the environments."""
    return [ENVIRONMENTS / environment / "bin" / "metrics-etl", *arguments]


def python(environment: str, module: str, *arguments: str | Path) -> list[str | Path]:
    """A module of this package in one of the environments."""
    return [ENVIRONMENTS / environment / "bin" / "python", "-m", f"benchmarks.{module}", *arguments]


def configure(
    folder: Path,
    url: str,
    dataset: Path,
    *,
    run_tests: Sequence[str] = ("Load",),
    export: Mapping[str, object] = CALL_BY_CALL,
    **api: object,
) -> Path:
    """A configuration file for the load server at ``url``; ``export`` and ``api`` are sections of it."""
    path = folder / f"{dataset.name}.toml"
    path.write_text(
        f'run_tests = {json.dumps(run_tests)}\n[api]\nbase_url = "{url}"\n{_options(api)}'
        f'[destination]\npath = "{dataset}"\n[export]\n{_options(export)}[log]\nformat = "json"\n'
    )
    return path


def _options(section: Mapping[str, object]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in section.items())


@contextmanager
def bench_server(**options: object) -> Iterator[str]:
    """A load server in its own process; gives its address."""
    with _serving([sys.executable, "-m", "benchmarks.bench_server"], options) as url:
        yield url


@contextmanager
def c_server(folder: Path, **options: object) -> Iterator[str]:
    """The load server written in C, compiled into the folder; gives its address.

    Raises:
        SystemExit: there is no C compiler.
    """
    if not (compiler := shutil.which("cc")):
        raise SystemExit("this benchmark needs a C compiler, called cc: apt install gcc")
    program = folder / "c_server"
    subprocess.run([compiler, "-O2", "-o", program, ROOT / "benchmarks" / "c_server.c"], check=True)
    with _serving([str(program)], options) as url:
        yield url


@contextmanager
def _serving(command: Sequence[str], options: Mapping[str, object]) -> Iterator[str]:
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
    flags = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
    with subprocess.Popen([*command, *arguments, *flags], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            if process.stdout is None or not (url := process.stdout.readline().strip()):
                raise SystemExit("the load server did not start")
            yield url
        finally:
            process.terminate()


def stats(url: str) -> dict[str, Any]:
    """What the load server counted."""
    with urlopen(f"{url}/stats") as answer:  # noqa: S310 our own server
        counted: dict[str, Any] = json.load(answer)
        return counted


def ratio(samples: Sequence[Sample], baseline: Sequence[Sample], figure: str) -> float:
    """The median of the ratios of samples taken in the same round."""
    return float(median(getattr(a, figure) / getattr(b, figure) for a, b in zip(samples, baseline, strict=True)))


def middle(samples: Sequence[Sample], figure: str) -> float:
    """The median of one figure."""
    return float(median(getattr(sample, figure) for sample in samples))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
