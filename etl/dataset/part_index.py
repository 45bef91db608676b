"""What one part holds, as far as a plan needs it: one row for each execution that has anything in it.

Computed from the part's files alone. What is kept of it, and when a file is read again, is for ``index`` to say.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.parquet import UnreadableError
from etl.dataset.parts import Dataset
from etl.errors import FileMissingError
from etl.files.interface import Entry
from etl.model import schema
from etl.model.arrow import is_of, row_versions, runs_of, where
from etl.model.digest import rows_digest, voucher
from etl.model.lifecycle import LONG_AGO, HeldRows
from etl.model.records import DETAIL, FROM_DETAIL
from etl.model.values import arrow_array
from etl.transform.row_hash import hash_rows

_OF_EXECUTION = ("execution_id", "listed_calls", "exported_calls", "run_test_name", "started_at", "export_state")
"""Columns that say which execution it is, how many calls it has, and how far it was exported."""
_OF_EXPORT = ("run_test_id", "fingerprint", "calls_digest", "verified_at", "exported_at", "export_run_id", "deleted_at")
"""Columns that say what was exported, and when; ``run_test_id`` is null where lists of run tests told nothing of it."""
_READ = {
    "executions": _OF_EXECUTION + _OF_EXPORT,
    "calls": ("execution_id", "deleted_at", "exported_at", "metrics_from"),
    "evals": ("execution_id", "deleted_at", "exported_at"),
    "errors": ("execution_id", "endpoint"),
}
"""The columns of each table that are read; those of executions are in the index, too."""
_DIGEST_OF_NOTHING = rows_digest(())
ROWS = pa.schema(
    [
        # Of the execution's own row; null if it has none.
        *(schema.EXECUTIONS.arrow_schema.field(name) for name in _READ["executions"]),
        # Whether it has a row of its own.
        pa.field("is_here", pa.bool_()),
        # How many of its calls are in the part and not marked.
        pa.field("held_calls", pa.int64()),
        # How many of these have no metrics but those of the detail.
        pa.field("detail_calls", pa.int64()),
        # The digest of its calls and evals in the part; null if it is the same as ``calls_digest``.
        pa.field("held_digest", pa.string()),
        # When the newest of these calls and evals was exported.
        pa.field("held_at", schema.TIMESTAMP),
        # Whether each of them is marked.
        pa.field("is_deleted", pa.bool_()),
        # Whether it has dead letters, those of its detail apart; and whether it has some of these.
        pa.field("has_errors", pa.bool_()),
        pa.field("lacks_detail", pa.bool_()),
    ]
)
"""The columns of an index: a row for each execution."""


@dataclass(frozen=True, slots=True)
class PartIndex:
    """What one part holds."""

    versions: tuple[str, ...] | None
    """The versions of the part's files, in the order of ``schema.OF_EXECUTIONS``; None if they cannot be trusted."""
    counts: tuple[int, ...]
    """How many rows these files have, in the same order."""
    rows: pa.Table
    """A row with the columns of ``ROWS`` for each execution of which the part holds anything."""

    @property
    def digests(self) -> dict[str, str]:
        """By execution, the digest of the calls and evals that are in the part."""
        held = pc.coalesce(self.rows["held_digest"], self.rows["calls_digest"])
        return dict(zip(self.rows["execution_id"].to_pylist(), held.to_pylist(), strict=True))


def versions_of(entries: Mapping[str, Entry]) -> tuple[str, ...] | None:
    """The versions of a part's files, empty for a table without one.

    None if they cannot be trusted: the storage does not say one of them, or a file changed so lately that another
    change might leave its version as it is.
    """
    if any(entry.is_fresh or not entry.version for entry in entries.values()):
        return None
    return tuple(entries[table.name].version if table.name in entries else "" for table in schema.OF_EXECUTIONS)


def index_part(
    dataset: Dataset, entries: Mapping[str, Entry], digests: Mapping[str, str] | None
) -> tuple[PartIndex, list[str]]:
    """What the part holds, and the paths of its damaged files, which count as empty.

    ``entries`` are the part's files by table. ``digests`` are those of its calls and evals, by execution; if they are
    not known (None), these files are read whole and hashed.

    Raises:
        DestinationError: a file may not be read, or a newer version wrote it.
    """
    rows: dict[str, pa.Table] = {}
    vouchers: dict[str, list[str]] = {}
    damaged: list[str] = []
    present = dict(entries)
    for table in schema.OF_EXECUTIONS:
        name = table.name
        is_hashed = digests is None and table in schema.OF_CALLS
        rows[name] = table.no_rows.select(_READ[name])
        try:
            if name in entries:
                read = dataset.read(table, entries[name].path, table.names if is_hashed else _READ[name])
                rows[name] = read.select(_READ[name])
                if is_hashed:
                    _add_vouchers(vouchers, table, read)
        except UnreadableError:
            damaged.append(entries[name].path)
        except FileMissingError:  # it was removed since it was listed
            del present[name]
    if digests is None:
        digests = {execution_id: rows_digest(of_execution) for execution_id, of_execution in vouchers.items()}
    counts = tuple(len(rows[table.name]) for table in schema.OF_EXECUTIONS)
    return PartIndex(None if damaged else versions_of(present), counts, _rows_of(rows, digests)), damaged


