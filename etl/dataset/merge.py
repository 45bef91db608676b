"""Replace the rows of re-exported executions within one part, and mark what the source no longer has. Pure: tables in, table out.

A row whose content did not change keeps its old version, so that a part in which nothing changed is not written again. No row of
executions, calls and evals ever goes: what is not replaced stays, and gets a ``deleted_at`` if the source is known not to have it.
"""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema
from etl.model.arrow import is_of, where, with_column, with_values
from etl.model.records import FROM_DETAIL
from etl.transform.row_hash import ROW_HASH, hash_rows

_VERSION_COLUMNS = {"export_run_id", "exported_at", "verified_at"}

_AGGREGATES = [each.name for each in schema.EXECUTIONS.columns if any(path[0] == "metrics" for path in each.paths)]
"""Columns of an execution that are empty when only its head is known; ``extra`` may be, too."""

_SORT = {
    "executions": ["started_at", "execution_id"],
    "calls": ["execution_started_at", "execution_id", "call_execution_id"],
    "evals": ["execution_started_at", "execution_id", "call_execution_id", "eval_config_id"],
    "errors": ["execution_id", "endpoint", "subject_id"],
}

_MOST_SORTED_BYTES = 1 << 30
"""Arrow cannot bring more than 2 GiB of text of one column into another order. So much is one execution's, and all of one time."""

_Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Replacement:
    """Whose rows are replaced in a part, and what is known of the old ones: ids of executions, or pairs of execution and call.

    Attributes:
        executions: All that are replaced.
        without_calls: Their calls were not listed: old calls and evals stay as they are.
        listed_calls: Calls that their lists name: they exist, and have no other evals than the new rows say.
        deleted_calls: Calls that the source no longer has.
        unproved: Nothing proves what became of the calls that their lists do not name: old dead letters of these stay.
        heads: Fetched without their aggregates: the old aggregates stay.
        verified: Take the new ``verified_at`` even if nothing else changed, and with it who wrote the row, and when.
        restamped: Not whole yet: new rows of their calls tell when they were fetched, even if they say the same as the old ones.
        renewed: Their new execution rows replace the old ones even if they say the same: other rows of theirs changed, or when the
            old ones were written is unknown.
        stamp: The columns ``export_run_id`` and ``exported_at`` of rows that are marked, which is when they are found deleted.
    """

    executions: Collection[str]
    without_calls: Collection[str] = ()
    listed_calls: Collection[_Pair] = ()
    deleted_calls: Collection[_Pair] = ()
    unproved: Collection[str] = ()
    heads: Collection[str] = ()
    verified: Collection[str] = ()
    restamped: Collection[str] = ()
    renewed: Collection[str] = ()
    stamp: Mapping[str, Any] = field(default_factory=dict)

    def executions_of(self, table: schema.Table) -> Collection[str]:
        """The executions whose rows of this table are replaced."""
        return {*self.executions} - {*self.without_calls} if table in schema.OF_CALLS else self.executions

    def keeps_letter(self, execution_id: str, subject_id: str) -> bool:
        """Whether an old dead letter stays though no new one is the same."""
        is_unlisted = (execution_id, subject_id) not in self.listed_calls
        return subject_id != execution_id and execution_id in self.unproved and is_unlisted

    def is_deleted(self, table: schema.Table, call: _Pair, *, was_deleted: bool) -> bool:
        """Whether an old row of the call is marked that has no new one. So is an eval that is missing from its call's entry."""
        if call in self.deleted_calls:
            return True
        return table is schema.EVALS if call in self.listed_calls else was_deleted


@dataclass(frozen=True, slots=True)
class Merged:
    """The part's rows after the merge, whether they differ from before, and how many of them are new or changed.

    ``own`` are the rows of the executions that were replaced or marked, in any order; as merged with their hashes.
    ``marked`` rows got a ``deleted_at``. ``changed`` are the executions of which a row was replaced, added, marked or unmarked.
    """

    table: pa.Table
    own: pa.Table
    is_changed: bool
    arrived: int = 0
    marked: int = 0
    changed: AbstractSet[str] = frozenset()


def merge(table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement) -> Merged:
    """``old`` with the rows of the replaced executions exchanged for ``new``, which holds rows of these executions only.

    Rows come sorted by execution and key, unless they are very large. Keys are unique if they are in ``new``.
    """
    is_replaced = is_of(old, replacement.executions_of(table))
    others, before = where(old, pc.invert(is_replaced)), where(old, is_replaced)
    if table in schema.OF_CALLS:
        before, new = (
            each.append_column(ROW_HASH, pa.array(hash_rows(table, each), pa.string())) for each in (before, new)
        )
    after, is_verified = before, False
    if table is schema.EXECUTIONS:
        new = with_values(new, _values(before, [*_AGGREGATES, "extra"], replacement.heads))
        before = before.filter(pc.invert(is_of(before, replacement.renewed)))
        # The other way round: an old row that stays takes the new time, and no new row replaces it for that.
        after = with_values(before, _values(new, _VERSION_COLUMNS, replacement.verified))
        is_verified = not after["verified_at"].equals(before["verified_at"])
    if table is schema.ERRORS:
        seen_at = dict(zip(_keys(table, before), before["first_seen_at"].to_pylist(), strict=True))
        own = zip(_keys(table, new), new["first_seen_at"].to_pylist(), strict=True)
        new = with_column(new, "first_seen_at", [seen_at.get(key, now) for key, now in own])
    is_kept, is_arriving = _compare(table, before, new, replacement)
    marks = _marks(table, before, new, replacement) if table in schema.OF_CALLS else {}
    if all(is_kept) and not (any(is_arriving) or marks or is_verified):
        return Merged(old, before, is_changed=False)
    own = pa.concat_tables([where(with_marks(after, marks, replacement.stamp), is_kept), where(new, is_arriving)])
    merged = pa.concat_tables([others, own.select(table.names)])
    if merged.nbytes < _MOST_SORTED_BYTES:
        merged = merged.sort_by([(name, "ascending") for name in _SORT[table.name]])
    ids = before["execution_id"].to_pylist()
    gone = compress(ids, [not each for each in is_kept])
    changed = {*gone, *compress(new["execution_id"].to_pylist(), is_arriving), *(ids[index] for index in marks)}
    arrived = sum(is_arriving) + sum(not is_deleted for is_deleted in marks.values())
    return Merged(merged, own, is_changed=True, arrived=arrived, marked=sum(marks.values()), changed=changed)


