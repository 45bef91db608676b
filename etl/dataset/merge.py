"""Replace the rows of re-exported executions in one part, and mark what the source no longer has.

Pure: tables in, table out. A row whose content did not change is kept as it is, so that a part in which nothing changed
is not written again. No row of an execution, call or eval is ever removed: if it is not replaced it stays, and gets a
``deleted_at`` if the source is known not to have it any more. Dead letters are removed once they are resolved.
"""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema
from etl.model.arrow import is_of, where, with_values
from etl.model.records import DETAIL, FROM_LISTS, FROM_METRICS
from etl.model.values import arrow_array, python_values
from etl.transform.row_hash import ROW_HASH, hash_rows

_VERSION_COLUMNS = {"export_run_id", "exported_at", "verified_at"}
"""Columns that say when and by which run a row was written, and nothing of its content."""

_AGGREGATES = [each.name for each in schema.EXECUTIONS.columns if any(path[0] == "metrics" for path in each.paths)]
"""Columns of an execution that are null if only its head could be fetched; ``extra`` may be, too."""

_SORT = {
    "executions": ["started_at", "execution_id"],
    "calls": ["execution_started_at", "execution_id", "call_execution_id"],
    "evals": ["execution_started_at", "execution_id", "call_execution_id", "eval_config_id"],
    "errors": ["execution_id", "endpoint", "subject_id"],
}
"""The order of the rows in a part."""

_MOST_SORTED_BYTES = 1 << 30
"""A larger part is not sorted: Arrow cannot sort more than 2 GiB of text in one column.

Only a single huge execution makes a part that large.
"""

_Pair = tuple[str, str]
"""The ids of an execution and of one of its calls."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """Which executions' rows are replaced in a part, and what is known of the old rows that no new one replaces."""

    executions: Collection[str]
    """All executions whose rows are replaced; the other fields name some of these."""
    without_calls: Collection[str] = ()
    """Their calls were not listed: their old calls and evals stay as they are."""
    listed_calls: Collection[_Pair] = ()
    """Calls that a list names: they exist, and have no other evals than the new rows."""
    deleted_calls: Collection[_Pair] = ()
    """Calls that the source no longer has."""
    unproved: Collection[str] = ()
    """Their lists are not proved: a call that is not named may exist, so that old dead letters about it stay."""
    heads: Collection[str] = ()
    """They were fetched without their aggregates: the old aggregates stay."""
    verified: Collection[str] = ()
    """If nothing else changed, their old execution rows still take the new ``verified_at``, with run and time."""
    restamped: Collection[str] = ()
    """They are not whole yet: each new row of a call replaces the old one, so that it says when it was fetched."""
    renewed: Collection[str] = ()
    """Their execution rows are replaced in any case: calls or evals changed, or the old row has no ``exported_at``."""
    stamp: Mapping[str, Any] = field(default_factory=dict)
    """The columns ``export_run_id`` and ``exported_at`` of rows that are marked or unmarked now."""

    def executions_of(self, table: schema.Table) -> Collection[str]:
        """The executions whose rows of this table are replaced."""
        return {*self.executions} - {*self.without_calls} if table in schema.OF_CALLS else self.executions

    def keeps_letter(self, execution_id: str, endpoint: str, subject_id: str) -> bool:
        """Whether an old dead letter stays if no new one has its key: its call may exist, and no list named it.

        Those of the detail come anew with each bundle.
        """
        is_unlisted = (execution_id, subject_id) not in self.listed_calls
        is_of_call = subject_id != execution_id and endpoint != DETAIL
        return is_of_call and execution_id in self.unproved and is_unlisted

    def is_deleted(self, table: schema.Table, call: _Pair, *, was_deleted: bool) -> bool:
        """Whether an old row is marked from now on, given that no new row has its key.

        A call that the source no longer has is marked, with its evals. If a list names the call, its row is unmarked,
        and an old eval is marked: the call's entry no longer has it. Otherwise the mark stays as it was.
        """
        if call in self.deleted_calls:
            return True
        if call in self.listed_calls:
            return table is schema.EVALS
        return was_deleted


