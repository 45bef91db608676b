"""Recompute the API's aggregates of an execution from its exported calls, and explain differences. Pure.

How the API computes them: all calls of the execution count, whatever their status, if they have a value. Deleted
calls, which no list shows any more, still count. Without any value, an average is 0.0 and percentiles are missing.
Percentiles are interpolated linearly. Averages and percentiles are rounded, each to its own digit; a sum is cut to
whole seconds.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any

import pandas as pd
import pyarrow as pa

from etl.model import schema
from etl.model.values import MISFIT, to_float
from etl.model.wording import Word
from etl.transform.rows import value_at

_TURNS = "chat_metrics_turn_count"
_LATENCY = "latency_avg_agent_latency_ms"
_STOP_TIME = "conversation_avg_stop_time_after_interruption_ms"
_FLOAT_ERROR = 1e-9
"""Relative error that a sum of doubles may have, by the order of its terms."""


class Cause(Word):
    """Why an aggregate of the API may differ from that of the exported calls although nothing is wrong."""

    ZERO_FOR_NULL = "zero_for_null", "no call has a value: the API says 0, the dataset null"
    ROUNDING = "rounding", "the API rounds: the difference is less than half a unit in its last digit"
    DELETED_CALLS = "deleted_calls", "the API still counts calls that were deleted"
    DEAD_LETTER = "dead_letter", "a call could not be exported, or has its old values: see the errors table"
    MISFIT = "misfit", "a value that does not fit its column is kept in extra"
    BOT_MESSAGES = (
        "bot_messages",
        "a call has no turn count: the API then uses the number of the bot's messages, which it does not return",
    )
    LEFT_OUT = "left_out", "the API leaves the aggregate out"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """How one aggregate of an execution follows from its calls."""

    column: str
    """Its column in ``executions``."""
    source: str
    """The column in ``calls`` that it is computed from."""
    method: str
    """mean, sum, p50, p95, p99, or count."""
    last_digit: float
    """The unit to which the API rounds it: 0.1 for one digit after the point."""
    status: str | None = None
    """The status of the calls that are counted, if not all are. Only for the method count."""

    def of(self, calls: pd.DataFrame) -> pd.Series:
        """Its value for each execution of the calls, by execution_id; NaN if no call of it has a value.

        ``calls`` has the ``SOURCE_COLUMNS``.
        """
        if self.method == "count":
            is_counted = (calls["status"] == self.status) | (self.status is None)
            return is_counted.groupby(calls["execution_id"]).sum()
        values = calls.groupby("execution_id")[self.source]
        if self.method in ("mean", "sum"):
            return values.agg(self.method)
        return values.quantile(int(self.method[1:]) / 100)


_PATHS = {column.name: column.paths[0] for column in schema.EXECUTIONS.columns if column.source}
"""By column, the path of the API's value in the execution's payload."""

AGGREGATES: tuple[Aggregate, ...] = (
    Aggregate("latency_avg_agent_latency_ms", _LATENCY, "mean", 1),
    Aggregate("latency_avg_response_time_ms", "latency_response_time_ms", "mean", 1),
    *(Aggregate(f"latency_percentiles_{name}", _LATENCY, name, 0.1) for name in ("p50", "p95", "p99")),
    Aggregate("cost_total_duration_seconds", "duration_seconds", "sum", 1),
    Aggregate("conversation_avg_user_wpm", "conversation_user_wpm", "mean", 0.1),
    Aggregate("conversation_avg_bot_wpm", "conversation_bot_wpm", "mean", 0.1),
    Aggregate("conversation_avg_talk_ratio", "conversation_talk_ratio", "mean", 0.01),
    Aggregate("conversation_avg_user_interruption_rate", "conversation_user_interruption_rate", "mean", 0.01),
    Aggregate("conversation_avg_ai_interruption_rate", "conversation_ai_interruption_rate", "mean", 0.01),
    Aggregate(_STOP_TIME, _STOP_TIME, "mean", 1),
    *(
        Aggregate(f"chat_avg_{kind}_tokens", f"chat_metrics_{kind}_tokens", "mean", 1)
        for kind in ("total", "input", "output")
    ),
    Aggregate("chat_avg_chat_latency_ms", "chat_metrics_avg_latency_ms", "mean", 0.1),
    Aggregate("chat_avg_turn_count", _TURNS, "mean", 1),
    Aggregate("chat_avg_csat_score", "chat_metrics_csat_score", "mean", 0.01),
    Aggregate("calls_total", "status", "count", 1),
    *(Aggregate(f"calls_{status}", "status", "count", 1, status) for status in ("completed", "failed", "pending")),
)
"""All aggregates that the API gives of an execution."""

_SOURCES = sorted({aggregate.source for aggregate in AGGREGATES if aggregate.method != "count"})
_TOTAL = next(aggregate for aggregate in AGGREGATES if aggregate.method == "count" and aggregate.status is None)
SOURCE_COLUMNS = ("execution_id", "status", *_SOURCES, "extra")
"""The columns of ``calls`` that ``recompute`` needs."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What the exported calls of one execution give."""

    values: Mapping[Hashable, float | None]
    """Its aggregates by column of ``executions``; None if no call has a value."""
    misfits: Mapping[Hashable, bool] = field(default_factory=dict)
    """By source column of ``calls``, whether the ``extra`` of a call holds a value that did not fit the column."""
    lacks_turns: bool = False
    """Whether one of its calls has no turn count."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One aggregate of one execution that differs. ``str`` gives both values, for a message."""

    name: str
    """Its path in the payload, below ``metrics``."""
    of_api: Any
    """The API's value, as received."""
    of_calls: float | None
    """The value that the exported calls give; None if none has a value."""
    cause: Cause | None
    """What explains the difference; None if nothing does."""

    def __str__(self) -> str:
        ours = "null" if self.of_calls is None else f"{self.of_calls:g}"
        return f"{self.name} is {self.of_api} according to the API, {ours} computed from the exported calls"


