"""All measurements: ``python -m benchmarks [--quick] [NAME …]`` prints their tables.

A run of all of them writes benchmarks/results.md.
"""

import argparse
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.document import check_places, load, machine, publish
from benchmarks.measure import ROOT

MEASUREMENTS = (
    "throughput",
    "start",
    "growth",
    "large_answers",
    "first_export",
    "bucket",
    "warehouse",
    "delta",
    "report",
    "quota",
    "year",
    "dask",
    "lists",
    "settling",
    "sweep",
)
DOCUMENT = ROOT / "benchmarks" / "results.md"


def main() -> None:
    """Measure what is named, one after the other, by default everything.

    Only a run of everything writes the document, because its figures have to be of one commit.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; writes nothing")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, scaled windows; writes nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(MEASUREMENTS):
        parser.error(f"no measurement {', '.join(sorted(unknown))}")
    where = machine()
    load_before = load()
    tables: dict[str, str] = {}
    for name in arguments.names or MEASUREMENTS:
        tables |= _measure(name, is_quick=arguments.quick)
    tables["machine"] = f"{where}; load average {load_before} before and {load()} after."
    print(f"\n{tables['machine']}")
    if not arguments.names:
        check_places(DOCUMENT, tables)
        if not arguments.quick:
            publish(DOCUMENT, tables)


def _measure(name: str, *, is_quick: bool) -> dict[str, str]:
    """Tables by name, printed."""
    begun = os.times()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        tables: dict[str, str] = import_module(f"benchmarks.{name}").measure(Path(folder), is_quick=is_quick)
    for title, table in tables.items():
        print(f"\n{title}\n\n{table}", flush=True)
    *busy, elapsed = (now - before for now, before in zip(os.times(), begun, strict=True))
    print(f"{name}: {elapsed:.0f} s, {sum(busy):.0f} s of processors", file=sys.stderr)
    return tables


if __name__ == "__main__":
    main()