@dataclass(frozen=True, slots=True)
class Merged:
    """The rows of a part after a merge or after marking."""

    table: pa.Table
    """All rows of the part."""
    own: pa.Table
    """The rows of the executions that were replaced or marked, unsorted; calls and evals may have a ``row_hash``.

    Dead letters that ``mark`` removes do not count.
    """
    is_changed: bool
    """Whether ``table`` differs from what the part held before."""
    arrived: int = 0
    """How many rows were added, replaced or unmarked."""
    marked: int = 0
    """How many rows got a ``deleted_at``."""
    changed: AbstractSet[str] = frozenset()
    """The executions of which a row was added, replaced, marked or unmarked."""


def merge(table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement) -> Merged:
    """Merge ``new`` into the part: replace rows whose content changed, and keep the others.

    Old rows that no new one replaces are marked or unmarked as ``replacement`` says. ``new`` has rows of the replaced
    executions only, and its keys are unique. The result is sorted as in ``_SORT``, unless the part is very large.
    """
    is_replaced = is_of(old, replacement.executions_of(table))
    others = where(old, pc.invert(is_replaced))
    before = where(old, is_replaced)
    if table in schema.OF_CALLS:
        before = _with_hashes(table, before)
        new = _with_hashes(table, new)
    after = before  # row for row the same as before, but for a newer time of what was verified
    is_verified = False
    if table is schema.EXECUTIONS:
        new = with_values(new, _values(before, [*_AGGREGATES, "extra"], replacement.heads))
        described = [column.name for column in schema.DESCRIBED]
        new = with_values(new, _values(before, described, before["execution_id"].to_pylist()))
        before = before.filter(pc.invert(is_of(before, replacement.renewed)))
        # A newer time alone makes no new row: the old row takes over the time.
        after = with_values(before, _values(new, _VERSION_COLUMNS, replacement.verified))
        is_verified = not after["verified_at"].equals(before["verified_at"])
    if table is schema.ERRORS:
        seen_at = dict(zip(_keys(table, before), python_values(before["first_seen_at"]), strict=True))
        new = with_values(new, {"first_seen_at": seen_at}, [*_keys(table, new)])
    is_kept, is_arriving = _compare(table, before, new, replacement)
    marks = _marks(table, before, new, replacement) if table in schema.OF_CALLS else {}
    if all(is_kept) and not (any(is_arriving) or marks or is_verified):
        return Merged(old, before, is_changed=False)
    own = pa.concat_tables([where(_with_marks(after, marks, replacement.stamp), is_kept), where(new, is_arriving)])
    merged = pa.concat_tables([others, own.select(table.names)])
    if merged.nbytes < _MOST_SORTED_BYTES:
        merged = _sorted(table, merged)
    ids = before["execution_id"].to_pylist()
    replaced = compress(ids, [not stays for stays in is_kept])
    changed = {*replaced, *compress(new["execution_id"].to_pylist(), is_arriving), *(ids[index] for index in marks)}
    marked = sum(marks.values())
    arrived = sum(is_arriving) + len(marks) - marked
    return Merged(merged, own, is_changed=True, arrived=arrived, marked=marked, changed=changed)


def mark(table: schema.Table, rows: pa.Table, executions: Collection[str], stamp: Mapping[str, Any]) -> Merged:
    """The rows of a part, with those of the executions marked as deleted; their dead letters are removed.

    ``stamp`` has the columns ``export_run_id`` and ``exported_at``; the latter is the ``deleted_at``, too.
    """
    is_theirs = is_of(rows, executions)
    if table is schema.ERRORS:
        remaining = where(rows, pc.invert(is_theirs))
        return Merged(remaining, table.no_rows, is_changed=len(remaining) < len(rows))
    is_new = pc.and_(is_theirs, rows["deleted_at"].is_null())
    marks = dict.fromkeys(compress(range(len(rows)), is_new.to_pylist()), True)
    changed = {*rows.filter(is_new)["execution_id"].to_pylist()}
    rows = _with_marks(rows, marks, stamp)
    return Merged(rows, where(rows, is_theirs), is_changed=bool(marks), marked=len(marks), changed=changed)


