"""Where executions lie: a stored one stays in its part, a new one goes to the last part of its month.

Decides the part of each execution of a run. Never writes: see ``commit``.
"""

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
"""A part is full with so many rows in one table.

Each change writes a whole part, and a reader opens every part. With half as many rows, large run tests have twice as
many files. With twice as many, a first export writes twice as much, and needs the memory for it.
"""
FULL_BYTES = 4 << 20
"""A part is full with so many bytes in one table, too.

One commit brings up to 8 MiB of long texts, so that the next one seldom reads and writes them again.
"""


@dataclass(slots=True)
class _LastPart:
    """The part of a folder that takes new executions."""

    number: int
    """Its number in the folder."""
    rows: int = 0
    """The rows of its longest table, including those that ``parts_of`` has assigned to it."""
    size_bytes: int = 0
    """The size of its largest file, as it is stored."""

    @property
    def is_full(self) -> bool:
        """Whether the next new execution goes to another part."""
        return self.rows >= FULL_ROWS or self.size_bytes >= FULL_BYTES


@dataclass(slots=True, eq=False, repr=False)
class Places:
    """The part of each execution, stored or new, during one run. An execution that was assigned a part keeps it."""

    dataset: Dataset
    """Where the parts lie, and what this run has written of them."""
    state: StoredState
    """What the dataset held when the run began, or when the state was last read."""
    now: datetime
    """When the run began: an execution without a start goes to this month."""
    _assigned: dict[str, Part] = field(default_factory=dict)
    """By execution_id, the parts of executions that are new in this run."""

    def parts_of(self, bundles: Sequence[FlatBundle]) -> list[Part]:
        """The part of each bundle; new executions are assigned parts in the order of the bundles."""
        last: dict[tuple[str, str], _LastPart] = {}
        return [self.part_of(bundle.execution.execution_id) or self._assign(bundle, last) for bundle in bundles]

    def part_of(self, execution_id: str) -> Part | None:
        """The part of an execution that is stored or was assigned one; None for any other."""
        return self.state.part_of(execution_id) or self._assigned.get(execution_id)

    def _assign(self, bundle: FlatBundle, last: dict[tuple[str, str], _LastPart]) -> Part:
        """Assign a part to a new execution. ``last`` are the last parts by key and folder, as far as they are known."""
        key = bundle.run_test_key
        folder = folder_of((bundle.started_at or self.now).astimezone(UTC).date())
        last_part = last.get((key, folder)) or self._last_part(key, folder)
        if last_part.is_full:
            last_part = _LastPart(last_part.number + 1)
        last_part.rows += max(1, len(bundle.calls.values), len(bundle.evals.values))
        last[key, folder] = last_part
        return self._assigned.setdefault(bundle.execution.execution_id, Part(key, place_of(folder, last_part.number)))

    def _last_part(self, key: str, folder: str) -> _LastPart:
        """The part with the highest number in the folder, in any table; an empty one if there is none."""
        folders = (f"{table.name}/run_test={key}/{folder}" for table in schema.OF_EXECUTIONS)
        paths = [entry.path for table_folder in folders for entry in listed(self.dataset.files, table_folder)]
        numbers = [parsed[1].number for path in paths if (parsed := parse_part_path(path))]
        part = Part(key, place_of(folder, max(numbers, default=0)))
        last = _LastPart(part.number)
        for path in (part_path(table.name, part) for table in schema.OF_EXECUTIONS):
            rows, size_bytes = self._size_of(path)
            last.rows, last.size_bytes = max(last.rows, rows), max(last.size_bytes, size_bytes)
        return last

    def _size_of(self, path: str) -> tuple[int, int]:
        """The rows and bytes of the file: as this run wrote it, otherwise as its footer says; zeros without a file."""
        if written := self.dataset.receipt.written.get(path):
            return written.rows, written.size_bytes
        try:
            return read_size(self.dataset.files, path)
        except FileMissingError:
            return 0, 0
