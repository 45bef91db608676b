"""What the dataset holds of calls, read one part at a time, and once as long as the same part is asked for."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import pyarrow as pa

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.layout import Part, part_path
from etl.load.merge import COLUMNS_OF_UNLISTED, is_of, unlisted_calls
from etl.load.parquet import UnreadableError
from etl.model import schema

_IDS = ("execution_id", "call_execution_id")
_EVALS = ("execution_id", *schema.EVALS.key)
_LETTERS = ("execution_id", "subject_id", "message")
_COUNTS = ("execution_id", *COLUMNS_OF_UNLISTED)
_VALUES = tuple(name for name in schema.CALLS.names if name != "raw")


class StoredCalls:
    """Of a file that is gone or damaged nothing is held: a commit deals with it. Not for two threads at once."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._part: Part | None = None
        self._tables: dict[tuple[str, ...], pa.Table] = {}

    def evals_by_call(self, part: Part, execution_id: str) -> Mapping[str, AbstractSet[str]]:
        """The calls of an execution by id, and of each the configs of its evals.

        These may be all that is left of a call, or all that ever came of it; or there is only a dead letter.
        """
        failed = {subject_id for subject_id, _ in self.letters(part, execution_id)} - {execution_id}
        calls = self._of(schema.CALLS, _IDS, part, execution_id)["call_execution_id"].to_pylist()
        evals: dict[str, set[str]] = {call_id: set() for call_id in (*calls, *failed)}
        for row in self._of(schema.EVALS, _EVALS, part, execution_id).to_pylist():
            evals.setdefault(row["call_execution_id"], set()).add(row["eval_config_id"])
        return evals

    def rows(self, part: Part, execution_id: str) -> dict[str, list[Any]]:
        """The rows of an execution's calls by id, in the order of the columns and without ``raw``."""
        rows = self._of(schema.CALLS, _VALUES, part, execution_id)
        columns = [[None] * len(rows) if name == "raw" else rows[name].to_pylist() for name in schema.CALLS.names]
        ids = rows["call_execution_id"].to_pylist()
        return {key: list(row) for key, row in zip(ids, zip(*columns, strict=True), strict=True)}

    def letters(self, part: Part, execution_id: str) -> frozenset[tuple[str, str]]:
        """Of each dead letter of an execution what it is about, and what it says."""
        rows = self._of(schema.ERRORS, _LETTERS, part, execution_id)
        return frozenset(zip(rows["subject_id"].to_pylist(), rows["message"].to_pylist(), strict=True))

    def unlisted_calls(self, part: Part, execution_id: str) -> int:
        """How many calls the API counted in an execution and did not list, when its list was believed last; 0 if it never was."""
        rows = self._of(schema.EXECUTIONS, _COUNTS, part, execution_id)
        return next(filter(None, unlisted_calls(rows)), 0)

    def _of(self, table: schema.Table, names: tuple[str, ...], part: Part, execution_id: str) -> pa.Table:
        if part != self._part:
            self._part, self._tables = part, {}
        if names not in self._tables:
            try:
                self._tables[names] = self._dataset.read(table, part_path(table.name, part), names)
            except (FileMissingError, UnreadableError):
                self._tables[names] = table.no_rows.select(names)
        rows = self._tables[names]
        return rows.filter(is_of(rows, [execution_id]))
