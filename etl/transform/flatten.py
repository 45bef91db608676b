"""Make the rows of an execution's calls, evals and dead letters from what was fetched of it. Pure.

The execution's own row comes later, from ``frames``: it says what the dataset holds in the end.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import msgspec

from etl.model import schema
from etl.model.records import FROM_DETAIL, FROM_METRICS, DeadLetter, Execution, ExecutionBundle, FetchedCall, ListedCall
from etl.model.values import MISFIT, Coercer, fields_of, json_text, timestamp_or_none, to_float, to_string
from etl.transform.drift import Drift, find_drift
from etl.transform.rows import MAKERS

_WAITS = "pending"
"""Status of an eval that has still to be run."""
_COMPLETED = "completed"
"""Status of a call that has all its values."""
_AS_IN_BUNDLE = (
    "run_test_key",
    "execution",
    "dead_letters",
    "kept",
    "deleted",
    "part_of",
    "lacks_evals",
    "keeps_unseen",
)
"""Fields of a flat bundle that are those of the bundle."""
_TEXTS = [schema.CALLS.names.index(name) for name in ("extra", "raw")]


@dataclass(slots=True)
class Rows:
    """Rows of one table."""

    values: list[list[Any]] = field(default_factory=list)
    """The rows, each in the order of the table's columns. What is the same in a whole commit is still null."""
    misfits: int = 0
    """How many values did not fit their column."""

    @classmethod
    def of(cls, rows_with_misfits: Iterable[tuple[list[Any], int]]) -> Self:
        """Rows as a ``RowMaker`` makes them, each with its number of misfits."""
        pairs = list(rows_with_misfits)
        return cls([row for row, _ in pairs], sum(misfits for _, misfits in pairs))


@dataclass(frozen=True, slots=True)
class FlatBundle:
    """A bundle with rows in place of its payloads. Fields that ``ExecutionBundle`` has, too, mean the same."""

    run_test_name: str
    run_test_key: str
    execution: Execution
    listed: frozenset[str] | None
    """Ids of the listed calls; None if none were requested, or they could not be listed."""
    call_statuses: Counter[str]
    """How many calls have each status; an eval that waits counts like a call that does."""
    dead_letters: tuple[DeadLetter, ...]
    calls: Rows
    evals: Rows
    errors: Rows
    kept: frozenset[str] = frozenset()
    deleted: frozenset[str] = frozenset()
    drift: tuple[Drift, ...] = ()
    """What the answers have in another form than the schema declares."""
    part_of: int | None = None
    lacks_evals: bool = False
    keeps_unseen: bool = False

    @property
    def started_at(self) -> datetime | None:
        """When the execution began; None if the API does not say."""
        return timestamp_or_none(self.execution.payload.get("started_at"))

    @property
    def text(self) -> int:
        """How many characters its calls have in ``extra`` and ``raw``: these alone can be of any length."""
        return sum(len(row[index]) for row in self.calls.values for index in _TEXTS if row[index])

    @property
    def is_fetched(self) -> bool:
        """Whether the execution's calls were listed."""
        return self.listed is not None


def flatten(bundle: ExecutionBundle, *, include_raw: bool = False) -> FlatBundle:
    """The bundle with rows in place of its payloads. A metric that the API left out or null stays null.

    ``include_raw`` keeps the payload of each call in its row, too.
    """
    name = bundle.run_test_name
    started_at = timestamp_or_none(bundle.execution.payload.get("started_at"))
    shared = {"run_test_name": name, "execution_id": bundle.execution.execution_id, "execution_started_at": started_at}
    listed = bundle.listed or ()
    outputs = {call.call_execution_id: eval_outputs(call) for call in listed}
    rows = [call_row(call, run_test_name=name, started_at=started_at, include_raw=include_raw) for call in bundle.calls]
    rows += [([*row], 0) for row in bundle.amended]
    statuses = Counter(call.metrics.status for call in bundle.calls)
    statuses.update(_status(call) for call in listed if call.call_execution_id in bundle.kept)
    statuses.update(_WAITS for evals in outputs.values() for output in evals.values() if _waits(output))
    return FlatBundle(
        run_test_name=name,
        **fields_of(bundle, *_AS_IN_BUNDLE),
        listed=None if bundle.listed is None else frozenset(outputs),
        call_statuses=statuses,
        calls=Rows.of(rows),
        evals=Rows.of(
            eval_row(output, {"call_execution_id": call_execution_id, "eval_config_id": config_id, **shared})
            for call_execution_id, evals in outputs.items()
            for config_id, output in evals.items()
        ),
        errors=Rows.of(
            MAKERS[schema.ERRORS.name].make({}, shared | msgspec.structs.asdict(letter))
            for letter in bundle.dead_letters
        ),
        drift=_drift(bundle, outputs),
    )


