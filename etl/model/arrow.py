"""Select rows of Arrow tables, and replace values in their columns, without a change of schema.

Pure: each function returns another table, and none changes the one that it got.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def is_of(rows: pa.Table, executions: Collection[str]) -> pa.ChunkedArray:
    """For each row, whether it belongs to one of the executions, which are given by id."""
    return pc.is_in(rows["execution_id"], value_set=pa.array(list(executions), pa.string()))


def runs_of(rows: pa.Table) -> Iterator[tuple[str, int, int]]:
    """Runs of neighboring rows of one execution: its id, the first position, and the position after the last.

    A part is sorted by execution, so that there are few runs; a loop over all rows would take far longer.
    """
    begun = 0
    for chunk in rows["execution_id"].chunks:
        runs = pc.run_end_encode(chunk)
        start = begun
        for execution_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield execution_id, start, begun + end
            start = begun + end
        begun = start


def where(rows: pa.Table, is_wanted: pa.ChunkedArray | list[bool]) -> pa.Table:
    """The rows for which ``is_wanted`` holds. If all are wanted, none is copied: the text of a part is large."""
    mask = pa.array(is_wanted, pa.bool_()) if isinstance(is_wanted, list) else is_wanted
    return rows if pc.all(mask, min_count=0).as_py() else rows.filter(mask)


def with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The rows with ``values`` in the column ``name``, one for each row, as the column's type."""
    index = rows.schema.get_field_index(name)
    field = rows.schema.field(index)
    return rows.set_column(index, field, pa.array(values, field.type))


def with_values(rows: pa.Table, columns: Mapping[str, Mapping[Any, Any]], keys: Sequence[Any] = ()) -> pa.Table:
    """The rows with other values in some columns, which are given by column and then by the key of the row.

    ``keys`` holds a key for each row; by default, a row's key is its execution_id. Rows whose key is not named keep
    their values.
    """
    keys = keys or rows["execution_id"].to_pylist()
    for name, values in columns.items():
        old_values = rows[name].to_pylist()
        rows = with_column(rows, name, [values.get(key, old) for key, old in zip(keys, old_values, strict=True)])
    return rows
