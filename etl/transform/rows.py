"""One payload → one row of a table. Pure.

Every payload is walked once, beside a tree of the paths that the schema declares. A value goes to its column when it
fits exactly; everything else (unknown fields, values that do not fit) stays in ``extra``, nested as it came. So nothing
is lost, nothing collides, and no column changes its type because of a payload.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from etl.model import schema
from etl.model.digest import row_hasher
from etl.model.values import MISFIT, coercer_of, json_text, to_float

_NOT_HASHED = {"raw", "row_hash", "export_run_id", "exported_at"}
"""A row's hash is made of what the source says, not of which export brought it."""


class RowMaker:
    """Makes rows of one table: lists of values in the order of its columns; ``hash`` is that of such a row."""

    def __init__(self, table: schema.Table) -> None:
        self._width = len(table.names)
        self._index = {name: index for index, name in enumerate(table.names)}
        self._extra = self._index.get("extra")
        self._row_hash = self._index.get("row_hash")
        self.hash = row_hasher(table.names, [name for name in table.names if name not in _NOT_HASHED])
        self._tree = _build_tree(table)

    def make(self, payload: dict[str, Any], given: Mapping[str, Any]) -> tuple[list[Any], int]:
        """The row of the payload and of what is ``given`` by column, and how many of the payload's values did not fit theirs."""
        row: list[Any] = [None] * self._width
        for name, value in given.items():
            row[self._index[name]] = value
        extra, misfits = _walk(payload, self._tree, row)
        if extra and self._extra is not None:
            row[self._extra] = json_text(extra)
        if self._row_hash is not None:
            row[self._row_hash] = self.hash(row)
        return row, misfits


@dataclass(frozen=True, slots=True)
class _Leaf:
    """Where a payload value goes: each column may take it, in order; the first whose coercer accepts it does."""

    index: int
    coercer: Callable[[Any], Any]
    others: tuple[tuple[int, Callable[[Any], Any]], ...] = ()


@dataclass(slots=True)
class _Node:
    """An object of the payload: what becomes of its fields. Of ``rivals``, fields for the same columns, the first counts."""

    fields: "dict[str, _Leaf | _Node]"
    rivals: tuple[str, ...] = ()


def _walk(payload: dict[str, Any], node: _Node, row: list[Any]) -> tuple[dict[str, Any], int]:
    """Fill ``row`` from ``payload``; return what no column took, nested as it came, and how much of it was a misfit."""
    extra: dict[str, Any] = {}
    misfits = 0
    fields = node.fields
    if node.rivals and len(present := [name for name in node.rivals if name in payload]) > 1:
        payload = {name: payload[name] for name in present} | payload
    for name, value in payload.items():
        field = fields.get(name)
        if field is None:
            extra[name] = value
        elif value is None:
            continue
        elif field.__class__ is _Leaf:
            # Nearly every value fits the first column, which is free: not worth a call.
            fitted = field.coercer(value)
            if fitted is not MISFIT and row[field.index] is None:
                row[field.index] = fitted
            elif not _place(value, fitted, field, row):
                extra[name] = value
                misfits += 1
        elif isinstance(value, dict):
            nested, count = _walk(value, field, row)  # type: ignore[arg-type]
            misfits += count
            if nested:
                extra[name] = nested
        else:
            extra[name] = value
            misfits += 1
    return extra, misfits


def _place(value: Any, fitted: Any, leaf: _Leaf, row: list[Any]) -> bool:
    """Whether the value, ``fitted`` to the first column, stands there already or fits another."""
    if fitted is not MISFIT:
        return bool(row[leaf.index] == fitted)  # both spellings sent: the second is kept in extra when it differs
    for index, coercer in leaf.others:
        fitted = coercer(value)
        if fitted is not MISFIT:
            if row[index] is None:
                row[index] = fitted
            return bool(row[index] == fitted)
    return False


def _score(value: Any) -> Any:
    """A number; a numeric string stays text, since choices may read like numbers."""
    return MISFIT if type(value) is str else to_float(value)


def _build_tree(table: schema.Table) -> _Node:
    tree = _Node({})
    targets: dict[tuple[str, ...], list[tuple[int, Callable[[Any], Any]]]] = {}
    if table is schema.CALLS:
        # The call is told what the evals table has no place for.
        targets["call_results", "eval_outputs"] = [(0, lambda _: MISFIT)]
    for index, column in enumerate(table.columns):
        coercer = _score if column.name == "output_score" else coercer_of(column)
        for path in column.paths:
            targets.setdefault(path, []).append((index, coercer))
    for path, found in targets.items():
        _node_of(tree, path[:-1]).fields[path[-1]] = _Leaf(*found[0], tuple(found[1:]))
    for paths in (column.paths for column in table.columns if len(column.paths) > 1):
        fork = next(depth for depth, steps in enumerate(zip(*paths, strict=False)) if len(set(steps)) > 1)
        _node_of(tree, paths[0][:fork]).rivals = tuple(path[fork] for path in paths)
    return tree


def _node_of(tree: _Node, steps: Iterable[str]) -> _Node:
    node: Any = tree
    for step in steps:
        node = node.fields.setdefault(step, _Node({}))
    return node  # type: ignore[no-any-return]


MAKERS = {name: RowMaker(table) for name, table in schema.TABLES.items()}
"""One for each table, by name."""
