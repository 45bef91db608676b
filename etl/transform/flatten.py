"""An execution bundle as rows: of its calls, its evals and its dead letters. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import msgspec

from etl.model import schema
from etl.model.records import FROM_DETAIL, FROM_METRICS, DeadLetter, Execution, ExecutionBundle, FetchedCall, ListedCall
from etl.model.values import MISFIT, json_text, timestamp_or_none, to_float, to_string
from etl.transform.drift import Drift, find_drift
from etl.transform.rows import MAKERS

_WAITS = "pending"
_COMPLETED = "completed"
_TEXTS = [schema.CALLS.names.index(name) for name in ("extra", "raw")]


@dataclass(slots=True)
class Rows:
    """Rows of one table, and how many values did not fit their column.

    Values are in the order of the table's columns; those that are the same in a whole commit are still null.
    """

    values: list[list[Any]] = field(default_factory=list)
    misfits: int = 0

    @classmethod
    def of(cls, made: Iterable[tuple[list[Any], int]]) -> Self:
        """Rows as a ``RowMaker`` makes them, each with its number of misfits."""
        pairs = list(made)
        return cls([row for row, _ in pairs], sum(misfits for _, misfits in pairs))


@dataclass(frozen=True, slots=True)
class FlatBundle:
    """A bundle with rows in place of its payloads. Fields as in ``ExecutionBundle``, but ``listed`` holds the ids of the calls.

    ``call_statuses`` counts an eval that waits like a call that does. ``drift`` is what its answers have in another form.
    """

    run_test_name: str
    run_test_key: str
    execution: Execution
    listed: frozenset[str] | None
    call_statuses: Counter[str]
    dead_letters: tuple[DeadLetter, ...]
    calls: Rows
    evals: Rows
    errors: Rows
    kept: frozenset[str] = frozenset()
    deleted: frozenset[str] = frozenset()
    drift: tuple[Drift, ...] = ()
    part_of: int | None = None
    lacks_evals: bool = False

    @property
    def started_at(self) -> datetime | None:
        """When the execution began; None when the API does not say."""
        return _started_at(self.execution)

    @property
    def text(self) -> int:
        """How many characters its calls have where payloads are kept as text: nothing else bounds a row."""
        return sum(len(row[index]) for row in self.calls.values for index in _TEXTS if row[index])

    @property
    def is_fetched(self) -> bool:
        """Whether the execution's calls were listed."""
        return self.listed is not None


def flatten(bundle: ExecutionBundle, *, include_raw: bool = False) -> FlatBundle:
    """The bundle with rows in place of its payloads. A metric that the API left out or null stays null."""
    name, started_at = bundle.run_test_name, _started_at(bundle.execution)
    shared = {"run_test_name": name, "execution_id": bundle.execution.execution_id, "execution_started_at": started_at}
    listed = bundle.listed or ()
    outputs = {call.call_execution_id: eval_outputs(call) for call in listed}
    made = [call_row(each, run_test_name=name, started_at=started_at, include_raw=include_raw) for each in bundle.calls]
    return FlatBundle(
        run_test_name=name,
        run_test_key=bundle.run_test_key,
        execution=bundle.execution,
        listed=None if bundle.listed is None else frozenset(call.call_execution_id for call in bundle.listed),
        call_statuses=Counter(call.metrics.status for call in bundle.calls)
        + Counter(_status(call) for call in listed if call.call_execution_id in bundle.kept)
        + Counter(_WAITS for evals in outputs.values() for each in evals.values() if _waits(each)),
        dead_letters=bundle.dead_letters,
        calls=Rows.of([*made, *(([*row], 0) for row in bundle.amended)]),
        evals=Rows.of(
            eval_row(output, {"call_execution_id": call_execution_id, "eval_config_id": config_id, **shared})
            for call_execution_id, evals in outputs.items()
            for config_id, output in evals.items()
        ),
        errors=Rows.of(
            MAKERS[schema.ERRORS.name].make({}, shared | msgspec.structs.asdict(letter))
            for letter in bundle.dead_letters
        ),
        kept=bundle.kept,
        deleted=bundle.deleted,
        drift=_drift(bundle, outputs),
        part_of=bundle.part_of,
        lacks_evals=bundle.lacks_evals,
    )


