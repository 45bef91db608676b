"""Requests of loads into Delta tables in a bucket: the first, one without news, and those of quiet nights."""

import os
import sys
from collections import Counter
from pathlib import Path

from benchmarks.measure import bench_server, configure, run, table
from tests.stores import KEYS, Edited, proxied, seaweed

COMMAND = Path(sys.executable).with_name("metrics-etl")


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions, nights = (10, 2) if is_quick else (100, 30)
    store_folder = folder / "store"
    store_folder.mkdir()
    received: list[int] = []

    def counted(status: int, content: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        received.append(len(content))
        return status, content, headers

    with bench_server(executions=executions, calls=10) as url, seaweed(store_folder) as store, proxied(store) as proxy:
        proxy.judge = lambda _request: Edited(counted)
        os.environ |= KEYS | {
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        config = configure(folder, url, folder / "dataset", concurrency=50)
        config.write_text(f'{config.read_text()}[warehouse]\nurl = "delta+{store.url()}"\n')
        steps = [("first load", "run"), ("nothing new", "load"), *[("quiet night", "run")] * nights]
        rows: list[tuple[int, list[str]]] = []
        for what, command in [*steps, (f"nothing new, after {nights} nights", "load")]:
            proxy.requests.clear()
            received.clear()
            run([COMMAND, command, "--json", "--config", config])
            kinds = Counter("list" if "list-type" in each.path else each.method.lower() for each in proxy.requests)
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            rows.append((len(proxy.requests), [what, told, f"{sum(received) / 1e3:,.0f} KB"]))
    header = [f"Delta tables in a bucket, {executions * 10:,} calls", "requests to the store", "received"]
    quiet = sorted(rows[2:-1])[nights // 2]
    return {"Delta in a bucket": table(header, [row for _, row in (*rows[:2], quiet, rows[-1])])}
