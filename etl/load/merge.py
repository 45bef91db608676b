"""Replace the rows of re-exported executions within one part. Pure: tables in, table out.

A row whose content did not change keeps its old version, so that a part in which nothing changed is not written again.
"""

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import compress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema
from etl.model.lifecycle import ExportState
from etl.model.listed_execution import COUNT_COLUMNS

_VERSION_COLUMNS = {"export_run_id", "exported_at", "verified_at"}

_AGGREGATES = [
    *(column.name for column in schema.EXECUTIONS.columns if any(path[0] == "metrics" for path in column.paths)),
    "extra",
]
"""Columns of an execution that are empty when only its head is known."""

COLUMNS_OF_UNLISTED = ("unlisted_calls", "listed_calls", "export_state", *COUNT_COLUMNS)
"""Columns of an execution by which ``unlisted_calls`` is known."""

_SORT = {
    "executions": ["started_at", "execution_id"],
    "calls": ["execution_started_at", "execution_id", "call_execution_id"],
    "evals": ["execution_started_at", "execution_id", "call_execution_id", "eval_config_id"],
    "errors": ["execution_id", "endpoint", "subject_id"],
}

_MOST_SORTED_BYTES = 1 << 30
"""Arrow cannot bring more than 2 GiB of text of one column into another order. So much is one execution's, and all of one time."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """Whose rows are replaced in a part, and what is kept of the old ones. All are ids, of executions or of calls.

    Attributes:
        executions: All that are replaced.
        without_calls: Their calls were not listed: old calls and evals stay as they are.
        unproved: Their list of calls may miss some: what is stored of calls that it does not name stays.
        listed_calls: The calls that the lists name.
        failed_calls: Their metrics could not be fetched: the old rows of these calls stay. So do those of their evals, unless they
            are listed.
        kept_calls: Execution and call: listed there and not fetched, since nothing changed. Their old rows stay, and not those of
            their evals.
        doubtful: Nothing proves what became of the calls that their lists do not name: old dead letters of these stay.
        heads: Fetched without their aggregates: the old aggregates stay.
        verified: Take the new ``verified_at`` even if nothing else changed, and with it who wrote the row, and when.
        renewed: Their new execution rows replace the old ones even if they say the same: other rows of theirs changed, or when the
            old ones were written is unknown.
    """

    executions: Collection[str]
    without_calls: Collection[str] = ()
    unproved: Collection[str] = ()
    listed_calls: Collection[str] = ()
    failed_calls: Collection[str] = ()
    kept_calls: Collection[tuple[str, str]] = ()
    doubtful: Collection[str] = ()
    heads: Collection[str] = ()
    verified: Collection[str] = ()
    renewed: Collection[str] = ()

    def executions_of(self, table: schema.Table) -> Collection[str]:
        """The executions whose rows of this table are replaced."""
        return {*self.executions} - {*self.without_calls} if _is_of_calls(table) else self.executions

    def keeps(self, table: schema.Table, execution_id: str, call_execution_id: str) -> bool:
        """Whether an old row of calls, evals or errors stays though no new one has its key."""
        if table is schema.ERRORS:
            is_of_a_call = call_execution_id != execution_id
            return is_of_a_call and execution_id in self.doubtful and call_execution_id not in self.listed_calls
        is_failed = call_execution_id in self.failed_calls
        if table is schema.CALLS and (is_failed or (execution_id, call_execution_id) in self.kept_calls):
            return True
        return (is_failed or execution_id in self.unproved) and call_execution_id not in self.listed_calls


@dataclass(frozen=True, slots=True)
class Merged:
    """The part's rows after the merge, whether they differ from before, and how many of them are new or changed.

    ``removed`` rows have no successor. ``changed`` are the executions of which a row was replaced, added or removed.
    """

    table: pa.Table
    is_changed: bool
    arrived: int = 0
    removed: int = 0
    changed: AbstractSet[str] = frozenset()


def merge(table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement) -> Merged:
    """``old`` with the rows of the replaced executions exchanged for ``new``, which holds rows of these executions only.

    A dead letter goes when a replaced execution has the same. Rows come sorted by execution and key, unless they are very large.
    Keys are unique if they are in ``new``.
    """
    if not len(old) and not len(new):
        return Merged(old, is_changed=False)
    is_replaced = is_of(old, replacement.executions_of(table)).to_pylist()
    others, before = _where(old, [not each for each in is_replaced]), _where(old, is_replaced)
    after = before
    if table is schema.EXECUTIONS:
        new = _with_values_of(before, table, new, _AGGREGATES, replacement.heads)
        new = _with_unlisted_calls(before, new)
        # The other way round: an old row that stays takes the new time, and no new row replaces it for that.
        after = _with_values_of(new, table, before, sorted(_VERSION_COLUMNS), replacement.verified)
        before = before.filter(pc.invert(is_of(before, replacement.renewed)))
        after = after.filter(pc.invert(is_of(after, replacement.renewed)))
    if table is schema.ERRORS:
        # Two executions may list a call that fails: the one that was fetched last has its dead letter.
        theirs = set(_keys(table, new))
        others = _where(others, [key not in theirs for key in _keys(table, others)])
        new = _with_values_of(before, table, new, ["first_seen_at"], replacement.executions)
    is_kept, is_arriving = _compare(table, before, new, replacement)
    is_verified = after is not before and not after["verified_at"].equals(before["verified_at"])
    if all(is_kept) and not any(is_arriving) and not is_verified:
        return Merged(old, is_changed=False)
    merged = pa.concat_tables([others, _where(after, is_kept), _where(new, is_arriving)])
    if merged.nbytes < _MOST_SORTED_BYTES:
        merged = merged.sort_by([(name, "ascending") for name in _SORT[table.name]])
    is_gone = [not each for each in is_kept]
    gone = compress(before["execution_id"].to_pylist(), is_gone)
    changed = {*gone, *compress(new["execution_id"].to_pylist(), is_arriving)}
    removed = {*compress(_keys(table, before), is_gone)}.difference(_keys(table, new))
    return Merged(merged, is_changed=True, arrived=sum(is_arriving), removed=len(removed), changed=changed)


def _compare(
    table: schema.Table, old: pa.Table, new: pa.Table, replacement: Replacement
) -> tuple[list[bool], list[bool]]:
    """Which of the old rows stay, and which of the new ones replace an old one or are added."""
    new_contents = dict(_contents(table, new))
    kept: set[tuple[Any, ...]] = set()
    is_kept = []
    for (key, content), stays_if_missing in zip(
        _contents(table, old), _stays_if_missing(table, old, replacement), strict=True
    ):
        stays = new_contents[key] == content if key in new_contents else stays_if_missing
        is_kept.append(stays and key not in kept)  # a file that was edited by hand may hold a row twice
        if stays:
            kept.add(key)
    return is_kept, [key not in kept for key in new_contents]


def _stays_if_missing(table: schema.Table, old: pa.Table, replacement: Replacement) -> list[bool]:
    """Which of the old rows stay if no new row has their key."""
    if table is schema.EXECUTIONS:
        return [False] * len(old)
    subject = "subject_id" if table is schema.ERRORS else "call_execution_id"
    ids = zip(old["execution_id"].to_pylist(), old[subject].to_pylist(), strict=True)
    return [replacement.keeps(table, *each) for each in ids]


def once(table: schema.Table, rows: pa.Table) -> pa.Table:
    """The first row of each key."""
    seen: set[tuple[Any, ...]] = set()
    is_first = []
    for key in _keys(table, rows):
        is_first.append(key not in seen)
        seen.add(key)
    return _where(rows, is_first)


def is_of(rows: pa.Table, executions: Collection[str]) -> pa.ChunkedArray:
    """Which rows are of the executions."""
    return pc.is_in(rows["execution_id"], value_set=pa.array(list(executions), pa.string()))


def _where(rows: pa.Table, is_wanted: list[bool]) -> pa.Table:
    """The rows that are wanted; all of them are no copy, since the text of a part is large."""
    return rows if all(is_wanted) else rows.filter(pa.array(is_wanted, pa.bool_()))


def with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The rows with other values in one column."""
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type))


