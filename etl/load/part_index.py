"""What one part holds, as far as a plan needs it: one row for each execution of which it holds anything."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.files.contract import Entry
from etl.load.layout import Part, part_path
from etl.load.parquet import UnreadableError
from etl.model import schema
from etl.model.lifecycle import HeldRows

Hashes = npt.NDArray[np.int64]
_READ = {
    "executions": (
        "execution_id", "listed_calls", "exported_calls", "run_test_name", "started_at", "export_state", "fingerprint",
        "calls_digest", "verified_at", "exported_at", "export_run_id", "deleted_at",
    ),
    "calls": ("execution_id", "row_hash", "call_execution_id", "exported_at"),
    "evals": ("execution_id", "row_hash", "call_execution_id", "exported_at"),
    "errors": ("execution_id",),
}  # fmt: skip
ROWS = pa.schema(
    [
        *(schema.EXECUTIONS.arrow_schema.field(name).remove_metadata() for name in _READ["executions"]),
        pa.field("is_here", pa.bool_()),
        pa.field("held_calls", pa.int64()),
        pa.field("held_digest", pa.string()),
        pa.field("held_at", schema.TIMESTAMP),
        *(pa.field(f"has_{name}", pa.bool_()) for name in ("calls", "evals", "errors")),
        pa.field("call_hashes", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, slots=True)
class PartIndex:
    """One row for each execution of which the part holds anything; ``is_here``: its own row.

    ``held_digest`` and ``held_calls`` are what the calls and evals in the part say, ``held_at`` is when the newest of them was
    exported; ``call_hashes`` has 64 bits for each of its calls. ``versions`` are those of the part's files by table, None when they
    cannot be told; ``counts`` their numbers of rows.
    """

    versions: tuple[str, ...] | None
    counts: tuple[int, ...]
    rows: pa.Table

    def count(self, table: schema.Table, entry: Entry) -> int | None:
        """How many rows the part's file of the table has; None when it may be another file than the one that was read."""
        if self.versions is None or entry.is_fresh or not entry.version:
            return None
        number = schema.OF_EXECUTIONS.index(table)
        return self.counts[number] if self.versions[number] == entry.version else None

    def held_digests(self) -> dict[str, str]:
        """What the calls and evals of each execution in the part say."""
        return dict(zip(*(self.rows[name].to_pylist() for name in ("execution_id", "held_digest")), strict=True))

    def living_ids(self) -> list[str]:
        """The executions that have a row which does not say that they were deleted."""
        ids: list[str] = self.rows.filter(pc.and_not(self.rows["is_here"], pc.is_valid(self.rows["deleted_at"])))[
            "execution_id"
        ].to_pylist()
        return ids

    @property
    def call_hashes(self) -> Hashes:
        """The hashes of the part's calls."""
        hashes: Hashes = self.rows["call_hashes"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return hashes


def versions_of(entries: Mapping[str, Entry]) -> tuple[str, ...] | None:
    """The versions of a part's files; None when one of them changed so lately that it may change again unseen."""
    found = [entries[table.name] for table in schema.OF_EXECUTIONS if table.name in entries]
    if any(entry.is_fresh or not entry.version for entry in found):
        return None
    return tuple(entries[table.name].version if table.name in entries else "" for table in schema.OF_EXECUTIONS)


def index_part(dataset: Dataset, part: Part, entries: Mapping[str, Entry], unreadable: list[str]) -> PartIndex:
    """Read what the part holds. A damaged file holds nothing, and is added to ``unreadable``.

    Raises:
        DestinationError: a file may not be read, or was written by a newer version.
    """
    rows, damaged = {}, len(unreadable)
    for table in schema.OF_EXECUTIONS:
        rows[table.name] = table.no_rows.select(_READ[table.name])
        if table.name in entries:
            try:
                rows[table.name] = dataset.read(table, part_path(table.name, part), _READ[table.name])
            except UnreadableError:
                unreadable.append(entries[table.name].path)
            except FileMissingError:
                entries = {name: entry for name, entry in entries.items() if name != table.name}
    counts = tuple(len(rows[table.name]) for table in schema.OF_EXECUTIONS)
    return PartIndex(versions_of(entries) if len(unreadable) == damaged else None, counts, _rows_of(rows))


def hash_ids(ids: Collection[str]) -> Hashes:
    """64 bits of each id, the same in every process. They take little memory; ids whose hashes are equal are hardly ever two."""
    return pd.util.hash_array(np.array([*ids], dtype=object), categorize=False).view(np.int64)


def _hashed(ids: Sequence[Collection[str]]) -> pa.ListArray:
    """The hash of each id, in a list for each of the collections."""
    hashes = hash_ids([*chain.from_iterable(ids)])
    return pa.ListArray.from_arrays(np.cumsum([0, *map(len, ids)], dtype=np.int32), hashes)


def _rows_of(rows: Mapping[str, pa.Table]) -> pa.Table:
    """The rows of the index from those of the four tables."""
    hashes = {name: by_execution(rows[name], "row_hash") for name in ("calls", "evals")}
    # Evals of a call whose row was lost count like the call.
    calls, evals = (by_execution(rows[name], "call_execution_id") for name in ("calls", "evals"))
    newest = _newest(rows["calls"], rows["evals"])
    sick = set(rows["errors"]["execution_id"].to_pylist())
    here: dict[str, dict[str, Any]] = {}
    for row in rows["executions"].to_pylist():
        # What somebody doubled vouches for nothing, so that it is fetched again, and comes to stand once.
        here[row["execution_id"]] = row | {"calls_digest": None} if row["execution_id"] in here else row
    ids = [*here, *sorted({*calls, *evals, *sick} - here.keys())]
    held = [HeldRows.of(None, hashes["calls"].get(each, ()), hashes["evals"].get(each, ())) for each in ids]
    columns = {name: [here.get(each, {}).get(name) for each in ids] for name in _READ["executions"]} | {
        "execution_id": ids,
        "is_here": [each in here for each in ids],
        "held_calls": [each.exported_calls for each in held],
        "held_digest": [each.calls_digest for each in held],
        "held_at": [newest.get(each) for each in ids],
        "has_calls": [each in calls for each in ids],
        "has_evals": [each in evals for each in ids],
        "has_errors": [each in sick for each in ids],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in ROWS if field.name != "call_hashes"]
    hashed = _hashed([dict.fromkeys((*calls.get(each, ()), *evals.get(each, ()))) for each in ids])
    return pa.table([*arrays, hashed], schema=ROWS)


def _newest(*tables: pa.Table) -> dict[str, datetime]:
    """When the newest row of each execution was exported."""
    rows = pa.concat_tables([rows.select(["execution_id", "exported_at"]) for rows in tables])
    found = rows.group_by("execution_id").aggregate([("exported_at", "max")])
    return dict(zip(found["execution_id"].to_pylist(), found["exported_at_max"].to_pylist(), strict=True))


def by_execution(rows: pa.Table, name: str) -> dict[str, list[Any]]:
    """The values of the column; the rows of an execution lie together, and are taken at once."""
    runs = pc.run_end_encode(rows["execution_id"].combine_chunks())
    column, start = rows[name].to_pylist(), 0
    values: dict[str, list[Any]] = {}
    for execution_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        values.setdefault(execution_id, []).extend(column[start:end])
        start = end
    return values
