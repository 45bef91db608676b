"""Recompute the API's aggregates of an execution from its exported calls, and explain differences. Pure.

The API takes all calls of the execution, whatever their status, that have a value. Without any value an average is 0.0 and
percentiles are missing. Deleted calls, which no list shows any more, still count. Percentiles are interpolated linearly. Averages
and percentiles are rounded, each to its own digit.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import floor, fsum
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema
from etl.model.values import MISFIT, to_float

_TURNS = "chat_metrics_turn_count"
_LATENCY = "latency_avg_agent_latency_ms"
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_FLOAT_ERROR = 1e-9


class Cause(StrEnum):
    """Why an aggregate of the API may differ from that of the exported calls though nothing is wrong."""

    ZERO_FOR_NULL = "zero_for_null"
    ROUNDING = "rounding"
    DELETED_CALLS = "deleted_calls"
    DEAD_LETTER = "dead_letter"
    MISFIT = "misfit"
    BOT_MESSAGES = "bot_messages"
    LEFT_OUT = "left_out"
    UNKNOWN_METRIC = "unknown_metric"


CAUSE_MEANINGS: dict[Cause, str] = {
    Cause.ZERO_FOR_NULL: "no call has a value: the API says 0, the dataset null",
    Cause.ROUNDING: "the API rounds: less than half of its last digit",
    Cause.DELETED_CALLS: "the API still counts calls that were deleted",
    Cause.DEAD_LETTER: "a call could not be exported, or has its old values: see the errors table",
    Cause.MISFIT: "a value that does not fit its column is kept in extra",
    Cause.BOT_MESSAGES: "a call has no turn count: the API takes the number of its bot's messages, which it does not export",
    Cause.LEFT_OUT: "the API leaves the aggregate out",
    Cause.UNKNOWN_METRIC: "an aggregate that this version does not know",
}


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate: its column in ``executions``, and the ``source`` column in ``calls`` from which ``method`` computes it.

    ``method`` is mean, sum, p50, p95, p99, or count: of all calls, or of those with ``status``. ``last_digit`` is the unit to
    which the API rounds.
    """

    column: str
    source: str
    method: str
    last_digit: float
    status: str | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The path of the API's value in the payload."""
        return _PATHS[schema.EXECUTIONS.name][self.column]


_PATHS = {
    table.name: {column.name: column.paths[0] for column in table.columns if column.paths}
    for table in (schema.EXECUTIONS, schema.CALLS)
}

AGGREGATES: tuple[Aggregate, ...] = (
    Aggregate("latency_avg_agent_latency_ms", _LATENCY, "mean", 1),
    Aggregate("latency_avg_response_time_ms", "latency_response_time_ms", "mean", 1),
    *(Aggregate(f"latency_percentiles_{name}", _LATENCY, name, 0.1) for name in _PERCENTILES),
    Aggregate("cost_total_duration_seconds", "duration_seconds", "sum", 1),
    Aggregate("conversation_avg_user_wpm", "conversation_user_wpm", "mean", 0.1),
    Aggregate("conversation_avg_bot_wpm", "conversation_bot_wpm", "mean", 0.1),
    Aggregate("conversation_avg_talk_ratio", "conversation_talk_ratio", "mean", 0.01),
    Aggregate("conversation_avg_user_interruption_rate", "conversation_user_interruption_rate", "mean", 0.01),
    Aggregate("conversation_avg_ai_interruption_rate", "conversation_ai_interruption_rate", "mean", 0.01),
    Aggregate(
        "conversation_avg_stop_time_after_interruption_ms",
        "conversation_avg_stop_time_after_interruption_ms",
        "mean",
        1,
    ),
    Aggregate("chat_avg_total_tokens", "chat_metrics_total_tokens", "mean", 1),
    Aggregate("chat_avg_input_tokens", "chat_metrics_input_tokens", "mean", 1),
    Aggregate("chat_avg_output_tokens", "chat_metrics_output_tokens", "mean", 1),
    Aggregate("chat_avg_chat_latency_ms", "chat_metrics_avg_latency_ms", "mean", 0.1),
    Aggregate("chat_avg_turn_count", _TURNS, "mean", 1),
    Aggregate("chat_avg_csat_score", "chat_metrics_csat_score", "mean", 0.01),
    Aggregate("calls_total", "status", "count", 1),
    *(Aggregate(f"calls_{status}", "status", "count", 1, status) for status in ("completed", "failed", "pending")),
)

_SOURCES = sorted({aggregate.source for aggregate in AGGREGATES if aggregate.method != "count"})
_TOTAL = next(aggregate for aggregate in AGGREGATES if aggregate.method == "count" and aggregate.status is None)
SOURCE_COLUMNS = ("execution_id", "status", *_SOURCES, "extra")
"""The columns of ``calls`` that ``recompute`` needs."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """One execution's aggregates by column, None without data.

    ``misfits`` are the columns of its calls for which ``extra`` holds a value that did not fit. ``lacks_turns``: one of its calls
    has no turn count.
    """

    values: Mapping[str, float | None]
    misfits: frozenset[str] = frozenset()
    lacks_turns: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One aggregate that differs; ``cause`` is None when nothing explains it."""

    name: str
    of_api: Any
    of_calls: float | None
    cause: Cause | None

    def __str__(self) -> str:
        """Both values, for a message."""
        ours = "null" if self.of_calls is None else f"{self.of_calls:g}"
        return f"{self.name} is {self.of_api} at the API, {ours} computed from the exported calls"