def held_rows(listed_calls: Mapping[str, int | None], calls: pa.Table, evals: pa.Table) -> dict[str, HeldRows]:
    """What a part's calls and evals hold of some executions, which are given with the number of their listed calls."""
    calls, evals = (where(rows, is_of(rows, listed_calls)) for rows in (calls, evals))
    vouchers: dict[str, list[str]] = {}
    for table, rows in zip(schema.OF_CALLS, (calls, evals), strict=True):
        _add_vouchers(vouchers, table, rows)
    living = _living(calls)
    detail = _from_detail(calls)
    return {
        execution: HeldRows(count, living[execution], rows_digest(vouchers.get(execution, ())), detail[execution])
        for execution, count in listed_calls.items()
    }


def _rows_of(rows: Mapping[str, pa.Table], digests: Mapping[str, str]) -> pa.Table:
    """The rows of the index, from those of the four tables."""
    own_rows = rows["executions"]
    own_counts = Counter(own_rows["execution_id"].to_pylist())
    if own_counts.total() > len(own_counts):  # somebody doubled rows: the last one of each execution counts
        last = {execution_id: index for index, execution_id in enumerate(own_rows["execution_id"].to_pylist())}
        own_rows = own_rows.take([*last.values()])
    ids_in = {name: {*of_table["execution_id"].unique().to_pylist()} for name, of_table in rows.items()}
    without_row = arrow_array(sorted(set[str]().union(*ids_in.values()) - own_counts.keys()), pa.string())
    index = pa.concat_tables([own_rows, pa.table({"execution_id": without_row})], promote_options="default")
    ids = index["execution_id"].to_pylist()
    # The digest of a row that was doubled does not count, so that its execution is fetched again.
    own_digests = zip(ids, index["calls_digest"].to_pylist(), strict=True)
    vouched = [digest if own_counts[execution_id] == 1 else None for execution_id, digest in own_digests]
    held = [digests.get(execution_id, _DIGEST_OF_NOTHING) for execution_id in ids]
    living_calls = _living(rows["calls"])
    detail_calls = _from_detail(rows["calls"])
    living = living_calls | _living(rows["evals"])
    newest = _newest(rows["calls"], rows["evals"])
    is_of_detail = is_of(rows["errors"], [DETAIL], "endpoint")
    failed = {*where(rows["errors"], pc.invert(is_of_detail))["execution_id"].to_pylist()}
    without_detail = {*where(rows["errors"], is_of_detail)["execution_id"].to_pylist()}
    made: dict[str, list[Any]] = {
        "calls_digest": vouched,
        "is_here": [execution_id in own_counts for execution_id in ids],
        "held_calls": [living_calls[execution_id] for execution_id in ids],
        "held_digest": [own if own != digest else None for own, digest in zip(held, vouched, strict=True)],
        "detail_calls": [detail_calls[execution_id] for execution_id in ids],
        "held_at": [newest.get(execution_id) for execution_id in ids],
        "is_deleted": [not living[execution_id] for execution_id in ids],
        "has_errors": [execution_id in failed for execution_id in ids],
        "lacks_detail": [execution_id in without_detail for execution_id in ids],
    }
    columns = [arrow_array(made[each.name], each.type) if each.name in made else index[each.name] for each in ROWS]
    return pa.Table.from_arrays(columns, schema=ROWS)


def _newest(*tables: pa.Table) -> dict[str, datetime | None]:
    """When the newest row of each execution was exported; None if no row says when."""
    versions = set[tuple[str, datetime | None]]().union(*map(row_versions, tables))
    return dict(sorted(versions, key=lambda version: version[1] or LONG_AGO))  # the newest one comes last


def _living(rows: pa.Table) -> Counter[str]:
    """How many rows of each execution are not marked as deleted."""
    counts = pc.value_counts(rows.filter(rows["deleted_at"].is_null())["execution_id"])
    return Counter({count["values"]: count["counts"] for count in counts.to_pylist()})


def _from_detail(calls: pa.Table) -> Counter[str]:
    """How many unmarked calls of each execution have no metrics but those of the detail."""
    return _living(calls.filter(is_of(calls, [FROM_DETAIL], "metrics_from")))


def _add_vouchers(vouchers: dict[str, list[str]], table: schema.Table, rows: pa.Table) -> None:
    """Add what the digest takes of each of these rows (see ``voucher``) to the list of its execution."""
    of_rows = hash_rows(table, rows)
    for index in compress(range(len(rows)), rows["deleted_at"].is_valid().to_pylist()):
        of_rows[index] = voucher(of_rows[index], is_deleted=True)
    for execution_id, start, end in runs_of(rows):
        vouchers.setdefault(execution_id, []).extend(of_rows[start:end])
