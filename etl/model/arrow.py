"""Small steps on Arrow tables that keep their schema. Pure."""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def is_of(rows: pa.Table, executions: Collection[str]) -> pa.ChunkedArray:
    """Which rows are of the executions."""
    return pc.is_in(rows["execution_id"], value_set=pa.array(list(executions), pa.string()))


def where(rows: pa.Table, is_wanted: pa.ChunkedArray | list[bool]) -> pa.Table:
    """The rows that are wanted; all of them are no copy, since the text of a part is large."""
    mask = pa.array(is_wanted, pa.bool_()) if isinstance(is_wanted, list) else is_wanted
    return rows if pc.all(mask, min_count=0).as_py() else rows.filter(mask)


def with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The rows with other values in one column."""
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type))


def with_values(rows: pa.Table, columns: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """The rows with other values in some columns, each by execution_id; rows of other executions stay as they are."""
    ids = rows["execution_id"].to_pylist()
    for name, values in columns.items():
        own = rows[name].to_pylist()
        rows = with_column(rows, name, [values.get(each, old) for each, old in zip(ids, own, strict=True)])
    return rows
