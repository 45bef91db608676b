"""What one part holds, as far as a plan needs it: one row for each execution of which it holds anything."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.files.contract import Entry
from etl.load.merge import is_of
from etl.load.parquet import UnreadableError
from etl.model import schema
from etl.model.digest import voucher
from etl.model.lifecycle import HeldRows
from etl.model.records import FROM_DETAIL

_READ = {
    "executions": (
        "execution_id", "listed_calls", "exported_calls", "run_test_name", "started_at", "export_state", "fingerprint",
        "calls_digest", "verified_at", "exported_at", "export_run_id", "deleted_at",
    ),
    "calls": ("execution_id", "row_hash", "deleted_at", "exported_at", "metrics_from"),
    "evals": ("execution_id", "row_hash", "deleted_at", "exported_at"),
    "errors": ("execution_id",),
}  # fmt: skip
ROWS = pa.schema(
    [
        *(schema.EXECUTIONS.arrow_schema.field(name).remove_metadata() for name in _READ["executions"]),
        pa.field("is_here", pa.bool_()),
        pa.field("held_calls", pa.int64()),
        pa.field("detail_calls", pa.int64()),
        pa.field("held_digest", pa.string()),
        pa.field("held_at", schema.TIMESTAMP),
        pa.field("is_deleted", pa.bool_()),
        *(pa.field(f"has_{name}", pa.bool_()) for name in ("calls", "evals", "errors")),
    ]
)


@dataclass(frozen=True, slots=True)
class PartIndex:
    """One row for each execution of which the part holds anything; ``is_here``: its own row.

    ``held_digest``, ``held_calls`` and ``detail_calls`` are what the calls and evals in the part say, ``held_at`` is when the
    newest of them was exported, ``is_deleted`` whether each of them is marked. ``versions`` are those of the part's files by table,
    None when they cannot be told; ``counts`` their numbers of rows.
    """

    versions: tuple[str, ...] | None
    counts: tuple[int, ...]
    rows: pa.Table


def versions_of(entries: Mapping[str, Entry]) -> tuple[str, ...] | None:
    """The versions of a part's files; None when one of them changed so lately that it may change again unseen."""
    found = [entries[table.name] for table in schema.OF_EXECUTIONS if table.name in entries]
    if any(entry.is_fresh or not entry.version for entry in found):
        return None
    return tuple(entries[table.name].version if table.name in entries else "" for table in schema.OF_EXECUTIONS)


def index_part(dataset: Dataset, entries: Mapping[str, Entry]) -> tuple[PartIndex, list[str]]:
    """What the part holds, and the paths of its damaged files, which hold nothing.

    Raises:
        DestinationError: a file may not be read, or was written by a newer version.
    """
    rows = {table.name: table.no_rows.select(_READ[table.name]) for table in schema.OF_EXECUTIONS}
    damaged, here = [], dict(entries)
    for name, entry in entries.items():
        try:
            rows[name] = dataset.read(schema.TABLES[name], entry.path, _READ[name])
        except UnreadableError:
            damaged.append(entry.path)
        except FileMissingError:
            del here[name]
    counts = tuple(len(rows[table.name]) for table in schema.OF_EXECUTIONS)
    return PartIndex(None if damaged else versions_of(here), counts, _rows_of(rows)), damaged


def held_rows(listed_calls: Mapping[str, int | None], calls: pa.Table, evals: pa.Table) -> dict[str, HeldRows]:
    """What a part's calls and evals hold of the executions, each given with its number of listed calls."""
    calls, evals = (rows.filter(is_of(rows, listed_calls)) for rows in (calls, evals))
    of_calls, of_evals, of_detail = _vouchers(calls), _vouchers(evals), _from_detail(calls)
    return {
        execution_id: HeldRows.of(
            count, of_calls.get(execution_id, ()), of_evals.get(execution_id, ()), of_detail[execution_id]
        )
        for execution_id, count in listed_calls.items()
    }


def _rows_of(rows: Mapping[str, pa.Table]) -> pa.Table:
    """The rows of the index from those of the four tables."""
    calls, evals = (_vouchers(rows[name]) for name in ("calls", "evals"))
    of_detail = _from_detail(rows["calls"])
    newest, living = _newest_and_living(rows["calls"], rows["evals"])
    sick = set(rows["errors"]["execution_id"].to_pylist())
    here: dict[str, dict[str, Any]] = {}
    for row in rows["executions"].to_pylist():
        # What somebody doubled vouches for nothing, so that it is fetched again, and comes to stand once.
        here[row["execution_id"]] = row | {"calls_digest": None} if row["execution_id"] in here else row
    ids = [*here, *sorted({*calls, *evals, *sick} - here.keys())]
    held = [HeldRows.of(None, calls.get(each, ()), evals.get(each, ()), of_detail[each]) for each in ids]
    columns = {name: [here.get(each, {}).get(name) for each in ids] for name in _READ["executions"]} | {
        "execution_id": ids,
        "is_here": [each in here for each in ids],
        "held_calls": [each.exported_calls for each in held],
        "held_digest": [each.calls_digest for each in held],
        "detail_calls": [each.detail_calls for each in held],
        "held_at": [newest.get(each) for each in ids],
        "is_deleted": [each not in living for each in ids],
        "has_calls": [each in calls for each in ids],
        "has_evals": [each in evals for each in ids],
        "has_errors": [each in sick for each in ids],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in ROWS], schema=ROWS)


def _newest_and_living(*tables: pa.Table) -> tuple[dict[str, datetime], set[str]]:
    """When the newest row of each execution was exported, and which executions have a row that is not marked as deleted."""
    rows = pa.concat_tables([rows.select(["execution_id", "deleted_at", "exported_at"]) for rows in tables])
    found = rows.group_by("execution_id").aggregate([("exported_at", "max")])
    newest = dict(zip(found["execution_id"].to_pylist(), found["exported_at_max"].to_pylist(), strict=True))
    return newest, {*rows.filter(rows["deleted_at"].is_null())["execution_id"].to_pylist()}


def _from_detail(calls: pa.Table) -> Counter[str]:
    """How many calls of each execution, not marked as deleted, have no metrics but those of the detail."""
    is_from_detail = pc.equal(calls["metrics_from"], FROM_DETAIL)
    found = calls.filter(pc.and_(is_from_detail, calls["deleted_at"].is_null()))
    return Counter(found["execution_id"].to_pylist())


def _vouchers(rows: pa.Table) -> dict[str, list[str]]:
    """The vouchers of the rows of each execution; its rows lie together, and are taken at once."""
    runs = pc.run_end_encode(rows["execution_id"].combine_chunks())
    hashes, marks = rows["row_hash"].to_pylist(), rows["deleted_at"].is_valid().to_pylist()
    column = [voucher(each or "", is_deleted=mark) for each, mark in zip(hashes, marks, strict=True)]
    found: dict[str, list[str]] = {}
    start = 0
    for execution_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        found.setdefault(execution_id, []).extend(column[start:end])
        start = end
    return found
