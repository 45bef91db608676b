"""A first export and a quiet night with the dataset in a bucket, beside the same in a folder."""

import json
import os
import shutil
import sys
from pathlib import Path

from benchmarks.measure import Sample, bench_server, configure, middle, ratio, run, table
from tests.stores import KEYS, seaweed

COMMAND = Path(sys.executable).with_name("metrics-etl")
NIGHTS = ("first export", "quiet night")


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions, rounds = (10, 1) if is_quick else (100, 3)
    os.environ.update(KEYS)
    samples: dict[tuple[str, str], list[Sample]] = {}
    # Both in memory, as far as the machine has some: what is measured is neither disk.
    store_folder = folder / "store"
    store_folder.mkdir()
    with bench_server(executions=executions, calls=100) as url, seaweed(store_folder) as store:
        for number in range(rounds):
            here = folder / f"here-{number}"
            for place, config in (
                ("folder", configure(folder, url, here, concurrency=50)),
                ("bucket", configure(folder, url, folder / f"there-{number}", concurrency=50)),
            ):
                if place == "bucket":
                    options = "".join(f'{name} = "{value}"\n' for name, value in store.options.items())
                    written = config.read_text().replace(f"{folder / f'there-{number}'}", store.url())
                    config.write_text(f"{written}[destination.options]\n{options}")
                for night in NIGHTS:
                    command: list[str | Path] = [COMMAND, "run", "--json", "--config", config]
                    samples.setdefault((night, place), []).append(run(command))
            shutil.rmtree(here)
    rows = [
        [
            night,
            place,
            f"{middle(mine, 'wall_seconds'):.2f} s",
            f"{ratio(mine, samples[night, 'folder'], 'wall_seconds'):.2f}",
            f"{middle(mine, 'cpu_seconds'):.2f} s",
            f"{ratio(mine, samples[night, 'folder'], 'cpu_seconds'):.2f}",
            f"{middle(mine, 'peak_mb'):.0f} MB",
            _requests(mine[-1]),
        ]
        for (night, place), mine in samples.items()
    ]
    header = [
        f"{executions * 100:,} calls",
        "dataset in",
        "wall",
        "ratio",
        "CPU",
        "ratio",
        "peak",
        "requests to the store",
    ]
    return {"bucket": table(header, rows)}


def _requests(sample: Sample) -> str:
    return (
        ", ".join(f"{count} {kind}" for kind, count in sorted(json.loads(sample.output)["store_requests"].items()))
        or "none"
    )
