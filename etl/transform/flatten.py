"""Make the rows of an execution's calls, evals and dead letters from what was fetched. Pure.

The execution's own row comes later, from ``frames``: it says what the dataset holds in the end.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from typing import Any, Self

import msgspec

from etl.model import schema
from etl.model.records import (
    FROM_BOTH,
    FROM_LISTS,
    FROM_METRICS,
    DeadLetter,
    Execution,
    ExecutionBundle,
    FetchedCall,
    ListedCall,
)
from etl.model.values import MISFIT, Coercer, coercer_of, fields_of, json_text, timestamp_or_none, to_float, to_string
from etl.transform.drift import ALWAYS_SHOWN, NO_LOSSES, Answer, Loss, Losses, find_losses
from etl.transform.row_hash import says_the_same
from etl.transform.rows import MAKERS

_WAITS = "pending"
"""Status of an eval that has still to be run."""
COMPLETED = "completed"
"""Status of a call that has all its values."""
_NO_OUTPUT = {_WAITS, "failed", "error", "skipped", "running", "queued"}
"""Statuses, in lower case, of evals that gave nothing."""
_VERDICT = "evals.output_passed"
_TEXTS = [schema.CALLS.names.index(name) for name in ("extra", "raw")]
_STATUS, _METRICS_FROM = (schema.CALLS.names.index(name) for name in ("status", "metrics_from"))
_NAMES = ("call_execution_id", "eval_config_id", "run_test_name", "execution_id", "execution_started_at")
_IDENTITY = {name: schema.EVALS.names.index(name) for name in _NAMES}
"""The columns of an eval that its output does not fill, by place."""
_COERCERS = [coercer_of(column) for column in schema.CALLS.columns]


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
    losses: Losses = NO_LOSSES
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


_AS_IN_BUNDLE = {each.name for each in fields(FlatBundle)} & {*ExecutionBundle.__struct_fields__} - {"listed", "calls"}
"""Fields of both bundles that have the same value."""


def flatten(bundle: ExecutionBundle, *, include_raw: bool = False) -> FlatBundle:
    """The bundle with rows in place of its payloads. A metric that the API left out or null stays null.

    ``include_raw`` keeps the payload of each call in its row, too.
    """
    name = bundle.run_test_name
    started_at = timestamp_or_none(bundle.execution.payload.get("started_at"))
    shared = {"run_test_name": name, "execution_id": bundle.execution.execution_id, "execution_started_at": started_at}
    listed = bundle.listed or ()
    outputs = {call.call_execution_id: eval_outputs(call) for call in listed}
    made = [call_row(call, run_test_name=name, started_at=started_at, include_raw=include_raw) for call in bundle.calls]
    rows = [(filled(call, row), misfits) for call, (row, misfits) in zip(bundle.calls, made, strict=True)]
    rows += [([*row], 0) for row in bundle.amended]
    evals = [
        (call_id, output, eval_row(output, {"call_execution_id": call_id, "eval_config_id": config_id, **shared}))
        for call_id, of_call in outputs.items()
        for config_id, output in of_call.items()
    ]
    statuses = Counter(call.metrics.status for call in bundle.calls)
    statuses.update(_status(call) for call in listed if call.call_execution_id in bundle.kept)
    statuses.update(_WAITS for _, output, _ in evals if _waits(output))
    return FlatBundle(
        **fields_of(bundle, *_AS_IN_BUNDLE),
        listed=None if bundle.listed is None else frozenset(outputs),
        call_statuses=statuses,
        calls=Rows.of(rows),
        evals=Rows.of(row for _, _, row in evals),
        errors=Rows.of(
            MAKERS[schema.ERRORS.name].make({}, shared | msgspec.structs.asdict(letter))
            for letter in bundle.dead_letters
        ),
        losses=_losses(bundle, [row for row, _ in made], evals),
    )


def _losses(
    bundle: ExecutionBundle, rows: Sequence[Sequence[Any]], evals: Iterable[tuple[str, Any, tuple[list[Any], int]]]
) -> Losses:
    """What the answers have in another form; ``rows`` are those of the calls by themselves.

    Only calls that are completed count, and evals that gave something: others have no values to judge the form by. Nor
    do rows of lists: these were put into the declared form, and the call that confirmed them shows the API's.
    """
    if bundle.listed is None:
        return NO_LOSSES
    payload = bundle.execution.payload
    completed = {call.call_execution_id for call in bundle.listed if _status(call) == COMPLETED}
    calls = [
        answer_of(call, own, is_compared=bundle.detail_fields is not None)
        for call, own in zip(bundle.calls, rows, strict=True)
        if call.metrics.status == COMPLETED and call.metrics.made_from != FROM_LISTS
    ]
    judged = [(output, row) for call, output, (row, _) in evals if call in completed and _is_judged(output)]
    row, _ = MAKERS[schema.EXECUTIONS.name].make(payload, {})
    of_execution = find_losses(schema.EXECUTIONS, [Answer(lambda: payload, row)])
    of_calls = find_losses(schema.CALLS, calls)
    of_evals = find_losses(schema.EVALS, [Answer(partial(dict, output), row) for output, row in judged])
    kept = bundle.kept_losses
    lost = {name: replace(loss, calls=loss.calls + kept.get(name, 0)) for name, loss in of_calls.lost.items()}
    has = of_calls.has | bundle.kept_has
    if bundle.part_of is not None:
        return Losses(lost, has)  # the rest is told once, of all calls
    lost |= {name: replace(loss, calls=len(completed)) for name, loss in of_execution.lost.items()}
    lost |= {name: replace(loss, calls=min(loss.calls, len(completed))) for name, loss in of_evals.lost.items()}
    has |= of_execution.has | of_evals.has
    verdicts = {_passed(output) is not None for output, _ in judged if _is_verdict(output)}
    has -= {_VERDICT} if True not in verdicts else set()
    if verdicts == {False}:
        lost[_VERDICT] = Loss(len(completed), "is null (output_text says neither Passed nor Failed)", is_absent=True)
    if completed and bundle.detail_fields is not None:
        named = {ALWAYS_SHOWN[name] for name in bundle.detail_fields}
        new = named - lost.keys() if calls else set[str]()  # a call that stays shows nothing of today's form
        absent = {column: name for name, column in ALWAYS_SHOWN.items() if column not in named}
        has = (has | new) - absent.keys()
        texts = {column: f"is null (no detail names {name})" for column, name in absent.items()}
        lost |= {column: Loss(len(completed), text, is_absent=True) for column, text in texts.items()}
    return Losses(lost, has)


def call_row(
    call: FetchedCall, *, run_test_name: str, started_at: datetime | None, include_raw: bool = False
) -> tuple[list[Any], int]:
    """A row of ``calls``, and how many values did not fit. The run test's name and the start are of its execution.

    What the lists show of the call beside its metrics is still to come, from ``filled``.
    """
    given = {
        "call_execution_id": call.metrics.call_execution_id,
        "run_test_name": run_test_name,
        "execution_started_at": started_at,
        "raw": json_text(call.metrics.payload) if include_raw and call.metrics.made_from == FROM_METRICS else None,
        "metrics_from": call.metrics.made_from,
    }
    return MAKERS[schema.CALLS.name].make(_call_payload(call), given)


def filled(call: FetchedCall, row: list[Any]) -> list[Any]:
    """The call's own row, with the values of the lists where it has none."""
    values = {
        index: value
        for index, shown in _shown(call, row).items()
        if row[index] is None and shown is not None and (value := _COERCERS[index](shown)) is not MISFIT
    }
    if not values:
        return row
    values[_METRICS_FROM] = FROM_BOTH if row[_METRICS_FROM] == FROM_METRICS else row[_METRICS_FROM]
    return [values.get(index, value) for index, value in enumerate(row)]


