"""Where executions lie: what is stored stays where it is, and what is new goes to the last part of its month that has room."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from etl.dataset.layout import Part, folder_of, parse_part_path, part_path, place_of
from etl.dataset.parquet import read_size
from etl.dataset.parts import Dataset
from etl.dataset.state import StoredState
from etl.errors import FileMissingError
from etl.files.interface import listed
from etl.model import schema
from etl.transform.flatten import FlatBundle

FULL_ROWS = 20_000
FULL_BYTES = 4 << 20
"""A part is full with so many rows or bytes in one table. Each change writes a whole part, and a reader opens each part. Half of
the rows: twice as many files for large run tests. Twice of them: a first export writes twice as much, and takes the memory for it.
Of long texts, one commit brings up to 8 MiB, so that the next one seldom reads and writes them again."""


@dataclass(slots=True)
class _LastPart:
    """The part of a folder that takes what is new; ``rows`` are those of its longest table, with those that are on their way."""

    number: int
    rows: int = 0
    size_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return self.rows >= FULL_ROWS or self.size_bytes >= FULL_BYTES


@dataclass(slots=True, eq=False, repr=False)
class Places:
    """The parts of executions, stored or new, during one run. An execution that is given a part keeps it."""

    dataset: Dataset
    state: StoredState
    now: datetime
    _given: dict[str, Part] = field(default_factory=dict)

    def parts_of(self, bundles: Sequence[FlatBundle]) -> list[Part]:
        """The part of each bundle; those that are new fill the last parts in the order of the bundles."""
        last: dict[tuple[str, str], _LastPart] = {}
        return [self.part_of(each.execution.execution_id) or self._give(each, last) for each in bundles]

    def part_of(self, execution_id: str) -> Part | None:
        """The part of an execution that is stored or was given one."""
        return self.state.part_of(execution_id) or self._given.get(execution_id)

    def _give(self, bundle: FlatBundle, last: dict[tuple[str, str], _LastPart]) -> Part:
        key = bundle.run_test_key
        folder = folder_of((bundle.started_at or self.now).astimezone(UTC).date())
        found = last.get((key, folder)) or self._last_part(key, folder)
        if found.is_full:
            found = _LastPart(found.number + 1)
        found.rows += max(1, len(bundle.calls.values), len(bundle.evals.values))
        last[key, folder] = found
        return self._given.setdefault(bundle.execution.execution_id, Part(key, place_of(folder, found.number)))

    def _last_part(self, key: str, folder: str) -> _LastPart:
        folders = (f"{table.name}/run_test={key}/{folder}" for table in schema.OF_EXECUTIONS)
        paths = [entry.path for each in folders for entry in listed(self.dataset.files, each)]
        numbers = [parsed[1].number for path in paths if (parsed := parse_part_path(path))]
        part = Part(key, place_of(folder, max(numbers, default=0)))
        last = _LastPart(part.number)
        for path in (part_path(table.name, part) for table in schema.OF_EXECUTIONS):
            rows, size_bytes = self._size_of(path)
            last.rows, last.size_bytes = max(last.rows, rows), max(last.size_bytes, size_bytes)
        return last

    def _size_of(self, path: str) -> tuple[int, int]:
        """Rows and bytes of the file, as this run wrote it or else as its footer says."""
        if written := self.dataset.receipt.written.get(path):
            return written.rows, written.size_bytes
        try:
            return read_size(self.dataset.files, path)
        except FileMissingError:
            return 0, 0
