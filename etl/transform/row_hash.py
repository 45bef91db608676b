"""The hash of a row of calls or evals, from the row as it is stored. Pure.

Files store no row hashes. The digest in an execution's row covers the hashes of its calls and evals; to check it,
these are computed again.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

from etl.model import schema
from etl.model.digest import row_hashes
from etl.model.values import python_values

ROW_HASH = "row_hash"
"""A column of tables in memory that have their hashes with them."""
NOT_HASHED = {"raw", "metrics_from", "deleted_at", "export_run_id", "exported_at"}
"""Columns that are left out: a row's hash covers what the source says, not which export wrote the row, and how."""
_HASHED_AS = ("latency_customer_", "latency_customer_latency_metrics_")
"""A prefix of nine columns of ``calls``, and the longer one under which they are hashed.

Every dataset so far was hashed so: under another name, each such call would look altered.
"""
_BATCH_ROWS = 5_000
"""So many rows are hashed at once: the values of all would take much memory."""


def hash_rows(table: schema.Table, rows: pa.Table) -> list[str]:
    """The hash of each row: computed from its values, or taken from the column ``row_hash`` if the rows have one."""
    if ROW_HASH in rows.column_names:
        return list(rows[ROW_HASH].to_pylist())
    names = [name for name in table.names if name not in NOT_HASHED]
    computed: list[str] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows.slice(start, _BATCH_ROWS)
        computed += row_hashes({name.replace(*_HASHED_AS): _values(batch[name]) for name in names})
    return computed


def says_the_same(table: schema.Table, row: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two rows have the same hash. Both are lists of values, in the order of the table's columns."""
    columns = zip(table.names, row, other, strict=True)
    return all(value == other_value for name, value, other_value in columns if name not in NOT_HASHED)


def _values(column: pa.ChunkedArray) -> Iterable[Any]:
    """The values of the column; many columns are all null, which costs nothing to say."""
    return repeat(None, len(column)) if column.null_count == len(column) else python_values(column)
