"""Read a dataset as docs/format.md says, and print what is wrong: ``python tests/independent_reader.py data``.

It has the words of that page, pyarrow and the standard library, and no more: so has whoever finds a dataset in ten
years.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Row = dict[str, Any]
PATH = re.compile(r"(executions|calls|evals|errors|runs)/((run_test=[^/]+/)?month=\d{4}-\d{2}/[^/]+)\.parquet")
KEYS = {"executions": "execution_id", "calls": "call_execution_id", "evals": "call_execution_id eval_config_id"}
LEFT_OUT = {"raw", "metrics_from", "deleted_at", "export_run_id", "exported_at"}


def hash_of(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def as_json(value: Any) -> str:
    if isinstance(value, datetime):
        return f'"{value.isoformat().replace("+00:00", "Z")}"'
    if isinstance(value, float):
        digits, _, exponent = repr(value).partition("e")
        if exponent == "-05":
            return f"{Decimal(repr(value)):f}"
        return f"{digits}e{int(exponent)}" if exponent else digits
    return json.dumps(value, ensure_ascii=False)


def voucher(row: Row) -> str:
    """What stands for a call or an eval in the digest of its execution."""
    named = {re.sub("^latency_customer_", "latency_customer_latency_metrics_", name): row[name] for name in row}
    kept = sorted(name for name, value in named.items() if value is not None and name not in LEFT_OUT)
    fields = ",".join(f'"{name}":{as_json(named[name])}' for name in kept)
    return hash_of(f"{{{fields}}}") + ("-" if row["deleted_at"] else "")


def hashes_in_receipts(runs: dict[str, Row]) -> dict[str, str | None]:
    """By path, the SHA-256 of the file; None for one that was set aside. No run without a receipt came since."""
    told: dict[str, str | None] = {}
    run = max(runs, key=lambda each: runs[each]["started_at"], default=None)
    while run in runs and (receipt := json.loads(runs[run].get("receipt") or "null")):
        told = {file["path"]: file["sha256"] for file in receipt["written"]} | dict.fromkeys(receipt["removed"]) | told
        run = None if receipt["not_listed"] else receipt["follows"]
    return told


def damaged(part: str, executions: list[Row], calls: list[Row], evals: list[Row]) -> Iterator[str]:
    vouchers = defaultdict[str, list[str]](list)
    for row in [*calls, *evals]:
        vouchers[row["execution_id"]].append(voucher(row))
    living = Counter(row["execution_id"] for row in calls if not row["deleted_at"])
    for row in executions:
        id_ = row["execution_id"]
        if (hash_of("\n".join(sorted(vouchers[id_]))), living[id_]) != (row["calls_digest"], row["exported_calls"]):
            yield f"{part}: {id_}: its calls or evals are not those that it vouches for"


def findings(root: Path) -> Iterator[str]:
    """What is wrong with the dataset, a line each."""
    if json.loads((root / "_state/dataset.json").read_bytes())["layout"] not in (2, 3):
        yield "another layout"
    found: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    hashes: dict[str, str | None] = {}
    for path in sorted(root.rglob("*.parquet")):
        name = path.relative_to(root).as_posix()
        if parsed := PATH.fullmatch(name):
            hashes[name] = sha256(path.read_bytes()).hexdigest()
            found[parsed[1]][parsed[2]] = pq.ParquetFile(path, page_checksum_verification=True).read().to_pylist()
    told = hashes_in_receipts({row["export_run_id"]: row for (row,) in found["runs"].values()})
    yield from (f"{name}: not what a run wrote there" for name in told if hashes.get(name) != told[name])
    for table, key in KEYS.items():
        living = (row for rows in found[table].values() for row in rows if not row["deleted_at"])
        counts = Counter(tuple(row[name] for name in key.split()) for row in living)
        yield from (f"{table}: {count} rows of {each}" for each, count in counts.items() if count > 1)
    for part, executions in found["executions"].items():
        yield from damaged(part, executions, *(found[table].get(part, []) for table in ("calls", "evals")))


if __name__ == "__main__":
    print(*findings(Path(sys.argv[1])), "read to the end", sep="\n")
