"""Execution bundles → pandas frames with exactly the declared columns. Pure.

Every payload is walked once, beside a tree of the paths that the schema declares. A value goes to its column when it
fits exactly; everything else (unknown fields, values that do not fit) stays in ``extra``, nested as it came. So nothing
is lost, nothing collides, and no column changes its type because of a payload.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import pandas as pd
import pyarrow as pa

from etl.api.models import ExecutionBundle, FetchedCall, ListedCall
from etl.errors import SchemaError
from etl.tables import coerce, schema
from etl.tables.digest import fingerprint, row_hash

_NOT_HASHED = {"raw", "row_hash", "export_run_id", "exported_at"}


@dataclass(frozen=True, slots=True)
class Export:
    """What all rows of one export run share."""

    export_run_id: str
    exported_at: datetime
    include_raw: bool = False


@dataclass(frozen=True, slots=True)
class HeldRows:
    """What the dataset holds of one execution: numbers of calls, and the digest over its rows."""

    listed_calls: int | None
    exported_calls: int
    calls_digest: str


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows of one table, and how many of their values did not fit their column."""

    data: pd.DataFrame
    misfits: int


def executions_frame(
    bundles: Sequence[ExecutionBundle],
    held: Mapping[str, HeldRows],
    states: Mapping[str, str],
    verified_at: Mapping[str, datetime | None],
    export: Export,
) -> Frame:
    """One row per execution, with exactly the columns of ``schema.EXECUTIONS``.

    ``held``, ``states`` and ``verified_at`` are by execution_id; times are aware UTC.

    Raises:
        SchemaError: two bundles are of the same execution.

    Source: GET /sdk/api/v1/simulation/metrics/?run_test_name=…
    """
    rows = _Rows(schema.EXECUTIONS)
    for bundle in bundles:
        execution_id = bundle.execution.execution_id
        holds = held[execution_id]
        rows.add(
            bundle.execution.payload,
            {
                "execution_id": execution_id,
                "run_test_name": bundle.run_test_name,
                "raw": _raw(bundle.execution.payload, export),
                "listed_calls": holds.listed_calls,
                "exported_calls": holds.exported_calls,
                "export_state": states[execution_id],
                "fingerprint": fingerprint(bundle.execution.payload),
                "calls_digest": holds.calls_digest,
                "verified_at": verified_at[execution_id],
                "export_run_id": export.export_run_id,
                "exported_at": export.exported_at,
            },
        )
    return rows.frame()


def calls_frame(bundles: Iterable[ExecutionBundle], export: Export) -> Frame:
    """One row per call, with exactly the columns of ``schema.CALLS``.

    A metric that the API left out or null stays null: a zero would drag every average down.

    Raises:
        SchemaError: two bundles hold the same ``call_execution_id``.

    Source: GET /sdk/api/v1/simulation/metrics/?call_execution_id=…
    """
    rows = _Rows(schema.CALLS)
    for bundle in bundles:
        started_at = _started_at(bundle)
        for call in bundle.calls:
            rows.add(
                _call_payload(call),
                {
                    "call_execution_id": call.metrics.call_execution_id,
                    "run_test_name": bundle.run_test_name,
                    "execution_started_at": started_at,
                    "raw": _raw(call.metrics.payload, export),
                    "export_run_id": export.export_run_id,
                    "exported_at": export.exported_at,
                },
            )
    return rows.frame()


def evals_frame(bundles: Iterable[ExecutionBundle], export: Export) -> Frame:
    """One row per eval output of a call, with exactly the columns of ``schema.EVALS``.

    Raises:
        SchemaError: two bundles hold the same call.

    Source: GET /sdk/api/v1/simulation/runs/?execution_id=…
    """
    rows = _Rows(schema.EVALS)
    for bundle in bundles:
        started_at = _started_at(bundle)
        for listed in bundle.listed or ():
            for eval_config_id, value in _eval_outputs(listed).items():
                output = value if isinstance(value, dict) else {"output": value}
                rows.add(
                    output,
                    {
                        "call_execution_id": listed.call_execution_id,
                        "eval_config_id": eval_config_id,
                        "run_test_name": bundle.run_test_name,
                        "execution_id": bundle.execution.execution_id,
                        "execution_started_at": started_at,
                        "output_passed": _verdict(output),
                        "export_run_id": export.export_run_id,
                        "exported_at": export.exported_at,
                    },
                )
    return rows.frame()


def errors_frame(bundles: Iterable[ExecutionBundle], export: Export) -> Frame:
    """One row per dead letter, with exactly the columns of ``schema.ERRORS``; ``first_seen_at`` as if it were new."""
    rows = _Rows(schema.ERRORS)
    for bundle in bundles:
        for letter in bundle.dead_letters:
            rows.add(
                {},
                {
                    "endpoint": letter.endpoint,
                    "subject_id": letter.subject_id,
                    "execution_id": bundle.execution.execution_id,
                    "run_test_name": bundle.run_test_name,
                    "status": letter.status,
                    "message": letter.message,
                    "excerpt": letter.excerpt,
                    "tries": letter.tries,
                    "first_seen_at": export.exported_at,
                    "last_seen_at": export.exported_at,
                    "export_run_id": export.export_run_id,
                },
            )
    return rows.frame()


