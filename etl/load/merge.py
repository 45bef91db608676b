"""Replace the rows of re-exported executions within one partition. Pure: tables in, table out.

A row whose content is what the partition already holds keeps its old version, so that a partition in which nothing changed
is not written again.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema

_VERSION_COLUMNS = {"export_run_id", "exported_at", "verified_at"}
_CARRIED = {"errors": ["first_seen_at"]}
"""Columns whose value a row inherits from the version that it replaces."""

_AGGREGATES = [
    *(column.name for column in schema.EXECUTIONS.columns if any(path[0] == "metrics" for path in column.paths)),
    "extra",
]
"""Columns of an execution that its head does not tell."""

_SORT = {
    "executions": ["started_at", "execution_id"],
    "calls": ["execution_started_at", "execution_id", "call_execution_id"],
    "evals": ["execution_started_at", "execution_id", "call_execution_id", "eval_config_id"],
    "errors": ["execution_id", "endpoint", "subject_id"],
}


@dataclass(frozen=True, slots=True)
class Merged:
    """The partition's rows after the merge, whether they differ from before, and how many of them are new or changed."""

    table: pa.Table
    is_changed: bool
    arrived: int = 0


def merge(
    table: schema.Table,
    old: pa.Table,
    new: pa.Table,
    *,
    replaced: Collection[str],
    kept_calls: Collection[str] = (),
    heads: Collection[str] = (),
    verified: Collection[str] = (),
) -> Merged:
    """``old`` with all rows of the ``replaced`` executions exchanged for those of ``new``.

    Old rows of ``kept_calls`` (call_execution_id) stay when ``new`` has none for them: their new values could not be had.
    Execution rows of ``heads`` keep their old aggregates, for the same reason. Those of ``verified`` take the new
    ``verified_at`` even if nothing else changed.
    Rows come sorted by execution and key; keys stay unique as long as ``new`` holds each once, and rows of ``replaced`` executions
    only.
    """
    if not len(old):
        return Merged(new.sort_by(_order(table)) if len(new) else old, is_changed=len(new) > 0, arrived=len(new))
    is_replaced = is_of(old, replaced)
    stays, goes = old.filter(pc.invert(is_replaced)), old.filter(is_replaced)
    new = _carry(table, goes, new)
    new = _carry_aggregates(goes, new, heads) if heads else new
    goes_verified = _verified(goes, new, verified) if verified else goes
    old_contents = list(_contents(table, goes))
    new_contents = dict(_contents(table, new))
    unchanged: set[tuple[Any, ...]] = set()
    retained = []
    for key, content in old_contents:
        is_kept = new_contents[key] == content if key in new_contents else _call(table, key) in kept_calls
        # A row that stands twice, by whoever's hand, stays once.
        retained.append(is_kept and key not in unchanged)
        if is_kept:
            unchanged.add(key)
    arriving = [key not in unchanged for key in new_contents]
    if all(retained) and not any(arriving) and goes_verified is goes:
        return Merged(old, is_changed=False)
    parts = [stays, goes_verified.filter(pa.array(retained, pa.bool_())), new.filter(pa.array(arriving, pa.bool_()))]
    merged = pa.concat_tables(parts).sort_by(_order(table))
    return Merged(merged, is_changed=True, arrived=sum(arriving))


def _order(table: schema.Table) -> list[tuple[str, str]]:
    return [(name, "ascending") for name in _SORT[table.name]]


def once(table: schema.Table, rows: pa.Table) -> pa.Table:
    """The rows without those whose key came before, by whoever's hand."""
    seen: set[tuple[Any, ...]] = set()
    is_first = []
    for key in _keys(table, rows):
        is_first.append(key not in seen)
        seen.add(key)
    return rows.filter(pa.array(is_first, pa.bool_()))


def is_of(rows: pa.Table, executions: Collection[str]) -> pa.ChunkedArray:
    """Which rows are of the executions."""
    return pc.is_in(rows["execution_id"], value_set=pa.array(list(executions), pa.string()))


def _contents(table: schema.Table, rows: pa.Table) -> Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Key and content of each row; two rows of equal content say the same of the source."""
    names = [name for name in table.names if name not in _VERSION_COLUMNS]
    if "row_hash" in names:
        names = [name for name in names if name in {"row_hash", "raw"}]
    contents = zip(*(rows[name].to_pylist() for name in names), strict=True)
    return zip(_keys(table, rows), contents, strict=True)


def _carry(table: schema.Table, old: pa.Table, new: pa.Table) -> pa.Table:
    for name in _CARRIED.get(table.name, []):
        inherited = dict(zip(_keys(table, old), old[name].to_pylist(), strict=True))
        values = [inherited.get(key, own) for key, own in zip(_keys(table, new), new[name].to_pylist(), strict=True)]
        new = with_column(new, name, values)
    return new


def _carry_aggregates(old: pa.Table, new: pa.Table, heads: Collection[str]) -> pa.Table:
    ids = new["execution_id"].to_pylist()
    for name in _AGGREGATES:
        before = dict(zip(old["execution_id"].to_pylist(), old[name].to_pylist(), strict=True))
        values = [
            before.get(execution_id, own) if execution_id in heads else own
            for execution_id, own in zip(ids, new[name].to_pylist(), strict=True)
        ]
        new = with_column(new, name, values)
    return new


def _verified(old: pa.Table, new: pa.Table, verified: Collection[str]) -> pa.Table:
    now = dict(zip(new["execution_id"].to_pylist(), new["verified_at"].to_pylist(), strict=True))
    before = list(zip(old["execution_id"].to_pylist(), old["verified_at"].to_pylist(), strict=True))
    after = [now.get(execution_id, at) if execution_id in verified else at for execution_id, at in before]
    return old if after == [at for _, at in before] else with_column(old, "verified_at", after)


def with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The rows with other values in one column."""
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type))


def _keys(table: schema.Table, rows: pa.Table) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in table.key), strict=True)


def _call(table: schema.Table, key: tuple[Any, ...]) -> Any:
    return key[table.key.index("call_execution_id")] if "call_execution_id" in table.key else None