def _drift(bundle: ExecutionBundle, outputs: Mapping[str, Mapping[str, Any]]) -> tuple[Drift, ...]:
    """What the answers have in another form; ``outputs`` are the evals of each listed call.

    Of calls only those that are completed count: one that failed has no values to judge the form by.
    """
    execution_id = bundle.execution.execution_id
    completed = [call.call_execution_id for call in bundle.listed or () if _status(call) == _COMPLETED]
    of_completed = [output for call_execution_id in completed for output in outputs[call_execution_id].values()]
    own_metrics = [call.metrics for call in bundle.calls if not call.metrics.is_from_detail]
    payloads: tuple[tuple[schema.Table, list[dict[str, Any]]], ...] = (
        (schema.EXECUTIONS, [bundle.execution.payload]),
        (schema.CALLS, [metrics.payload for metrics in own_metrics if metrics.status == _COMPLETED]),
        (schema.EVALS, [output for output in of_completed if isinstance(output, dict) and not _waits(output)]),
    )
    drifts = [
        Drift(table.name, *find_drift(table, of_table), {execution_id: len(completed)}) for table, of_table in payloads
    ]
    if bundle.lacking:
        calls = {execution_id: max(bundle.lacking.values())}
        drifts.append(Drift(schema.CALLS.name, tuple(bundle.lacking), "the execution's detail has it", calls))
    return tuple(drift for drift in drifts if drift.columns)


def call_row(
    call: FetchedCall, *, run_test_name: str, started_at: datetime | None, include_raw: bool = False
) -> tuple[list[Any], int]:
    """A row of ``calls``, and how many values did not fit. The run test's name and the start are of its execution."""
    given = {
        "call_execution_id": call.metrics.call_execution_id,
        "run_test_name": run_test_name,
        "execution_started_at": started_at,
        "raw": json_text(call.metrics.payload) if include_raw and not call.metrics.is_from_detail else None,
        "metrics_from": FROM_DETAIL if call.metrics.is_from_detail else FROM_METRICS,
    }
    return MAKERS[schema.CALLS.name].make(_call_payload(call), given)


def eval_row(value: Any, given: Mapping[str, Any]) -> tuple[list[Any], int]:
    """A row of ``evals`` from one output, and how many values did not fit; ``given`` is as for ``RowMaker.make``.

    An output that is no object counts as an object with this output alone.
    """
    output = value if isinstance(value, dict) else {"output": value}
    return MAKERS[schema.EVALS.name].make(output, {**given, "output_passed": _passed(output)})


def _passed(output: Mapping[str, Any]) -> bool | None:
    """Whether a Pass/Fail eval passed; None if it says neither. Choices of other evals may look the same: None, too."""
    value = output.get("output")
    if output.get("output_type") != "Pass/Fail" or type(value) is not str:
        return None
    return {"Passed": True, "Failed": False}.get(value)


def _status(listed: ListedCall) -> str:
    """The call's status in the list. An empty text, which counts as not finished, if the list says none."""
    status = listed.payload.get("status")
    return status if isinstance(status, str) else ""


def _waits(output: Any) -> bool:
    """Whether the eval has still to be run, or to be run again."""
    return isinstance(output, dict) and output.get("status") == _WAITS and output.get("output") is None


def eval_outputs(listed: ListedCall) -> dict[str, Any]:
    """The outputs of the call's evals by eval configuration, as far as they can be rows of ``evals``."""
    outputs = listed.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return {}
    return {config_id: output for config_id, output in outputs.items() if to_string(config_id) is not MISFIT}


_IN_BOTH: Mapping[str, Coercer] = {"call_execution_id": to_string, "status": to_string, "duration_seconds": to_float}
"""Fields that both the list of calls and a call's own metrics have, with what makes their values comparable."""


def _is_same(coercer: Coercer, value: Any, other: Any) -> bool:
    """Whether both are null, or both fit the column and are equal there."""
    if value is None or other is None:
        return value is other
    coerced = coercer(value)
    return coerced is not MISFIT and bool(coerced == coercer(other))


def _call_payload(call: FetchedCall) -> dict[str, Any]:
    """All that is exported of the call: its metrics, and what only the list or the detail has, under their own names.

    Evals are left out if they have rows.
    """
    payload = dict(call.metrics.payload)
    listed = dict(call.listed.payload)
    for name, coercer in _IN_BOTH.items():
        if name in listed and _is_same(coercer, listed[name], payload.get(name)):
            del listed[name]
    outputs = listed.pop("eval_outputs", None)
    if isinstance(outputs, dict):
        outputs = {config_id: output for config_id, output in outputs.items() if to_string(config_id) is MISFIT} or None
    if outputs is not None:
        listed["eval_outputs"] = outputs
    for name, fields in (("call_results", listed), ("detail", call.shown)):
        if name in payload:
            # The metrics may have a field of this name one day: it is kept, under another name.
            payload[f"metrics.{name}"] = payload.pop(name)
        payload[name] = fields
    return payload
