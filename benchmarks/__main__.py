"""All measurements: ``python -m benchmarks [--quick] [NAME …]``. Prints tables; the full form also writes docs/performance.md."""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import growth, large_answers, quota, settling, start, throughput
from benchmarks.measure import ROOT, publish

MEASUREMENTS: dict[str, Callable[..., dict[str, str]]] = {
    "throughput": throughput.measure,
    "start": start.measure,
    "growth": growth.measure,
    "large_answers": large_answers.measure,
    "quota": quota.measure,
    "settling": settling.measure,
}


def main() -> None:
    """Measure what is asked for, one thing after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; without any, all")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, scaled windows; writes nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - MEASUREMENTS.keys():
        parser.error(f"no measurement {', '.join(sorted(unknown))}")
    print(f"{os.cpu_count()} processors, {platform.platform()}, Python {platform.python_version()}", file=sys.stderr)
    for name, measure in MEASUREMENTS.items():
        if arguments.names and name not in arguments.names:
            continue
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            tables = measure(Path(folder), is_quick=arguments.quick)
        for title, table in tables.items():
            print(f"\n{title}\n\n{table}")
        if not arguments.quick:
            publish(ROOT / "docs" / "performance.md", tables)


if __name__ == "__main__":
    main()
