"""Execution bundles → rows → pandas frames with exactly the declared columns. Pure.

Bundles become rows as soon as they arrive, so that their payloads, several times as large, need not be kept until they are written;
the rows of many bundles then become one frame, since frames cost by the piece.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import Any

import pandas as pd
import pyarrow as pa

from etl.errors import SchemaError
from etl.model import schema
from etl.model.digest import fingerprint
from etl.model.lifecycle import HeldRows
from etl.model.records import DeadLetter, Execution, ExecutionBundle, FetchedCall, ListedCall
from etl.model.values import MISFIT, json_text, timestamp_or_none, to_float, to_string
from etl.transform.rows import MAKERS


@dataclass(frozen=True, slots=True)
class Export:
    """What all rows of one commit share."""

    export_run_id: str
    exported_at: datetime
    include_raw: bool = False


@dataclass(slots=True)
class Rows:
    """Rows of one table: values in the order of its columns, null where the commit has its say; and how many did not fit theirs."""

    values: list[list[Any]] = field(default_factory=list)
    misfits: int = 0

    def add(self, row: tuple[list[Any], int]) -> None:
        """Take a row, and its number of misfits."""
        self.values.append(row[0])
        self.misfits += row[1]


@dataclass(frozen=True, slots=True)
class FlatBundle:
    """A bundle whose calls, evals and dead letters are rows. Fields as in ``ExecutionBundle``; ``listed`` are ids of calls."""

    run_test_name: str
    run_test_key: str
    execution: Execution
    date: str
    listed: frozenset[str] | None
    call_statuses: Counter[str]
    dead_letters: tuple[DeadLetter, ...]
    calls: Rows
    evals: Rows
    errors: Rows

    @property
    def is_fetched(self) -> bool:
        """Whether the execution's calls were listed."""
        return self.listed is not None


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows of one table, and how many of their values did not fit their column."""

    data: pd.DataFrame
    misfits: int


def flatten(bundle: ExecutionBundle, *, include_raw: bool = False) -> FlatBundle:
    """The bundle with rows in place of the payloads of its calls. A metric that the API left out or null stays null."""
    return FlatBundle(
        run_test_name=bundle.run_test_name,
        run_test_key=bundle.run_test_key,
        execution=bundle.execution,
        date=bundle.date,
        listed=None if bundle.listed is None else frozenset(call.call_execution_id for call in bundle.listed),
        call_statuses=Counter(call.metrics.status for call in bundle.calls),
        dead_letters=bundle.dead_letters,
        calls=_call_rows(bundle, include_raw=include_raw),
        evals=_eval_rows(bundle),
        errors=_error_rows(bundle),
    )


def executions_frame(
    bundles: Iterable[FlatBundle],
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
    rows, maker = Rows(), MAKERS[schema.EXECUTIONS.name]
    for bundle in bundles:
        execution_id = bundle.execution.execution_id
        holds = held[execution_id]
        given = {
            "execution_id": execution_id,
            "run_test_name": bundle.run_test_name,
            "raw": _raw(bundle.execution.payload, include_raw=export.include_raw),
            "listed_calls": holds.listed_calls,
            "exported_calls": holds.exported_calls,
            "export_state": states[execution_id],
            "fingerprint": fingerprint(bundle.execution.payload),
            "calls_digest": holds.calls_digest,
            "verified_at": verified_at[execution_id],
        }
        rows.add(maker.make(bundle.execution.payload, given))
    return _exported(schema.EXECUTIONS, [rows], export)


def calls_frame(bundles: Iterable[FlatBundle], export: Export) -> Frame:
    """One row per call, with exactly the columns of ``schema.CALLS``.

    Raises:
        SchemaError: two bundles hold the same ``call_execution_id``.

    Source: GET /sdk/api/v1/simulation/metrics/?call_execution_id=…
    """
    return _exported(schema.CALLS, [bundle.calls for bundle in bundles], export)


def evals_frame(bundles: Iterable[FlatBundle], export: Export) -> Frame:
    """One row per eval output of a call, with exactly the columns of ``schema.EVALS``.

    Raises:
        SchemaError: two bundles hold the same call.

    Source: GET /sdk/api/v1/simulation/runs/?execution_id=…
    """
    return _exported(schema.EVALS, [bundle.evals for bundle in bundles], export)


def errors_frame(bundles: Iterable[FlatBundle], export: Export) -> Frame:
    """One row per dead letter, with exactly the columns of ``schema.ERRORS``; ``first_seen_at`` as if it were new."""
    seen = {"first_seen_at": export.exported_at, "last_seen_at": export.exported_at}
    return _frame(schema.ERRORS, [bundle.errors for bundle in bundles], {"export_run_id": export.export_run_id, **seen})


def frame_of(table: schema.Table, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows that the exporter made itself, as a frame with the table's declared columns and dtypes."""
    made, maker = Rows(), MAKERS[table.name]
    for row in rows:
        made.add(maker.make({}, row))
    return _frame(table, [made], {}).data