def _with_values_of(
    source: pa.Table, table: schema.Table, rows: pa.Table, names: Collection[str], executions: Collection[str]
) -> pa.Table:
    """The rows, those of the executions with what the row of the same key in ``source`` has in the columns."""
    if not executions:
        return rows
    ids = rows["execution_id"].to_pylist()
    for name in names:
        theirs = dict(zip(_keys(table, source), source[name].to_pylist(), strict=True))
        values = [
            theirs.get(key, own) if execution_id in executions else own
            for key, execution_id, own in zip(_keys(table, rows), ids, rows[name].to_pylist(), strict=True)
        ]
        rows = with_column(rows, name, values)
    return rows


def unlisted_calls(executions: pa.Table) -> list[int | None]:
    """How many calls the API counted in each and did not list; None where no list was believed.

    A row of an older version tells it by its counts, if its list was believed then.
    """
    found: list[int | None] = []
    columns = (executions[name].to_pylist() for name in COLUMNS_OF_UNLISTED)
    for number, listed, state, *counts in zip(*columns, strict=True):
        is_believed = listed is not None and state in (ExportState.EXPORTED, ExportState.SETTLING)
        older = max((each for each in counts if each is not None), default=-1) - listed if is_believed else -1
        found.append(older if number is None and older >= 0 else number)
    return found


def _with_unlisted_calls(old: pa.Table, new: pa.Table) -> pa.Table:
    """The new rows of executions, with the old ``unlisted_calls`` where nothing tells how many there are now.

    A new row tells by its column alone: it may be a moved one, whose list was never believed, whatever it counts.
    Fewer than before are believed only of an execution that says nothing new and lists no more: calls that come between its list
    and that of its calls are counted the next time.
    """
    told = zip(unlisted_calls(old), *(old[name].to_pylist() for name in ("listed_calls", "fingerprint")), strict=True)
    before = dict(zip(old["execution_id"].to_pylist(), told, strict=True))
    numbers = []
    columns = (new[name].to_pylist() for name in ("execution_id", "unlisted_calls", "listed_calls", "fingerprint"))
    for execution_id, number, *now in zip(*columns, strict=True):
        number_before, *as_before = before.get(execution_id, (None, *now))
        is_less = number is not None and number_before is not None and number < number_before
        is_told = number is not None and not (is_less and now != as_before)
        numbers.append(number if is_told else number_before)
    return with_column(new, "unlisted_calls", numbers)


def _contents(table: schema.Table, rows: pa.Table) -> Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Key and content of each row; two rows of equal content say the same of the source."""
    names = [name for name in table.names if name not in _VERSION_COLUMNS]
    if "row_hash" in names:
        names = ["row_hash", "raw"] if "raw" in names else ["row_hash"]  # the hash covers all but raw
    contents = zip(*(rows[name].to_pylist() for name in names), strict=True)
    return zip(_keys(table, rows), contents, strict=True)


def _keys(table: schema.Table, rows: pa.Table) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in table.key), strict=True)


def _is_of_calls(table: schema.Table) -> bool:
    return "call_execution_id" in table.key
