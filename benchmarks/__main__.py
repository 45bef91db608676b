"""All measurements: ``python -m benchmarks [--quick] [NAME …]``. Prints tables; the full form also writes docs/performance.md."""

import argparse
import os
import platform
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.measure import ROOT, publish

MEASUREMENTS = (
    "throughput",
    "start",
    "growth",
    "large_answers",
    "first_export",
    "bucket",
    "warehouse",
    "report",
    "quota",
    "year",
    "dask",
    "lists",
    "settling",
)
"""In this order: the last one runs in this process, and each process that is started counts what this one takes as its own peak."""


def main() -> None:
    """Measure what is asked for, one thing after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; without any, all")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, scaled windows; writes nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(MEASUREMENTS):
        parser.error(f"no measurement {', '.join(sorted(unknown))}")
    print(f"{os.cpu_count()} processors, {platform.platform()}, Python {platform.python_version()}", file=sys.stderr)
    for name in MEASUREMENTS:
        if arguments.names and name not in arguments.names:
            continue
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            tables = import_module(f"benchmarks.{name}").measure(Path(folder), is_quick=arguments.quick)
        for title, table in tables.items():
            print(f"\n{title}\n\n{table}")
        if not arguments.quick:
            publish(ROOT / "docs" / "performance.md", tables)


if __name__ == "__main__":
    main()
