"""The hash of a row of calls or evals, from the row as it is stored. Pure.

Files store no row hashes. The digest in an execution's row covers those of its rows; to check it, they are computed again.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

from etl.model import schema
from etl.model.digest import row_hashes
from etl.model.values import python_values

ROW_HASH = "row_hash"
_NOT_HASHED = {"raw", "metrics_from", "deleted_at", "export_run_id", "exported_at"}
"""A row's hash covers what the source says, not which export wrote it."""
_HASHED_AS = ("latency_customer_", "latency_customer_latency_metrics_")
"""Nine columns of ``calls`` are hashed under a longer name than their own, as in every dataset so far: under another one, each such
call would look altered."""
_BATCH_ROWS = 5_000  # the values of all rows at once would take much memory


def hash_rows(table: schema.Table, rows: pa.Table) -> list[str]:
    """The hash of each row, taken from the column ``row_hash`` if they have one."""
    if ROW_HASH in rows.column_names:
        hashes: list[str] = rows[ROW_HASH].to_pylist()
        return hashes
    names = [name for name in table.names if name not in _NOT_HASHED]
    found: list[str] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows.slice(start, _BATCH_ROWS)
        found += row_hashes({name.replace(*_HASHED_AS): _values(batch[name]) for name in names})
    return found


def says_the_same(table: schema.Table, row: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two rows, given by their values, have the same hash."""
    pairs = zip(table.names, row, other, strict=True)
    return all(value == its for name, value, its in pairs if name not in _NOT_HASHED)


def _values(column: pa.ChunkedArray) -> Iterable[Any]:
    return repeat(None, len(column)) if column.null_count == len(column) else python_values(column)
