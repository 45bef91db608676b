"""Select rows of Arrow tables, and replace values in their columns, without a change of schema.

Pure: each function returns another table, and none changes the one that it got.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.model.values import arrow_array, python_values


def is_of(rows: pa.Table, texts: Collection[str], column: str = "execution_id") -> pa.ChunkedArray:
    """For each row, whether its column has one of the texts; by default, whether it is of one of these executions."""
    return pc.is_in(rows[column], value_set=arrow_array([*texts], pa.string()))


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


def row_versions(rows: pa.Table) -> set[tuple[str, datetime | None]]:
    """Pairs of execution_id and exported_at: an execution's own row with an equal pair is the same."""
    return {*zip(rows["execution_id"].to_pylist(), python_values(rows["exported_at"]), strict=True)}


def where(rows: pa.Table, is_wanted: pa.ChunkedArray | list[bool]) -> pa.Table:
    """The rows for which ``is_wanted`` holds. If all are wanted, none is copied: the text of a part is large."""
    mask = arrow_array(is_wanted, pa.bool_()) if isinstance(is_wanted, list) else is_wanted
    return rows if pc.all(mask, min_count=0).as_py() else rows.filter(mask)


def with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The rows with ``values`` in the column ``name``, one for each row, as the column's type."""
    index = rows.schema.get_field_index(name)
    field = rows.schema.field(index)
    return rows.set_column(index, field, arrow_array(values, field.type))


def with_values(rows: pa.Table, columns: Mapping[str, Mapping[Any, Any]], keys: Sequence[Any] = ()) -> pa.Table:
    """The rows with other values in some columns, which are given by column and then by the key of the row.

    ``keys`` holds a key for each row; by default, a row's key is its execution_id. Rows whose key is not named keep
    their values.
    """
    keys = keys or rows["execution_id"].to_pylist()
    for name, values in columns.items():
        old_values = python_values(rows[name])
        rows = with_column(rows, name, [values.get(key, old) for key, old in zip(keys, old_values, strict=True)])
    return rows