def hash_rows(table: schema.Table, rows: pa.Table) -> list[str]:
    """The row hash that each of the rows should have."""
    columns = (rows[name].to_pylist() for name in table.names)
    return [MAKERS[table.name].hash(row) for row in zip(*columns, strict=True)]


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """The table as a frame with pyarrow-backed dtypes: null stays null, and whole numbers stay whole."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def to_arrow(frame: pd.DataFrame, table: schema.Table) -> pa.Table:
    """The frame as an Arrow table of the declared schema."""
    arrays = [pa.array(frame[column.name].array, column.type) for column in table.columns]
    return pa.Table.from_arrays([_one_chunk(array) for array in arrays], schema=table.arrow_schema)


def _one_chunk(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _exported(table: schema.Table, parts: Sequence[Rows], export: Export) -> Frame:
    return _frame(table, parts, {"export_run_id": export.export_run_id, "exported_at": export.exported_at})


def _frame(table: schema.Table, parts: Sequence[Rows], of_all: Mapping[str, Any]) -> Frame:
    """All of the rows; ``of_all`` has a value by column that is the same in each of them."""
    rows = list(chain.from_iterable(part.values for part in parts))
    _refuse_twice(table, rows)
    columns = list(zip(*rows, strict=True)) or [()] * len(table.names)
    arrays = {
        column.name: pa.array([of_all[column.name]] * len(rows) if column.name in of_all else values, column.type)
        for values, column in zip(columns, table.columns, strict=True)
    }
    data = pd.DataFrame({name: pd.arrays.ArrowExtensionArray(array) for name, array in arrays.items()}, copy=False)
    return Frame(data, sum(part.misfits for part in parts))


def _refuse_twice(table: schema.Table, rows: Sequence[Sequence[Any]]) -> None:
    key_of = itemgetter(*(table.names.index(name) for name in table.key))
    for key, count in Counter(map(key_of, rows)).most_common(1):
        if count > 1:
            raise SchemaError(f"{table.name}: two rows with the key {key}")


def _call_rows(bundle: ExecutionBundle, *, include_raw: bool) -> Rows:
    rows, maker = Rows(), MAKERS[schema.CALLS.name]
    started_at = _started_at(bundle)
    for call in bundle.calls:
        given = {
            "call_execution_id": call.metrics.call_execution_id,
            "run_test_name": bundle.run_test_name,
            "execution_started_at": started_at,
            "raw": _raw(call.metrics.payload, include_raw=include_raw),
        }
        rows.add(maker.make(_call_payload(call), given))
    return rows


def _eval_rows(bundle: ExecutionBundle) -> Rows:
    rows, maker = Rows(), MAKERS[schema.EVALS.name]
    started_at = _started_at(bundle)
    for listed in bundle.listed or ():
        for eval_config_id, value in _eval_outputs(listed).items():
            output = value if isinstance(value, dict) else {"output": value}
            given = {
                "call_execution_id": listed.call_execution_id,
                "eval_config_id": eval_config_id,
                "run_test_name": bundle.run_test_name,
                "execution_id": bundle.execution.execution_id,
                "execution_started_at": started_at,
                "output_passed": _verdict(output),
            }
            rows.add(maker.make(output, given))
    return rows


def _error_rows(bundle: ExecutionBundle) -> Rows:
    rows, maker = Rows(), MAKERS[schema.ERRORS.name]
    for letter in bundle.dead_letters:
        given = {
            "endpoint": letter.endpoint,
            "subject_id": letter.subject_id,
            "execution_id": bundle.execution.execution_id,
            "run_test_name": bundle.run_test_name,
            "status": letter.status,
            "message": letter.message,
            "excerpt": letter.excerpt,
            "tries": letter.tries,
        }
        rows.add(maker.make({}, given))
    return rows


def _verdict(output: Mapping[str, Any]) -> bool | None:
    """What the words of a Pass/Fail eval mean; None for other evals, whose words may be choices."""
    word = output.get("output")
    if output.get("output_type") != "Pass/Fail" or type(word) is not str:
        return None
    return {"Passed": True, "Failed": False}.get(word)


def _started_at(bundle: ExecutionBundle) -> datetime | None:
    return timestamp_or_none(bundle.execution.payload.get("started_at"))


def _raw(payload: Mapping[str, Any], *, include_raw: bool) -> str | None:
    return json_text(payload) if include_raw else None


def _eval_outputs(listed: ListedCall) -> dict[str, Any]:
    outputs = listed.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return {}
    return {config_id: output for config_id, output in outputs.items() if _is_id(config_id)}


def _is_id(config_id: str) -> bool:
    """Whether the key column can hold it."""
    return to_string(config_id) is not MISFIT


_LISTED_TWICE = {
    "call_execution_id": to_string,
    "status": to_string,
    "duration_seconds": to_float,
}


_CONTAINERS = (dict, list)  # equal to Python when one holds true and the other 1


def _says_the_same(coercer: Callable[[Any], Any], value: Any, other: Any) -> bool:
    if type(value) is type(other) and value == other and type(value) not in _CONTAINERS:
        return True
    said = coercer(value)
    return said is not MISFIT and bool(said == coercer(other))


def _call_payload(call: FetchedCall) -> dict[str, Any]:
    """The call's metrics and, under ``call_results``, what only the listing says of it; evals have a table of their own."""
    payload = dict(call.metrics.payload)
    listed = dict(call.listed.payload)
    for name, coercer in _LISTED_TWICE.items():
        if name in listed and _says_the_same(coercer, listed[name], payload.get(name)):
            del listed[name]
    outputs = listed.pop("eval_outputs", None)
    if isinstance(outputs, dict):
        # What has no row of its own.
        outputs = {config_id: output for config_id, output in outputs.items() if not _is_id(config_id)} or None
    if outputs is not None:
        listed["eval_outputs"] = outputs
    if "call_results" in payload:
        name = "metrics.call_results"
        while name in payload:
            name = f"metrics.{name}"
        payload[name] = payload.pop("call_results")
    payload["call_results"] = listed
    return payload