def _with_hashes(table: schema.Table, rows: pa.Table) -> pa.Table:
    return rows.append_column(ROW_HASH, arrow_array(hash_rows(table, rows), pa.string()))


def _with_marks(rows: pa.Table, marks: Mapping[int, bool], stamp: Mapping[str, Any]) -> pa.Table:
    """The rows, of which those at these positions are marked (True) or unmarked (False) by this export."""
    if not marks:
        return rows
    deleted = {index: stamp["exported_at"] if is_deleted else None for index, is_deleted in marks.items()}
    columns = {"deleted_at": deleted} | {name: dict.fromkeys(marks, value) for name, value in stamp.items()}
    return with_values(rows, columns, keys=range(len(rows)))


def _compare(
    table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement
) -> tuple[list[bool], list[bool]]:
    """Which of the old rows stay as they are, and which of the new ones replace an old one or are added."""
    if not len(old):
        return [], [True] * len(new)
    new_contents = dict(_contents(table, new))
    if table is schema.CALLS and replacement.restamped:
        # () equals the content of no row, so these always replace the old row.
        restamped = compress(_keys(table, new), is_of(new, replacement.restamped).to_pylist())
        new_contents |= dict.fromkeys(restamped, ())
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
    """Which of the old rows stay if no new row has their key.

    Calls and evals always do, executions never (each replaced execution brings a new row).
    """
    if table is not schema.ERRORS:
        return [table in schema.OF_CALLS] * len(old)
    keys = (old[name].to_pylist() for name in ("execution_id", "endpoint", "subject_id"))
    return list(map(replacement.keeps_letter, *keys))


def _marks(table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement) -> dict[int, bool]:
    """The positions of old rows without a new one that are marked from now on (True) or no longer (False)."""
    new_keys = {*_keys(table, new)}
    calls = zip(old["execution_id"].to_pylist(), old["call_execution_id"].to_pylist(), strict=True)
    were_deleted = old["deleted_at"].is_valid().to_pylist()
    marks = {}
    for index, (key, call, was_deleted) in enumerate(zip(_keys(table, old), calls, were_deleted, strict=True)):
        is_deleted = replacement.is_deleted(table, call, was_deleted=was_deleted)
        if key not in new_keys and is_deleted != was_deleted:
            marks[index] = is_deleted
    return marks


def _sorted(table: schema.Table, rows: pa.Table) -> pa.Table:
    """The rows in order. The first ones are not copied as far as they are in it: what is new mostly comes last."""
    order = pc.sort_indices(rows, [(name, "ascending") for name in _SORT[table.name]])
    moved = np.flatnonzero(np.from_dlpack(order) != np.arange(len(rows)))
    first = moved[0] if len(moved) else len(rows)
    return pa.concat_tables([rows.slice(0, first), rows.take(order.slice(first))])


def _values(rows: pa.Table, names: Iterable[str], executions: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the rows of these executions have in these columns, by column and execution_id."""
    rows = rows.filter(is_of(rows, executions))
    ids = rows["execution_id"].to_pylist()
    return {name: dict(zip(ids, python_values(rows[name]), strict=True)) for name in names}


def _contents(table: schema.Table, rows: pa.Table) -> Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """The key and the content of each row; two rows with equal contents say the same about the source."""
    names = [name for name in table.names if name not in _VERSION_COLUMNS]
    if table in schema.OF_CALLS:
        # The hash leaves out deleted_at, raw and metrics_from, so these are compared next to it.
        names = [ROW_HASH, *(name for name in ("deleted_at", "raw") if name in names)]
    columns = [python_values(rows[name]) for name in names]
    if "metrics_from" in table.names:
        # Metrics of another source replace a row even if all values agree, but for two that are exact. An older version
        # wrote null.
        alike = {None: FROM_METRICS, FROM_LISTS: FROM_METRICS}
        columns.append([alike.get(each, each) for each in rows["metrics_from"].to_pylist()])
    return zip(_keys(table, rows), zip(*columns, strict=True), strict=True)


def _keys(table: schema.Table, rows: pa.Table) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in table.key), strict=True)
