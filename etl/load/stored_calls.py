"""What the dataset holds of calls, read one part at a time, and once as long as the same part is asked for."""

from typing import Any

import pyarrow as pa

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.layout import Part, part_path
from etl.load.merge import is_of
from etl.load.parquet import UnreadableError
from etl.model import schema

_IDS = ("execution_id", "call_execution_id", "deleted_at")
_LETTERS = ("execution_id", "subject_id")
_VALUES = tuple(name for name in schema.CALLS.names if name != "raw")


class StoredCalls:
    """Of a file that is gone or damaged nothing is held: a commit deals with it. Not for two threads at once."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._part: Part | None = None
        self._tables: dict[tuple[str, tuple[str, ...]], pa.Table] = {}

    def calls(self, part: Part, execution_id: str) -> dict[str, bool]:
        """The calls of an execution by id, each with whether all that is there of it is marked as deleted.

        That may be evals alone, or a dead letter.
        """
        found: dict[str, bool] = dict.fromkeys(self.failed(part, execution_id) - {execution_id}, False)
        for table in (schema.EVALS, schema.CALLS):
            rows = self._of(table, _IDS, part, execution_id)
            marks = rows["deleted_at"].is_valid().to_pylist()
            for call_id, is_deleted in zip(rows["call_execution_id"].to_pylist(), marks, strict=True):
                found[call_id] = is_deleted and found.get(call_id, True)
        return found

    def rows(self, part: Part, execution_id: str) -> dict[str, list[Any]]:
        """The rows of an execution's calls that are not marked, by id, in the order of the columns and without ``raw``."""
        rows = self._of(schema.CALLS, _VALUES, part, execution_id)
        rows = rows.filter(rows["deleted_at"].is_null())
        columns = [[None] * len(rows) if name == "raw" else rows[name].to_pylist() for name in schema.CALLS.names]
        ids = rows["call_execution_id"].to_pylist()
        return {key: list(row) for key, row in zip(ids, zip(*columns, strict=True), strict=True)}

    def failed(self, part: Part, execution_id: str) -> frozenset[str]:
        """What the dead letters of an execution are about: it, or its calls."""
        return frozenset(self._of(schema.ERRORS, _LETTERS, part, execution_id)["subject_id"].to_pylist())

    def _of(self, table: schema.Table, names: tuple[str, ...], part: Part, execution_id: str) -> pa.Table:
        if part != self._part:
            self._part, self._tables = part, {}
        key = (table.name, names)
        if key not in self._tables:
            try:
                self._tables[key] = self._dataset.read(table, part_path(table.name, part), names)
            except (FileMissingError, UnreadableError):
                self._tables[key] = table.no_rows.select(names)
        rows = self._tables[key]
        return rows.filter(is_of(rows, [execution_id]))
