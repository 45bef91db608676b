"""What holds of a dataset's files at any moment, whoever died while writing them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from etl.model import schema

Rows = dict[tuple[str, ...], dict[str, Any]]


def assert_sound(data: Path) -> dict[str, Rows]:
    """Every file of a table is whole and has the declared schema, no key stands twice; returns the rows by table and key."""
    return {table.name: _sound_rows(data, table) for table in schema.TABLES.values()}


def _sound_rows(data: Path, table: schema.Table) -> Rows:
    found: Rows = {}
    for path in sorted(each for each in (data / table.name).rglob("*") if not each.is_dir()):
        assert path.suffix == ".parquet", path
        file = pq.ParquetFile(path, page_checksum_verification=True)
        assert file.schema_arrow.equals(table.arrow_schema, check_metadata=True), path
        for row in file.read().to_pylist():
            key = tuple(row[name] for name in table.key)
            assert key not in found, f"{table.name}: {key} stands twice"
            found[key] = row
    return found


def assert_kept(before: dict[str, Rows], now: dict[str, Rows], *, changed: Collection[str]) -> None:
    """Nothing of what an earlier run had is missing, and what did not change at the source is as it was.

    ``changed`` are the executions that did. Their calls keep their ids, but may have other evals.
    """
    for table in ("executions", "calls", "evals", "runs"):
        for key, row in before[table].items():
            if row.get("execution_id") not in changed:
                assert now[table].get(key) == row, f"{table}: {key} is not what it was"
            elif table != "evals":
                assert key in now[table], f"{table}: {key} is lost"


def staged(data: Path) -> list[Path]:
    """What lies in staging."""
    return list((data / "_state" / "staging").iterdir())
