"""Rows become frames with exactly the declared columns: Arrow tables, which are written, and pandas for people.

Pure. The values become Arrow arrays once, and a pandas frame takes these as they are. A frame has the rows of many
bundles, since making one takes milliseconds however few its rows. Analysts read and test pandas frames; the dataset
reads, merges and writes Arrow tables.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from etl.errors import SchemaError
from etl.model import schema
from etl.model.digest import fingerprint
from etl.model.lifecycle import HeldRows
from etl.model.values import arrow_array, fields_of, json_text
from etl.transform.flatten import FlatBundle, Rows
from etl.transform.rows import MAKERS

if TYPE_CHECKING:
    import pandas as pd

_OF_HELD = ("listed_calls", "exported_calls", "calls_digest")
"""Columns of an execution that repeat what the dataset holds of its calls."""


@dataclass(frozen=True, slots=True)
class ExportStamp:
    """What all rows of one commit share."""

    export_run_id: str
    """The run that writes the rows."""
    exported_at: datetime
    """When they are written, aware UTC."""
    include_raw: bool = False
    """Whether executions get their payload in the column ``raw``."""

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that say which export wrote a row, and when."""
        return {"export_run_id": self.export_run_id, "exported_at": self.exported_at}


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows of one table, as they are written."""

    table: schema.Table
    """The table that declares the columns."""
    rows: pa.Table
    """The rows, as they are written."""
    misfits: int
    """How many values did not fit their column, and were kept in ``extra``."""


def executions_frame(
    bundles: Iterable[FlatBundle],
    held: Mapping[str, HeldRows],
    states: Mapping[str, str],
    verified_at: Mapping[str, datetime | None],
    stamp: ExportStamp,
) -> Frame:
    """One row per execution, with exactly the columns of ``schema.EXECUTIONS``.

    ``held``, ``states`` and ``verified_at`` are by execution_id; times are aware UTC. A metric that the API left out is
    null.

    Raises:
        SchemaError: two bundles are of the same execution.

    Source: GET /sdk/api/v1/simulation/metrics/?run_test_name=…
    """

    def row(bundle: FlatBundle) -> tuple[list[Any], int]:
        execution_id, payload = bundle.execution.execution_id, bundle.execution.payload
        given = {
            "execution_id": execution_id,
            "run_test_name": bundle.run_test_name,
            "raw": json_text(payload) if stamp.include_raw else None,
            "export_state": states[execution_id],
            "fingerprint": fingerprint(payload),
            "verified_at": verified_at[execution_id],
            **fields_of(held[execution_id], *_OF_HELD),
        }
        return MAKERS[schema.EXECUTIONS.name].make(payload, given)

    return _frame(schema.EXECUTIONS, [Rows.of(map(row, bundles))], stamp.columns)


def calls_frame(bundles: Iterable[FlatBundle], stamp: ExportStamp) -> Frame:
    """One row per call, with exactly the columns of ``schema.CALLS``.

    A metric that the API left out or null stays null: a zero would drag every average down.

    Raises:
        SchemaError: two bundles hold the same ``call_execution_id``.

    Source: GET /sdk/api/v1/simulation/metrics/?call_execution_id=…
    """
    return _frame(schema.CALLS, [bundle.calls for bundle in bundles], stamp.columns)


def evals_frame(bundles: Iterable[FlatBundle], stamp: ExportStamp) -> Frame:
    """One row per eval output of a call, with exactly the columns of ``schema.EVALS``; errors as for ``calls_frame``.

    Source: GET /sdk/api/v1/simulation/runs/?execution_id=…
    """
    return _frame(schema.EVALS, [bundle.evals for bundle in bundles], stamp.columns)


def errors_frame(bundles: Iterable[FlatBundle], stamp: ExportStamp) -> Frame:
    """One row per dead letter, with exactly the columns of ``schema.ERRORS``.

    ``first_seen_at`` is the time of this export: the commit restores that of a dead letter it already holds.
    """
    seen = {"first_seen_at": stamp.exported_at, "last_seen_at": stamp.exported_at}
    return _frame(schema.ERRORS, [bundle.errors for bundle in bundles], {"export_run_id": stamp.export_run_id, **seen})


def table_of(table: schema.Table, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """An Arrow table with the declared columns, of rows given by column name."""
    return _frame(table, [Rows.of(MAKERS[table.name].make({}, row) for row in rows)], {}).rows


def to_pandas(table: pa.Table) -> "pd.DataFrame":
    """The table as a frame with pyarrow-backed dtypes: null stays null, and whole numbers stay whole."""
    import pandas as pd  # noqa: PLC0415 runs do without its import

    # As ``Table.to_pandas`` with these types does, in a quarter of the time.
    return pd.DataFrame({name: pd.arrays.ArrowExtensionArray(table[name]) for name in table.column_names}, copy=False)


def _frame(table: schema.Table, parts: Sequence[Rows], shared: Mapping[str, Any]) -> Frame:
    """All rows in one frame; ``shared`` gives the columns that have the same value in each row."""
    rows = list(chain.from_iterable(part.values for part in parts))
    _refuse_duplicate_keys(table, rows)
    by_column: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(table.columns)
    arrays = [
        arrow_array([shared[column.name]] * len(rows) if column.name in shared else values, column.type)
        for column, values in zip(table.columns, by_column, strict=True)
    ]
    return Frame(table, pa.Table.from_arrays(arrays, schema=table.arrow_schema), sum(part.misfits for part in parts))


def _refuse_duplicate_keys(table: schema.Table, rows: Sequence[Sequence[Any]]) -> None:
    """Raise a SchemaError if two rows have the same key."""
    key_of = itemgetter(*(table.names.index(name) for name in table.key))
    for key, count in Counter(map(key_of, rows)).most_common(1):
        if count > 1:
            raise SchemaError(f"two rows of {table.name} have the key {key}. This is a bug. Please report it")
