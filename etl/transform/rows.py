"""Make one row of a table from one payload. Pure.

The payload is traversed once, together with a tree of the paths that the schema declares. A value that fits its column
exactly goes there. Everything else (unknown fields, values that do not fit) goes to ``extra``, nested as received. So
nothing is lost, and no payload changes the type of a column.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etl.model import schema
from etl.model.values import MISFIT, Coercer, coercer_of, json_text, to_float

Path = tuple[str, ...]
"""Where a value is in a payload: the names of the fields that lead to it."""


class RowMaker:
    """Makes rows of one table: lists of values in the order of its columns. ``MAKERS`` has the one of each table."""

    def __init__(self, table: schema.Table) -> None:
        self._index = {name: index for index, name in enumerate(table.names)}
        self._extra = self._index.get("extra")
        self._tree = _build_tree(table)

    def make(self, payload: dict[str, Any], given: Mapping[str, Any]) -> tuple[list[Any], int]:
        """The row of a payload, and how many of the payload's values did not fit their columns.

        ``given`` holds, by column, the values that are not from the payload. A column that neither has is null.
        """
        row: list[Any] = [None] * len(self._index)
        for name, value in given.items():
            row[self._index[name]] = value
        extra, misfits = _fill(payload, self._tree, row)
        if extra and self._extra is not None:
            row[self._extra] = json_text(extra)
        return row, misfits


_Leaf = tuple[int, Coercer, tuple[tuple[int, Coercer], ...]]
"""A value of the payload: place and coercer of its column; and of each further one, as the outputs of evals have them.

The first column whose coercer accepts the value takes it.
"""


@dataclass(slots=True)
class _Node:
    """An object of the payload."""

    leaves: dict[str, _Leaf] = field(default_factory=dict)
    """Its declared values, by name."""
    objects: "dict[str, _Node]" = field(default_factory=dict)
    """Its declared objects, by name."""
    alternatives: tuple[str, ...] = ()
    """Names of the same field, the preferred one first; an object may have it under each of them."""


def _fill(payload: dict[str, Any], node: _Node, row: list[Any]) -> tuple[dict[str, Any], int]:
    """Fill ``row`` from ``payload``; return what no column took, nested as received, and how much of it did not fit."""
    extra: dict[str, Any] = {}
    misfits = 0
    leaves, objects = node.leaves, node.objects
    in_order = _preferred_first(payload, node.alternatives) if node.alternatives else payload
    for name, value in in_order.items():
        if leaf := leaves.get(name):
            if value is None:
                continue
            # Nearly every value fits the first column, which is still empty: this case is inline to save a function
            # call.
            index, coercer, _ = leaf
            fitted = coercer(value)
            if fitted is not MISFIT and row[index] is None:
                row[index] = fitted
            elif not _fits_elsewhere(value, fitted, leaf, row):
                extra[name] = value
                misfits += 1
        elif name not in objects:
            extra[name] = value
        elif isinstance(value, dict):
            nested, count = _fill(value, objects[name], row)
            misfits += count
            if nested:
                extra[name] = nested
        elif value is not None:
            extra[name] = value
            misfits += 1
    return extra, misfits


def _preferred_first(payload: dict[str, Any], alternatives: Sequence[str]) -> dict[str, Any]:
    """The payload; if it has a field under several names, the preferred one comes first, and so takes the column."""
    present = [name for name in alternatives if name in payload]
    return {name: payload[name] for name in present} | payload if len(present) > 1 else payload


def _fits_elsewhere(value: Any, fitted: Any, leaf: _Leaf, row: list[Any]) -> bool:
    """Whether the first column already holds the value, as ``fitted``, or another column takes it."""
    first, _, others = leaf
    if fitted is not MISFIT:
        # It was sent under two names. The second value goes to extra if it differs.
        return bool(row[first] == fitted)
    for index, coercer in others:
        fitted = coercer(value)
        if fitted is not MISFIT:
            if row[index] is None:
                row[index] = fitted
            return bool(row[index] == fitted)
    return False


def _score(value: Any) -> Any:
    """The score in the output of an eval: a number. A text with digits stays text, since it may be a choice."""
    return MISFIT if type(value) is str else to_float(value)


def _build_tree(table: schema.Table) -> _Node:
    """The declared paths of the table's payloads, with the columns at their ends."""
    tree = _Node()
    targets: dict[Path, list[tuple[int, Coercer]]] = {}
    if table is schema.CALLS:
        # Eval outputs that have no row in the evals table are misfits of the call.
        targets["call_results", "eval_outputs"] = [(0, lambda _: MISFIT)]
    for index, column in enumerate(table.columns):
        coercer = _score if column.name == "output_score" else coercer_of(column)
        for path in column.paths:
            targets.setdefault(path, []).append((index, coercer))
    for path, (first, *others) in targets.items():
        _node_of(tree, path[:-1]).leaves[path[-1]] = (*first, tuple(others))
    for paths in (column.paths for column in table.columns if len(column.paths) > 1):
        fork = next(depth for depth, steps in enumerate(zip(*paths, strict=False)) if len(set(steps)) > 1)
        _node_of(tree, paths[0][:fork]).alternatives = tuple(path[fork] for path in paths)
    return tree


def _node_of(tree: _Node, steps: Iterable[str]) -> _Node:
    """The node at this path, made if it is missing."""
    for step in steps:
        tree = tree.objects.setdefault(step, _Node())
    return tree


MAKERS = {name: RowMaker(table) for name, table in schema.TABLES.items()}
"""By table name, what makes its rows."""
