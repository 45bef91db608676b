"""What one part holds, as far as a plan needs it: one row for each execution of which it holds anything."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.parquet import UnreadableError
from etl.dataset.parts import Dataset
from etl.errors import FileMissingError
from etl.files.interface import Entry
from etl.model import schema
from etl.model.arrow import is_of, where
from etl.model.digest import rows_digest, voucher
from etl.model.lifecycle import HeldRows
from etl.model.records import FROM_DETAIL
from etl.transform.row_hash import hash_rows

_READ = {
    "executions": (
        "execution_id", "listed_calls", "exported_calls", "run_test_name", "started_at", "export_state", "fingerprint",
        "calls_digest", "verified_at", "exported_at", "export_run_id", "deleted_at",
    ),
    "calls": ("execution_id", "deleted_at", "exported_at", "metrics_from"),
    "evals": ("execution_id", "deleted_at", "exported_at"),
    "errors": ("execution_id",),
}  # fmt: skip
_DIGEST_OF_NOTHING = rows_digest(())
ROWS = pa.schema(
    [
        *(schema.EXECUTIONS.arrow_schema.field(name) for name in _READ["executions"]),
        pa.field("is_here", pa.bool_()),
        pa.field("held_calls", pa.int64()),
        pa.field("detail_calls", pa.int64()),
        pa.field("held_digest", pa.string()),
        pa.field("held_at", schema.TIMESTAMP),
        pa.field("is_deleted", pa.bool_()),
        pa.field("has_errors", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class PartIndex:
    """One row for each execution of which the part holds anything; ``is_here``: its own row.

    ``held_digest``, ``held_calls`` and ``detail_calls`` are what the calls and evals in the part say, the digest only where it is
    another than ``calls_digest``. ``held_at`` is when the newest of them was exported, ``is_deleted`` whether each of them is
    marked. ``versions`` are those of the part's files by table, None when they cannot be told; ``counts`` their numbers of rows.
    """

    versions: tuple[str, ...] | None
    counts: tuple[int, ...]
    rows: pa.Table

    @property
    def digests(self) -> dict[str, str]:
        """The digest of the calls and evals of each execution, as they are in the part."""
        held = pc.coalesce(self.rows["held_digest"], self.rows["calls_digest"])
        return dict(zip(self.rows["execution_id"].to_pylist(), held.to_pylist(), strict=True))


def versions_of(entries: Mapping[str, Entry]) -> tuple[str, ...] | None:
    """The versions of a part's files; None when one of them changed so lately that it may change again unseen."""
    found = [entries[table.name] for table in schema.OF_EXECUTIONS if table.name in entries]
    if any(entry.is_fresh or not entry.version for entry in found):
        return None
    return tuple(entries[table.name].version if table.name in entries else "" for table in schema.OF_EXECUTIONS)


def index_part(
    dataset: Dataset, entries: Mapping[str, Entry], digests: Mapping[str, str] | None
) -> tuple[PartIndex, list[str]]:
    """What the part holds, and the paths of its damaged files, which hold nothing.

    ``digests`` are those of its calls and evals, by execution; where they are not known (None), the rows are read whole and hashed.
    """
    rows, vouchers = dict[str, pa.Table](), dict[str, list[str]]()
    damaged, here = [], dict(entries)
    for table in schema.OF_EXECUTIONS:
        name, is_hashed = table.name, digests is None and table in schema.OF_CALLS
        rows[name] = table.no_rows.select(_READ[name])
        try:
            if name in entries:
                found = dataset.read(table, entries[name].path, table.names if is_hashed else _READ[name])
                rows[name] = found.select(_READ[name])
                if is_hashed:
                    _add_vouchers(vouchers, table, found)
        except UnreadableError:
            damaged.append(entries[name].path)
        except FileMissingError:
            del here[name]
    if digests is None:
        digests = {each: rows_digest(of_rows) for each, of_rows in vouchers.items()}
    counts = tuple(len(rows[table.name]) for table in schema.OF_EXECUTIONS)
    return PartIndex(None if damaged else versions_of(here), counts, _rows_of(rows, digests)), damaged


