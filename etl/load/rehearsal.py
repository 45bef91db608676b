"""The load that ``check`` has a warehouse rehearse: one made-up row in each table, so that whatever a load needs shows.

Pure. The row replaces nothing: nobody has such ids.
"""

from collections.abc import Iterator

import pyarrow as pa

from etl.load.interface import LoadStep
from etl.load.tables import GROUPS, arrow_schema_of, columns_of
from etl.model.schema import STRING, Table

_TEXT = "made up by metrics-etl check"
_JSON = '"\\u65e5"'
"""No encoding of a database but UTF8 takes it."""


def made_up_load(dataset_id: str) -> LoadStep:
    """A load of one item of each kind, which first deletes the same item."""
    items = {group.kind: {_TEXT: "made up"} for group in GROUPS}
    return LoadStep(dataset_id, removed=items, arriving=items, times={}, places={}, rows=_made_up_row)


def _made_up_row(table: Table) -> Iterator[pa.Table]:
    """One row that has all its texts, and nulls elsewhere."""
    row = {column.name: _JSON if column.is_json else _TEXT for column in columns_of(table) if column.type == STRING}
    yield pa.Table.from_pylist([row], schema=arrow_schema_of(table))
