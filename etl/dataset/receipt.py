"""What a run has changed in the dataset: its files, and how many executions of each run test. Kept in memory until the run ends."""

from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, get_args

_MOST_FILES = 20_000  # some 5 MB in the record of the run, which the next one reads


Change = Literal["inserted", "replaced", "marked", "emptied", "verified"]
"""What happened to an execution. Several may happen to one in a run."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file as it was written last; ``sha256`` is that of its bytes, hexadecimal."""

    rows: int
    size_bytes: int
    sha256: str


@dataclass(slots=True)
class Receipt:
    """Files by path, and executions by the key of their run test; ``removed`` ones were damaged, and set aside."""

    written: dict[str, WrittenFile] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    executions: dict[str, dict[Change, set[str]]] = field(default_factory=dict)

    def note_written(self, path: str, data: bytes | memoryview, *, rows: int) -> None:
        """The file is there now."""
        self.written[path] = WrittenFile(rows, len(data), sha256(data).hexdigest())
        self.removed.discard(path)

    def note_removed(self, path: str) -> None:
        """The file is gone now."""
        self.written.pop(path, None)
        self.removed.add(path)

    def note(self, run_test_key: str, change: Change, execution_ids: Collection[str]) -> None:
        """The executions of the run test changed so."""
        if execution_ids:
            self.executions.setdefault(run_test_key, {}).setdefault(change, set()).update(execution_ids)

    def as_json(self) -> dict[str, Any]:
        """The receipt as a JSON object; beyond a bound files are counted as ``not_listed``."""
        paths = sorted({*self.written, *self.removed})
        listed = paths[:_MOST_FILES]
        files = ((path, self.written[path]) for path in listed if path in self.written)
        return {
            "written": [
                {"path": path, "rows": file.rows, "bytes": file.size_bytes, "sha256": file.sha256}
                for path, file in files
            ],
            "removed": [path for path in listed if path in self.removed],
            "not_listed": len(paths) - len(listed),
            "executions": {key: self._counts(key) for key in sorted(self.executions)},
        }

    def _counts(self, run_test_key: str) -> dict[str, int]:
        """How many executions of each change; each is inserted, replaced or verified, whatever else happened to it."""
        found = {change: self.executions[run_test_key].get(change, set()) for change in get_args(Change)}
        replaced = found["replaced"] - found["inserted"]
        verified = found["verified"] - found["inserted"] - replaced
        return {change: len(ids) for change, ids in (found | {"replaced": replaced, "verified": verified}).items()}