def held_rows(listed_calls: Mapping[str, int | None], calls: pa.Table, evals: pa.Table) -> dict[str, HeldRows]:
    """What a part's calls and evals hold of the executions, each given with its number of listed calls."""
    calls, evals = (where(rows, is_of(rows, listed_calls)) for rows in (calls, evals))
    vouchers: dict[str, list[str]] = {}
    for table, rows in zip(schema.OF_CALLS, (calls, evals), strict=True):
        _add_vouchers(vouchers, table, rows)
    living, of_detail = _living(calls), _from_detail(calls)
    return {
        each: HeldRows(count, living[each], rows_digest(vouchers.get(each, ())), of_detail[each])
        for each, count in listed_calls.items()
    }


def _rows_of(rows: Mapping[str, pa.Table], digests: Mapping[str, str]) -> pa.Table:
    """The rows of the index from those of the four tables."""
    here, own = rows["executions"], Counter(rows["executions"]["execution_id"].to_pylist())
    if own.total() > len(own):  # what somebody doubled comes to stand once
        here = here.take([*{each: index for index, each in enumerate(here["execution_id"].to_pylist())}.values()])
    in_tables = {name: {*of_table["execution_id"].unique().to_pylist()} for name, of_table in rows.items()}
    rest = sorted(set[str]().union(*in_tables.values()) - own.keys())
    found = pa.concat_tables([here, pa.table({"execution_id": pa.array(rest, pa.string())})], promote_options="default")
    ids = found["execution_id"].to_pylist()
    # And vouches for nothing, so that it is fetched again.
    told = [each if own[key] == 1 else None for key, each in zip(ids, found["calls_digest"].to_pylist(), strict=True)]
    held = [digests.get(each, _DIGEST_OF_NOTHING) for each in ids]
    living, of_detail = _living(rows["calls"]), _from_detail(rows["calls"])
    alive, newest = living | _living(rows["evals"]), _newest(rows["calls"], rows["evals"])
    columns = {name: found[name] for name in found.column_names} | {
        "calls_digest": told,
        "is_here": [each in own for each in ids],
        "held_calls": [living[each] for each in ids],
        "held_digest": [its if its != vouched else None for its, vouched in zip(held, told, strict=True)],
        "detail_calls": [of_detail[each] for each in ids],
        "held_at": [newest.get(each) for each in ids],
        "is_deleted": [not alive[each] for each in ids],
        "has_errors": [each in in_tables["errors"] for each in ids],
    }
    return pa.table(columns, ROWS)


def _newest(*tables: pa.Table) -> dict[str, int]:
    """When the newest row of each execution was exported, in microseconds; its rows lie together, and are taken at once."""
    rows = pa.concat_tables([each.select(["execution_id", "exported_at"]) for each in tables])
    rows = rows.filter(rows["exported_at"].is_valid())
    found: dict[str, int] = {}
    if len(rows):
        ids, starts, _ = _runs(rows)
        newest = np.maximum.reduceat(rows["exported_at"].cast(pa.int64()).to_numpy(), starts).tolist()
        for execution_id, at in zip(ids, newest, strict=True):
            found[execution_id] = max(at, found.get(execution_id, at))
    return found


def _living(rows: pa.Table) -> Counter[str]:
    """How many rows of each execution are not marked as deleted."""
    counts = pc.value_counts(rows.filter(rows["deleted_at"].is_null())["execution_id"])
    return Counter({each["values"]: each["counts"] for each in counts.to_pylist()})


def _from_detail(calls: pa.Table) -> Counter[str]:
    """How many of these calls have no metrics but those of the detail."""
    return _living(calls.filter(pc.equal(calls["metrics_from"], FROM_DETAIL)))


def _add_vouchers(found: dict[str, list[str]], table: schema.Table, rows: pa.Table) -> None:
    """Add the vouchers of the rows of each execution; these lie together, and are taken at once."""
    vouchers = hash_rows(table, rows)
    for index in np.flatnonzero(rows["deleted_at"].is_valid()).tolist():
        vouchers[index] = voucher(vouchers[index], is_deleted=True)
    for execution_id, start, end in zip(*_runs(rows), strict=True):
        found.setdefault(execution_id, []).extend(vouchers[start:end])


def _runs(rows: pa.Table) -> tuple[list[str], list[int], list[int]]:
    """The executions of rows that lie together, and where each begins and ends."""
    runs = pc.run_end_encode(rows["execution_id"].combine_chunks())
    ends = runs.run_ends.to_pylist()
    return runs.values.to_pylist(), [0, *ends][:-1], ends