NO_CALLS = Recomputed(
    {aggregate.column: 0 if aggregate.method in ("sum", "count") else None for aggregate in AGGREGATES}
)
"""The aggregates of an execution without calls."""


def recompute(calls: pa.Table) -> dict[str, Recomputed]:
    """The aggregates of each execution in ``calls``, which has the ``SOURCE_COLUMNS``, by execution_id."""
    positions: dict[str, list[int]] = {}
    for position, execution_id in enumerate(calls["execution_id"].to_pylist()):
        positions.setdefault(execution_id, []).append(position)
    columns = {name: calls[name].to_pylist() for name in ("status", *_SOURCES)}
    misfits = _misfits(calls)
    return {
        execution_id: Recomputed(
            {aggregate.column: _aggregate(aggregate, columns[aggregate.source], own) for aggregate in AGGREGATES},
            frozenset(misfits.get(execution_id, ())),
            any(columns[_TURNS][position] is None for position in own),
        )
        for execution_id, own in positions.items()
    }


def _aggregate(aggregate: Aggregate, column: Sequence[Any], positions: Iterable[int]) -> float | None:
    values = [column[position] for position in positions]
    if aggregate.method == "count":
        return len(values) if aggregate.status is None else values.count(aggregate.status)
    values = [value for value in values if value is not None]
    if aggregate.method == "sum":
        return fsum(values)
    if not values:
        return None
    return fsum(values) / len(values) if aggregate.method == "mean" else _percentile(values, aggregate.method)


def _percentile(values: list[float], name: str) -> float:
    values.sort()
    position = (len(values) - 1) * _PERCENTILES[name]
    below = floor(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (position - below)


def mismatches(payload: Mapping[str, Any], ours: Recomputed, *, has_letters: bool) -> list[Mismatch]:
    """Where the execution's payload and its calls differ, with causes; ``has_letters``: it has dead letters."""
    total = _at(payload, _TOTAL.path)
    missing = total - (ours.values[_TOTAL.column] or 0) if type(total) is int else 0
    result = []
    for aggregate in AGGREGATES:
        of_api, of_calls = _at(payload, aggregate.path), ours.values[aggregate.column]
        number = None if of_api is None else to_float(of_api)
        if number == of_calls:
            continue
        cause = _cause(
            aggregate,
            number,
            of_calls,
            missing=missing,
            has_letters=has_letters,
            is_misfit=aggregate.source in ours.misfits,
            lacks_turns=aggregate.source == _TURNS and ours.lacks_turns,
        )
        result.append(Mismatch(".".join(aggregate.path[1:]), of_api, of_calls, cause))
    known = {aggregate.path for aggregate in AGGREGATES}
    return result + [
        Mismatch(".".join(path[1:]), value, None, Cause.UNKNOWN_METRIC)
        for path, value in _leaves(payload.get("metrics"), ("metrics",))
        if path not in known
    ]


def _cause(
    aggregate: Aggregate,
    of_api: Any,
    of_calls: float | None,
    *,
    missing: float,
    has_letters: bool,
    is_misfit: bool,
    lacks_turns: bool,
) -> Cause | None:
    if of_api is None:
        return Cause.LEFT_OUT
    if of_api is MISFIT:
        return None
    if of_calls is None and of_api == 0:
        return Cause.ZERO_FOR_NULL
    if of_calls is not None and _is_rounded(aggregate, of_api, of_calls):
        return Cause.ROUNDING
    others = (
        (Cause.DEAD_LETTER, has_letters),
        (Cause.DELETED_CALLS, missing > 0 and _could_be_missing(aggregate, of_api, of_calls, missing)),
        (Cause.MISFIT, is_misfit),
        (Cause.BOT_MESSAGES, lacks_turns),
    )
    return next((cause for cause, holds in others if holds), None)


def _is_rounded(aggregate: Aggregate, of_api: float, of_calls: float) -> bool:
    error = abs(of_api - of_calls)
    if aggregate.method == "sum":
        # The API cuts the sum to whole seconds, which loses less than one.
        return error < aggregate.last_digit
    return aggregate.method != "count" and error <= aggregate.last_digit / 2 + _FLOAT_ERROR * abs(of_calls)


def _could_be_missing(aggregate: Aggregate, of_api: float, of_calls: float | None, missing: float) -> bool:
    """Whether so many more calls could explain the API's value: counts and sums only grow, and a count by one for each call."""
    if aggregate.method == "count":
        return 0 <= of_api - (of_calls or 0) <= missing
    return aggregate.method != "sum" or of_api >= (of_calls or 0)


def _misfits(calls: pa.Table) -> dict[str, set[str]]:
    """The source columns that are null because their value is in ``extra``, by execution_id."""
    found: dict[str, set[str]] = {}
    with_extra = calls.filter(pc.is_valid(calls["extra"]))
    for row in with_extra.select(SOURCE_COLUMNS).to_pylist():
        extra = msgspec.json.decode(row["extra"])
        for name in _SOURCES:
            if row[name] is None and _at(extra, _PATHS[schema.CALLS.name][name]) is not None:
                found.setdefault(row["execution_id"], set()).add(name)
    return found


def _at(document: Any, path: Collection[str]) -> Any:
    for step in path:
        if not isinstance(document, dict):
            return None
        document = document.get(step)
    return document


def _leaves(document: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(document, dict):
        for name, value in document.items():
            yield from _leaves(value, (*path, name))
    elif len(path) > 1:
        yield path, document