NO_CALLS = Recomputed({figure.column: 0 if figure.method in ("sum", "count") else None for figure in AGGREGATES})
"""The aggregates of an execution without calls."""


def recompute(calls: pa.Table) -> dict[str, Recomputed]:
    """The aggregates of each execution in ``calls``, which has the ``SOURCE_COLUMNS``, by execution_id."""
    frame = calls.select(SOURCE_COLUMNS).to_pandas()
    values = pd.DataFrame({aggregate.column: aggregate.of(frame) for aggregate in AGGREGATES}).astype(object)
    misfits = pd.DataFrame({name: _is_misfit(frame, name) for name in _SOURCES}).groupby(frame["execution_id"]).any()
    lacking = frame[_TURNS].isna().groupby(frame["execution_id"]).any()
    rows = zip(values.where(values.notna(), None).to_dict("records"), misfits.to_dict("records"), lacking, strict=True)
    return dict(zip(values.index, starmap(Recomputed, rows), strict=True))


def _is_misfit(calls: pd.DataFrame, source: str) -> pd.Series:
    """For each call, whether the column is null because ``extra`` has its value."""
    (field_name,) = (column.paths[0][-1] for column in schema.CALLS.columns if column.name == source)
    return calls[source].isna() & calls["extra"].str.contains(f'"{field_name}"', regex=False, na=False)


def mismatches(payload: Mapping[str, Any], ours: Recomputed, *, has_letters: bool) -> list[Mismatch]:
    """The aggregates in which the execution's payload and its exported calls differ, each with its cause.

    ``has_letters`` says whether the execution has dead letters.
    """
    total = value_at(payload, _PATHS[_TOTAL.column])
    missing = total - (ours.values[_TOTAL.column] or 0) if type(total) is int else 0
    differing = []
    for aggregate in AGGREGATES:
        path = _PATHS[aggregate.column]
        of_api, of_calls = value_at(payload, path), ours.values[aggregate.column]
        number = None if of_api is None else to_float(of_api)
        if number != of_calls:
            cause = _cause(aggregate, number, ours, missing=missing, has_letters=has_letters)
            differing.append(Mismatch(".".join(path[1:]), of_api, of_calls, cause))
    return differing


def _cause(aggregate: Aggregate, of_api: Any, ours: Recomputed, *, missing: float, has_letters: bool) -> Cause | None:
    """The first cause that explains the difference; ``missing``: how many calls the API counts that nobody exported."""
    of_calls = ours.values[aggregate.column]
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
        (Cause.MISFIT, ours.misfits.get(aggregate.source, False)),
        (Cause.BOT_MESSAGES, aggregate.source == _TURNS and ours.lacks_turns),
    )
    return next((cause for cause, holds in others if holds), None)


def _is_rounded(aggregate: Aggregate, of_api: float, of_calls: float) -> bool:
    """Whether rounding explains the difference. A count is not rounded; a sum is cut, which loses less than a unit."""
    error = abs(of_api - of_calls)
    if aggregate.method == "sum":
        return error < aggregate.last_digit
    return aggregate.method != "count" and error <= aggregate.last_digit / 2 + _FLOAT_ERROR * abs(of_calls)


def _could_be_missing(aggregate: Aggregate, of_api: float, of_calls: float | None, missing: float) -> bool:
    """Whether so many more calls could explain the API's value.

    More calls make counts and sums only grow, a count by at most one for each call. They may move an average either
    way.
    """
    if aggregate.method == "count":
        return 0 <= of_api - (of_calls or 0) <= missing
    return aggregate.method != "sum" or of_api >= (of_calls or 0)
