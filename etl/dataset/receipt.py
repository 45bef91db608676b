"""What a run has changed in the dataset: files, and executions of each run test.

Kept in memory while the run lasts; then its row of ``runs`` takes it as JSON, which is written after all the files that
it names, and so does the record of the last run. A run that is killed leaves none. Never reads or writes a file.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, get_args

_MOST_FILES = 20_000
"""So many files are listed by path: some 5 MB in the record of the run, which the next run reads."""

Change = Literal["inserted", "replaced", "marked", "emptied", "verified"]
"""What happened to an execution in a run; several may happen to the same one.

inserted: it got its first row. replaced: its row changed. marked: the source no longer has it, so rows of it got a
``deleted_at``. emptied: it has no calls any more. verified: its calls were fetched again and compared.
"""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file as this run wrote it last."""

    rows: int
    """How many rows the file has."""
    size_bytes: int
    """The size of the file."""
    sha256: str
    """The hash of the file's bytes, hexadecimal."""


@dataclass(slots=True)
class Receipt:
    """The changes of one run so far."""

    follows: str | None = None
    """The id of the run that began before, even if it was killed and so left no receipt; None if that is unknown."""
    written: dict[str, WrittenFile] = field(default_factory=dict)
    """By path, the files that this run wrote and that are still there."""
    removed: set[str] = field(default_factory=set)
    """The paths of damaged files that this run moved to the quarantine and has not written since."""
    executions: dict[str, dict[Change, set[str]]] = field(default_factory=dict)
    """By the key of the run test and the change, the ids of the executions that changed so."""

    def note_written(self, path: str, data: bytes | memoryview, *, rows: int) -> None:
        """Note that this run wrote the file, with this content."""
        self.written[path] = WrittenFile(rows, len(data), sha256(data).hexdigest())
        self.removed.discard(path)

    def note_removed(self, path: str) -> None:
        """Note that the file was moved away."""
        self.written.pop(path, None)
        self.removed.add(path)

    def note(self, run_test_key: str, change: Change, execution_ids: Collection[str]) -> None:
        """Note that these executions of the run test changed so; noting one twice counts once."""
        if execution_ids:
            self.executions.setdefault(run_test_key, {}).setdefault(change, set()).update(execution_ids)

    def as_json(self) -> dict[str, Any]:
        """The receipt as a JSON object. At most ``_MOST_FILES`` paths are listed; ``not_listed`` counts the others."""
        paths = sorted({*self.written, *self.removed})
        listed = paths[:_MOST_FILES]
        files = ((path, self.written[path]) for path in listed if path in self.written)
        return {
            "follows": self.follows,
            "written": [
                {"path": path, "rows": file.rows, "bytes": file.size_bytes, "sha256": file.sha256}
                for path, file in files
            ],
            "removed": [path for path in listed if path in self.removed],
            "not_listed": len(paths) - len(listed),
            "executions": {key: self._counts(key) for key in sorted(self.executions)},
        }

    def _counts(self, run_test_key: str) -> dict[str, int]:
        """The number of executions per change; each counts once as inserted, replaced or verified, the first to fit."""
        ids = {change: self.executions[run_test_key].get(change, set()) for change in get_args(Change)}
        ids["replaced"] = ids["replaced"] - ids["inserted"]
        ids["verified"] = ids["verified"] - ids["inserted"] - ids["replaced"]
        return {change: len(executions) for change, executions in ids.items()}