def mark(table: schema.Table, rows: pa.Table, executions: Collection[str], stamp: Mapping[str, Any]) -> Merged:
    """The rows of a part, those of the executions marked as deleted; dead letters of theirs go."""
    is_theirs = is_of(rows, executions)
    if table is schema.ERRORS:
        left = where(rows, pc.invert(is_theirs))
        return Merged(left, left, is_changed=len(left) < len(rows))
    is_new = pc.and_(is_theirs, rows["deleted_at"].is_null())
    marks = {index: True for index, each in enumerate(is_new.to_pylist()) if each}
    changed = {*rows.filter(is_new)["execution_id"].to_pylist()}
    rows = with_marks(rows, marks, stamp)
    return Merged(rows, where(rows, is_theirs), is_changed=bool(marks), marked=len(marks), changed=changed)


def with_marks(rows: pa.Table, marks: Mapping[int, bool], stamp: Mapping[str, Any]) -> pa.Table:
    """The rows, those at these positions marked as deleted now (True) or no longer (False), and of this export."""
    if not marks:
        return rows
    deleted = {index: stamp["exported_at"] if is_deleted else None for index, is_deleted in marks.items()}
    columns = {"deleted_at": deleted} | {name: dict.fromkeys(marks, value) for name, value in stamp.items()}
    for name, values in columns.items():
        rows = with_column(rows, name, [values.get(index, own) for index, own in enumerate(rows[name].to_pylist())])
    return rows


def _compare(
    table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement
) -> tuple[list[bool], list[bool]]:
    """Which of the old rows stay, and which of the new ones replace an old one or are added."""
    new_contents = dict(_contents(table, new))
    if table is schema.CALLS and replacement.restamped:
        is_restamped = is_of(new, replacement.restamped).to_pylist()
        new_contents |= {key: () for key, each in zip(_keys(table, new), is_restamped, strict=True) if each}
    kept: set[tuple[Any, ...]] = set()
    is_kept = []
    old_rows = zip(_contents(table, old), _stays_if_missing(table, old, replacement), strict=True)
    for (key, content), stays_if_missing in old_rows:
        stays = new_contents[key] == content if key in new_contents else stays_if_missing
        is_kept.append(stays and key not in kept)  # a file that was edited by hand may hold a row twice
        if stays:
            kept.add(key)
    return is_kept, [key not in kept for key in new_contents]


def _stays_if_missing(table: schema.Table, old: pa.Table, replacement: Replacement) -> list[bool]:
    """Which of the old rows stay if no new row has their key."""
    if table is not schema.ERRORS:
        return [table in schema.OF_CALLS] * len(old)
    ids = zip(old["execution_id"].to_pylist(), old["subject_id"].to_pylist(), strict=True)
    return [replacement.keeps_letter(*each) for each in ids]


def _marks(table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement) -> dict[int, bool]:
    """The positions of the old rows without a new one that are marked from now on (True), or no longer (False)."""
    new_keys = {*_keys(table, new)}
    rows = zip(
        _keys(table, old),
        zip(old["execution_id"].to_pylist(), old["call_execution_id"].to_pylist(), strict=True),
        old["deleted_at"].is_valid().to_pylist(),
        strict=True,
    )
    return {
        index: is_deleted
        for index, (key, call, was_deleted) in enumerate(rows)
        if key not in new_keys
        and (is_deleted := replacement.is_deleted(table, call, was_deleted=was_deleted)) != was_deleted
    }


def _values(rows: pa.Table, names: Iterable[str], executions: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the rows of the executions have in the columns, by name and execution_id."""
    rows = rows.filter(is_of(rows, executions))
    ids = rows["execution_id"].to_pylist()
    return {name: dict(zip(ids, rows[name].to_pylist(), strict=True)) for name in names}


def _contents(table: schema.Table, rows: pa.Table) -> Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Key and content of each row; two rows of equal content say the same of the source."""
    names = [name for name in table.names if name not in _VERSION_COLUMNS]
    if table in schema.OF_CALLS:  # whose hash covers all but these
        names = [ROW_HASH, *(name for name in ("deleted_at", "raw") if name in names)]
    columns = [rows[name].to_pylist() for name in names]
    if "metrics_from" in table.names:
        columns.append(pc.fill_null(pc.equal(rows["metrics_from"], FROM_DETAIL), fill_value=False).to_pylist())
    contents = zip(*columns, strict=True)
    return zip(_keys(table, rows), contents, strict=True)


def _keys(table: schema.Table, rows: pa.Table) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in table.key), strict=True)