def _drift(bundle: ExecutionBundle, outputs: Mapping[str, Mapping[str, Any]]) -> tuple[Drift, ...]:
    """Of completed calls: those that failed have no values to tell. ``outputs`` are the evals of each listed call."""
    listed = [call.call_execution_id for call in bundle.listed or () if _status(call) == _COMPLETED]
    ended = (each for call in listed for each in outputs[call].values() if isinstance(each, dict) and not _waits(each))
    calls = {bundle.execution.execution_id: len(listed)}
    metrics = [call.metrics for call in bundle.calls]
    found = [
        Drift(table.name, *find_drift(table, payloads), calls)
        for table, payloads in (
            (schema.EXECUTIONS, [bundle.execution.payload]),
            (schema.CALLS, [own.payload for own in metrics if own.status == _COMPLETED and not own.is_from_detail]),
            (schema.EVALS, ended),
        )
    ]
    if bundle.lacking:
        calls = {bundle.execution.execution_id: max(bundle.lacking.values())}
        found.append(Drift(schema.CALLS.name, tuple(bundle.lacking), "the execution's detail has it", calls))
    return tuple(each for each in found if each.columns)


def call_row(
    call: FetchedCall, *, run_test_name: str, started_at: datetime | None, include_raw: bool = False
) -> tuple[list[Any], int]:
    """A row of the ``calls`` table and its misfits; the name and the start are those of the call's execution."""
    given = {
        "call_execution_id": call.metrics.call_execution_id,
        "run_test_name": run_test_name,
        "execution_started_at": started_at,
        "raw": json_text(call.metrics.payload) if include_raw and not call.metrics.is_from_detail else None,
        "metrics_from": FROM_DETAIL if call.metrics.is_from_detail else FROM_METRICS,
    }
    return MAKERS[schema.CALLS.name].make(_call_payload(call), given)


def eval_row(value: Any, given: Mapping[str, Any]) -> tuple[list[Any], int]:
    """A row of the ``evals`` table and its misfits."""
    output = value if isinstance(value, dict) else {"output": value}
    return MAKERS[schema.EVALS.name].make(output, {**given, "output_passed": _passed(output)})


def _passed(output: Mapping[str, Any]) -> bool | None:
    """Whether a Pass/Fail eval passed; None for other evals, whose choices may have the same names."""
    value = output.get("output")
    if output.get("output_type") != "Pass/Fail" or type(value) is not str:
        return None
    return {"Passed": True, "Failed": False}.get(value)


def _started_at(execution: Execution) -> datetime | None:
    return timestamp_or_none(execution.payload.get("started_at"))


def _status(listed: ListedCall) -> str:
    """What the list says of the call; nothing, which is no status that ends, when it says none."""
    status = listed.payload.get("status")
    return status if isinstance(status, str) else ""


def _waits(output: Any) -> bool:
    """Whether the eval has still to be run, or to be run again."""
    return isinstance(output, dict) and output.get("status") == _WAITS and output.get("output") is None


def eval_outputs(listed: ListedCall) -> dict[str, Any]:
    """The call's evals by config, as far as they can be rows."""
    outputs = listed.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return {}
    return {config_id: output for config_id, output in outputs.items() if _fits_key(config_id)}


def _fits_key(config_id: str) -> bool:
    return to_string(config_id) is not MISFIT


# Fields that both the list of calls and the call's metrics have.
_IN_BOTH = {"call_execution_id": to_string, "status": to_string, "duration_seconds": to_float}


def _is_same(coercer: Callable[[Any], Any], value: Any, other: Any) -> bool:
    if value is None or other is None:
        return value is other
    coerced = coercer(value)
    return coerced is not MISFIT and bool(coerced == coercer(other))


def _call_payload(call: FetchedCall) -> dict[str, Any]:
    """The call's metrics, with what the list and the detail alone have under names of their own, but for evals that have rows."""
    payload = dict(call.metrics.payload)
    listed = dict(call.listed.payload)
    for name, coercer in _IN_BOTH.items():
        if name in listed and _is_same(coercer, listed[name], payload.get(name)):
            del listed[name]
    outputs = listed.pop("eval_outputs", None)
    if isinstance(outputs, dict):
        outputs = {config_id: output for config_id, output in outputs.items() if not _fits_key(config_id)} or None
    if outputs is not None:
        listed["eval_outputs"] = outputs
    for name, fields in (("call_results", listed), ("detail", call.shown)):
        if name in payload:  # keep a field of that name that the metrics may have one day
            payload[f"metrics.{name}"] = payload.pop(name)
        payload[name] = fields
    return payload