def frame_of(table: schema.Table, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows that the exporter made itself, as a frame with the table's declared columns and dtypes."""
    collected = _Rows(table)
    for row in rows:
        collected.add({}, row)
    return collected.frame().data


def hash_rows(table: schema.Table, rows: pa.Table) -> list[str]:
    """The row hash that each of the rows should have."""
    names = [name for name in table.names if name not in _NOT_HASHED]
    return [row_hash(names, [row[name] for name in names]) for row in rows.to_pylist()]


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """The table as a frame with pyarrow-backed dtypes: null stays null, and whole numbers stay whole."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def to_arrow(frame: pd.DataFrame, table: schema.Table) -> pa.Table:
    """The frame as an Arrow table of the declared schema."""
    arrays = [pa.Array.from_pandas(frame[column.name], type=column.type) for column in table.columns]
    return pa.Table.from_arrays([_one_chunk(array) for array in arrays], schema=table.arrow_schema)


def _one_chunk(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


class _Rows:
    """Rows of one table under construction; the key stays unique."""

    def __init__(self, table: schema.Table) -> None:
        self._table = table
        self._rows: list[list[Any]] = []
        self._keys: set[tuple[Any, ...]] = set()
        self._misfits = 0
        self._index = {name: index for index, name in enumerate(table.names)}
        self._key = itemgetter(*(self._index[name] for name in table.key))
        self._extra = self._index.get("extra")
        self._row_hash = self._index.get("row_hash")
        self._hashed_names = [name for name in table.names if name not in _NOT_HASHED]
        self._hashed = itemgetter(*(self._index[name] for name in self._hashed_names))
        self._tree = _TREES[table.name]

    def add(self, payload: dict[str, Any], given: Mapping[str, Any]) -> None:
        row: list[Any] = [None] * len(self._table.names)
        for name, value in given.items():
            row[self._index[name]] = value
        extra, misfits = _walk(payload, self._tree, row)
        self._misfits += misfits
        if extra and self._extra is not None:
            row[self._extra] = coerce.json_text(extra)
        if self._row_hash is not None:
            row[self._row_hash] = row_hash(self._hashed_names, self._hashed(row))
        key = self._key(row)
        if key in self._keys:
            raise SchemaError(f"{self._table.name}: two rows with the key {key}")
        self._keys.add(key)
        self._rows.append(row)

    def frame(self) -> Frame:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._table.names)
        arrays = [pa.array(values, column.type) for values, column in zip(columns, self._table.columns, strict=True)]
        return Frame(to_pandas(pa.Table.from_arrays(arrays, schema=self._table.arrow_schema)), self._misfits)


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
            if fitted is not coerce.MISFIT and row[field.index] is None:
                row[field.index] = fitted
            elif not _place(value, field, row):
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


def _place(value: Any, leaf: _Leaf, row: list[Any]) -> bool:
    for index, coercer in ((leaf.index, leaf.coercer), *leaf.others):
        fitted = coercer(value)
        if fitted is coerce.MISFIT:
            continue
        if row[index] is None:
            row[index] = fitted
            return True
        return bool(row[index] == fitted)  # both spellings sent: the second is kept in extra when it differs
    return False


def _verdict(output: Mapping[str, Any]) -> bool | None:
    """What the words of a Pass/Fail eval mean; None for other evals, whose words may be choices."""
    word = output.get("output")
    if output.get("output_type") != "Pass/Fail" or type(word) is not str:
        return None
    return {"Passed": True, "Failed": False}.get(word)


def _score(value: Any) -> Any:
    """A number; a numeric string stays text, since choices may read like numbers."""
    return coerce.MISFIT if type(value) is str else coerce.to_float(value)


def _build_tree(table: schema.Table) -> _Node:
    tree = _Node({})
    targets: dict[tuple[str, ...], list[tuple[int, Callable[[Any], Any]]]] = {}
    if table is schema.CALLS:
        # The call is told what the evals table has no place for.
        targets["call_results", "eval_outputs"] = [(0, lambda _: coerce.MISFIT)]
    for index, column in enumerate(table.columns):
        coercer = _score if column.name == "output_score" else coerce.coercer(column)
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


_TREES = {name: _build_tree(table) for name, table in schema.TABLES.items()}


def _started_at(bundle: ExecutionBundle) -> datetime | None:
    return coerce.timestamp_or_none(bundle.execution.payload.get("started_at"))


def _raw(payload: Mapping[str, Any], export: Export) -> str | None:
    return coerce.json_text(payload) if export.include_raw else None


def _eval_outputs(listed: ListedCall) -> dict[str, Any]:
    outputs = listed.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return {}
    return {
        config_id: output for config_id, output in outputs.items() if coerce.to_string(config_id) is not coerce.MISFIT
    }


_LISTED_TWICE = {
    "call_execution_id": coerce.to_string,
    "status": coerce.to_string,
    "duration_seconds": coerce.to_float,
}


_CONTAINERS = (dict, list)  # equal to Python when one holds true and the other 1


def _says_the_same(coercer: Callable[[Any], Any], value: Any, other: Any) -> bool:
    if type(value) is type(other) and value == other and type(value) not in _CONTAINERS:
        return True
    said = coercer(value)
    return said is not coerce.MISFIT and bool(said == coercer(other))


def _call_payload(call: FetchedCall) -> dict[str, Any]:
    """The call's metrics and, under ``call_results``, what only the listing says of it; evals have a table of their own."""
    payload = dict(call.metrics.payload)
    listed = dict(call.listed.payload)
    for name, coercer in _LISTED_TWICE.items():
        if name in listed and _says_the_same(coercer, listed[name], payload.get(name)):
            del listed[name]
    outputs = listed.pop("eval_outputs", None)
    if isinstance(outputs, dict):
        exported = _eval_outputs(call.listed)
        outputs = {config_id: output for config_id, output in outputs.items() if config_id not in exported} or None
    if outputs is not None:
        listed["eval_outputs"] = outputs
    if "call_results" in payload:
        name = "metrics.call_results"
        while name in payload:
            name = f"metrics.{name}"
        payload[name] = payload.pop("call_results")
    payload["call_results"] = listed
    return payload