def answer_of(call: FetchedCall, row: Sequence[Any], *, is_compared: bool) -> Answer:
    """The call's own row, with its payload and what the lists show beside it; ``is_compared`` is as in ``Answer``."""
    return Answer(partial(_call_payload, call), row, _shown(call, row), is_compared=is_compared)


def _shown(call: FetchedCall, row: Sequence[Any]) -> Mapping[int, Any]:
    """What the lists show of the call; nothing if they saw it in another state."""
    return call.by_lists if call.by_lists.get(_STATUS) == row[_STATUS] else {}


def eval_row(value: Any, given: Mapping[str, Any]) -> tuple[list[Any], int]:
    """A row of ``evals`` from one output, and how many values did not fit; ``given`` is as for ``RowMaker.make``.

    An output that is no object counts as an object with this output alone.
    """
    output = value if isinstance(value, dict) else {"output": value}
    return MAKERS[schema.EVALS.name].make(output, {**given, "output_passed": _passed(output)})


def has_evals(listed: ListedCall, stored: Iterable[Sequence[Any]]) -> bool:
    """Whether the listed call has exactly the evals of these ``stored`` rows."""
    known = {row[_IDENTITY["eval_config_id"]]: row for row in stored}
    given = {key: {name: row[index] for name, index in _IDENTITY.items()} for key, row in known.items()}
    outputs = eval_outputs(listed)
    return outputs.keys() == known.keys() and all(
        says_the_same(schema.EVALS, eval_row(output, given[key])[0], known[key]) for key, output in outputs.items()
    )


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


def _is_judged(output: Any) -> bool:
    """Whether the eval gave something: one that waits, failed or was skipped tells nothing of the form."""
    if not isinstance(output, dict) or output.get("error") or output.get("skipped"):
        return False
    return not isinstance(status := output.get("status"), str) or status.lower() not in _NO_OUTPUT


def _is_verdict(output: Mapping[str, Any]) -> bool:
    """Whether the eval says in words whether the call passed."""
    return output.get("output_type") == "Pass/Fail" and bool(output.get("output")) and type(output["output"]) is str


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
    for name, values in (("call_results", listed), ("detail", call.shown)):
        if name in payload:
            # The metrics may have a field of this name one day: it is kept, under another name.
            payload[f"metrics.{name}"] = payload.pop(name)
        payload[name] = values
    return payload
