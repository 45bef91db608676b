"""What a report says of one run test: how it stands, what changed by night and by scenario, and its worst calls. Pure.

Owns every figure of the page; ``charts`` draws them and ``page`` puts them in words. All figures before and after are
of the same two sides: those of the gravest alarm or, without one, the newest week and the four weeks before. What got
worse since another night has the figures of its own alarm. A figure without data has no rows: nothing is shown as zero
that nobody measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.causes import JudgeChange, judge_changes, new_versions
from etl.compare.comparison import Row
from etl.compare.estimate import difference
from etl.compare.nightly import Executions, Worse
from etl.compare.pairing import NONE, Pairing
from etl.compare.samples import CALL_COLUMNS, Samples, difference_of, eval_metrics, samples_of
from etl.compare.selection import ComparedExecution, select_latest
from etl.compare.statistics import Difference, Numbers, Values
from etl.inspect.joined_calls import eval_names
from etl.model.arrow import is_of, where
from etl.model.metrics import METRICS, Metric, Statistic
from etl.settings.results import Compare

LATENCIES = ("latency_avg_agent_latency_ms", "chat_metrics_avg_latency_ms")
"""The columns of latencies, of voice calls and of chats."""
COST = "cost_total_cost_cents"
CALLS_READ = [*CALL_COLUMNS, "date"]
"""The columns of calls that a report reads."""
WORST_CALLS = 10
"""How many of them are listed."""
_MOST_NIGHTS = 35
"""How many nights a trend has, the last ones: an alarm has 28 at most."""
_BINS = 24
_OF_SUCCESS = "cost of all calls, divided by the completed calls that failed no eval"
_COST_OF_SUCCESS = Metric("", "Cost per successful call", COST, "US cents", Statistic.MEAN, _OF_SUCCESS)


class Standing(StrEnum):
    """The verdict on a run test in a word, in the order of what needs a person."""

    WORSE = "worse"
    NO_CALLS = "no calls"
    AS_BEFORE = "no alarm"
    NOT_YET = "not judged yet"


@dataclass(frozen=True, slots=True)
class Compared:
    """The two sides that the figures of a run test are of."""

    sides: tuple[Executions, Executions]
    """The executions before and after; none before where there is nothing to compare with."""
    samples: Sequence[Samples]
    """The values of all metrics, before and after."""
    pairing: Pairing
    """How the calls of both sides are matched."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A metric by night."""

    row: Row
    """The metric before and after."""
    nights: Sequence[tuple[date, float]]
    """The last nights that were compared, oldest first, each with the mean of its calls."""
    since: date | None
    """The first night of the change; None where the metric did not get worse."""


Forest = Sequence[tuple[str, Difference]]
"""How a metric differs in each scenario that has calls before and after.

Scenarios have their names, and stand in the order of their change, the largest first; those with too few calls come
last.
"""


@dataclass(frozen=True, slots=True)
class ScenarioRates:
    """The pass rates of a scenario."""

    name: str
    calls: tuple[int, int]
    """How many calls the evals judged before and after: those of the eval that judged most."""
    rates: Sequence[tuple[float | None, float | None]]
    """Of each eval the share that passed before and after; None without outputs."""

    @property
    def change(self) -> float:
        """That of the eval that fell most, or rose least; 0 where none has both rates."""
        both = ((before, after) for before, after in self.rates if before is not None and after is not None)
        return min((after - before for before, after in both), default=0.0)


@dataclass(frozen=True, slots=True)
class Distribution:
    """How the calls of both sides are distributed over a metric's values."""

    metric: Metric
    edges: Values
    """From zero to the 99th percentile of both sides, in equal steps."""
    before: Values
    """The share of the calls in each step; the last one has all above, too."""
    after: Values


@dataclass(frozen=True, slots=True)
class WorstCall:
    """A call that is worth listening to. What the call does not have is None."""

    call_execution_id: str
    execution_id: str
    scenario_name: str | None
    day: date
    """The day on which its execution began, UTC."""
    latency_ms: float | None
    """The latency of the agent or, in a chat, of the chat."""
    value: float | None
    """The value of the metric that got worse most, in its unit; None where nothing did."""
    failed_evals: Sequence[str]
    """The names of the evals that it failed, in order."""
    ended_reason: str | None
    agent_version: str | None
    run_test_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is drawn and listed of one run test."""

    sides: tuple[Executions, Executions]
    """The executions before and after."""
    changes: Sequence[Row]
    """Each metric that has values, what got worse first; and the cost per successful call."""
    forests: Sequence[Forest]
    """One for each trend of what got worse; empty where no scenario has calls before and after."""
    evals: Sequence[Row]
    """The pass rates of all scenarios together, those that changed most first."""
    rates: Sequence[ScenarioRates]
    """The pass rates of each scenario by these evals, where one fell most first."""
    distributions: Sequence[Distribution]
    """Of each latency that has values."""
    failures: Sequence[tuple[str, int, int]]
    """Each reason why calls failed, with their number before and after; the most frequent after first."""
    versions: Sequence[tuple[date, str]]
    """The first night of each version of the agent, but for the oldest."""
    judges: Sequence[JudgeChange]
    """How evals came to be judged in another way, oldest first."""
    worst_calls: Sequence[WorstCall]
    """Of the calls after; the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a report says of one run test."""

    key: str
    """The key of the folder that holds its newest execution."""
    name: str
    """The name that the newest execution gives it."""
    standing: Standing
    calls: int
    """How many calls its executions have."""
    days: tuple[date, date] | None
    """The first and the last day of the calls; None without calls."""
    dollars: float | None
    """The cost of all calls; None where no call has one."""
    worse: Sequence[Worse]
    """What got worse by the verdict on the nights, what surely got worse most first."""
    trends: Sequence[Trend]
    """One of each metric that got worse, in the same order; where none did, of the first that has values."""
    details: Details | None
    """None for a run test that is only listed."""


def figures_of(
    executions: Sequence[ComparedExecution],
    calls: pa.Table,
    evals: pa.Table,
    worse: Sequence[Worse] = (),
    *,
    standing: Standing,
    rules: Compare,
    has_details: bool = True,
) -> Figures:
    """The figures of one run test that has these executions, one at least; ``worse`` is what the nights say of it.

    ``calls`` and ``evals`` have their keys, ``CALLS_READ`` and ``EVAL_COLUMNS``. Rows of other executions are not
    counted, and compared only where ``worse`` does.
    """
    own = where(calls, is_of(calls, [execution.execution_id for execution in executions]))
    cents = pc.sum(own[COST]).as_py()
    days = pc.min_max(own["date"]).as_py()
    newest = max(executions, key=lambda execution: execution.age)
    compared = _compared(executions, calls, evals, worse, rules)
    return Figures(
        key=newest.run_test,
        name=newest.label,
        standing=standing,
        calls=len(own),
        days=(days["min"], days["max"]) if len(own) else None,
        dollars=None if cents is None else cents / 100,
        worse=worse,
        trends=[_trend(each.row, each, each.since) for each in worse] or _first_trend(compared),
        details=_details(executions, calls, evals, compared, worse) if has_details else None,
    )


def change_of(metric: Metric, found: Difference) -> float | None:
    """By how much the figure changed, however few calls tell: of a rate the difference, else a share of the baseline.

    None where a side has no calls, or the baseline is zero.
    """
    if found.baseline is None or found.candidate is None:
        return None
    if metric.is_rate:
        return found.candidate - found.baseline
    return (found.candidate - found.baseline) / abs(found.baseline) if found.baseline else None


def _compared(
    executions: Executions, calls: pa.Table, evals: pa.Table, worse: Sequence[Worse], rules: Compare
) -> Compared:
    if worse:
        return Compared(worse[0].sides, worse[0].samples, worse[0].pairing)
    selections = select_latest(executions)
    finished = [execution for execution in executions if execution.is_finished]
    sides = (selections[0].executions, selections[1].executions) if selections else ((), finished)
    return Compared(sides, *samples_of(calls, evals, *sides, rules=rules))


def _first_trend(compared: Compared) -> list[Trend]:
    """That of the first metric of calls that has values, but for percentiles."""
    for metric in METRICS.values():
        if metric.statistic in (Statistic.MEAN, Statistic.RATE) and len(compared.samples[1].of(metric)):
            return [_trend(Row(metric, difference_of(metric, compared.samples)), compared, None)]
    return []


def _trend(row: Row, compared: Compared | Worse, since: date | None) -> Trend:
    both = [samples.of(row.metric) for samples in compared.samples]
    days = [
        np.array([execution.started_at.toordinal() for execution in side], dtype=np.int64)[sample.executions]
        for side, sample in zip(compared.sides, both, strict=True)
    ]
    nights, number = np.unique(np.concatenate(days), return_inverse=True)
    means = np.bincount(number, np.concatenate([sample.values for sample in both])) / np.bincount(number)
    by_night = [(date.fromordinal(night), mean) for night, mean in zip(nights.tolist(), means.tolist(), strict=True)]
    return Trend(row, by_night[-_MOST_NIGHTS:], since)


def _details(
    executions: Executions, calls: pa.Table, evals: pa.Table, compared: Compared, worse: Sequence[Worse]
) -> Details:
    rows = {row.metric.name: row for row in _changes(compared.samples)}
    first = {each.metric: each.row for each in worse}
    changes = [*(first | rows | first).values()]
    passed = [row for row in changes if row.metric.eval_name and row.metric.is_rate]
    passed.sort(key=lambda row: -abs(change_of(row.metric, row.found) or 0.0))
    before, after = (_frame(calls, evals, side) for side in compared.sides)
    costs = Difference(
        baseline=_cost_of_success(before),
        candidate=_cost_of_success(after),
        baseline_calls=len(before),
        candidate_calls=len(after),
        is_higher_worse=True,
    )
    return Details(
        sides=compared.sides,
        changes=changes if costs.candidate is None else [*changes, Row(_COST_OF_SUCCESS, costs)],
        forests=[_forest(each) for each in worse],
        evals=passed,
        rates=_rates(compared, [row.metric for row in passed]),
        distributions=_distributions(compared.samples),
        failures=_failures(before, after),
        versions=new_versions(executions),
        judges=judge_changes(executions),
        worst_calls=_worst_calls(after, evals, worse[0].row.metric if worse else None),
    )


def _changes(both: Sequence[Samples]) -> list[Row]:
    """A row for each metric of which a side has values."""
    metrics = (*METRICS.values(), *eval_metrics(both).values())
    rows = [Row(metric, difference_of(metric, both)) for metric in metrics]
    return [row for row in rows if row.found.baseline_calls or row.found.candidate_calls]


def _frame(calls: pa.Table, evals: pa.Table, executions: Executions) -> pd.DataFrame:
    """The calls of these executions, with the agent's version, and ``failed_evals``: a list of names, in order."""
    own = calls.filter(is_of(calls, [execution.execution_id for execution in executions]))
    frame: pd.DataFrame = own.to_pandas(date_as_object=False)
    failed = evals.filter(pc.equal(evals["output_passed"], False))  # noqa: FBT003 a value, not a flag
    names = eval_names(failed).to_pandas().groupby(failed["call_execution_id"].to_pandas()).agg(sorted)
    failed_evals = [names.get(call_id, []) for call_id in frame["call_execution_id"]]
    of_executions = {
        name: frame["execution_id"].map({each.execution_id: getattr(each, name) for each in executions})
        for name in ("agent_version", "run_test_id")
    }
    return frame.assign(failed_evals=failed_evals, **of_executions)


def _cost_of_success(calls: pd.DataFrame) -> float | None:
    """In cents; None where no call was a success, or none has a cost."""
    successes = (calls["status"].eq("completed") & ~calls["failed_evals"].astype(bool)).sum()
    return float(calls[COST].sum() / successes) if successes and calls[COST].notna().any() else None


def _failures(*sides: pd.DataFrame) -> list[tuple[str, int, int]]:
    failed = [calls.loc[calls["status"].eq("failed"), "ended_reason"].fillna("unknown") for calls in sides]
    counts = pd.concat([reasons.value_counts() for reasons in failed], axis=1).fillna(0).astype(int)
    return sorted(counts.itertuples(name=None), key=lambda each: (-each[2], -each[1], each[0]))


def _scenarios(pairing: Pairing) -> tuple[Sequence[str], Numbers]:
    """The names of scenarios, and for the number of each scenario or row the place of its name.

    The place at -1, that of calls without a scenario, is ``NONE``. Rows of a scenario's data are matched one by one,
    but shown together.
    """
    names, places = np.unique(np.array(pairing.names, dtype=object), return_inverse=True)
    return list(names), np.append(places, NONE)


def _forest(worse: Worse) -> Forest:
    """How the metric differs in each scenario."""
    metric = worse.row.metric
    names, places = _scenarios(worse.pairing)
    samples = [each.of(metric) for each in worse.samples]
    scenarios = []
    for number, name in enumerate(names):
        before, after = (sample.only(places[sample.scenarios] == number) for sample in samples)
        found = difference(before, after, metric.statistic, is_higher_worse=metric.is_higher_worse)
        change = change_of(metric, found)
        if change is not None:
            scenarios.append((found.difference is None, -abs(change), name, found))
    scenarios.sort(key=lambda each: each[:2])
    return [(name, found) for _, _, name, found in scenarios]


def _rates(compared: Compared, metrics: Sequence[Metric]) -> list[ScenarioRates]:
    """The rates of each scenario by these metrics, those first where one fell most."""
    names, places = _scenarios(compared.pairing)
    found = []
    for number, name in enumerate(names if metrics else ()):
        of_evals = [[samples.of(metric) for samples in compared.samples] for metric in metrics]
        values = [[each.values[places[each.scenarios] == number] for each in both] for both in of_evals]
        rates = [(_mean(before), _mean(after)) for before, after in values]
        calls = max(len(before) for before, _ in values), max(len(after) for _, after in values)
        found.append(ScenarioRates(name, calls, rates))
    return sorted(found, key=lambda each: each.change)


def _mean(values: Values) -> float | None:
    return float(values.mean()) if len(values) else None


def _distributions(both: Sequence[Samples]) -> list[Distribution]:
    """Of the latencies that have values after."""
    found = []
    for metric in map(METRICS.__getitem__, ("latency_mean", "chat_latency_mean")):
        values = [samples.of(metric).values for samples in both]
        if len(values[1]):
            edges = np.linspace(0, np.quantile(np.concatenate(values), 0.99) or 1.0, _BINS + 1)
            shares = [np.histogram(np.clip(each, 0, edges[-1]), edges)[0] / max(1, len(each)) for each in values]
            found.append(Distribution(metric, edges, *shares))
    return found


def _worst_calls(calls: pd.DataFrame, evals: pa.Table, metric: Metric | None) -> list[WorstCall]:
    """The calls that are worst by what got worse, then those with the most failed evals, and among equals the slowest.

    They are completed calls, unless it is a share of failed calls that got worse.
    """
    if metric is None or metric.eval_name or not metric.is_rate:
        calls = calls[calls["status"].eq("completed")]
    values = _values(metric, calls, evals) if metric else pd.Series(dtype=float)
    calls = calls.assign(
        day=calls["date"].dt.date,
        value=values.reindex(calls["call_execution_id"]).to_numpy(float),
        latency_ms=calls[LATENCIES[0]].fillna(calls[LATENCIES[1]]),
        failures=calls["failed_evals"].map(len),
    )
    is_lower_worse = metric is not None and not metric.is_higher_worse
    by = {"value": is_lower_worse, "failures": False, "latency_ms": False, "call_execution_id": True}
    worst = calls.sort_values(list(by), ascending=list(by.values())).head(WORST_CALLS).astype(object)
    rows = worst.where(worst.notna(), None)[[field.name for field in fields(WorstCall)]]
    return [WorstCall(*row) for row in rows.to_numpy().tolist()]


def _values(metric: Metric, calls: pd.DataFrame, evals: pa.Table) -> pd.Series:
    """The values of the metric by call: of a rate of calls, whether it failed; of an eval, the mean of its outputs."""
    if metric.eval_name is None:
        by_call = calls.set_index("call_execution_id")
        return by_call["status"].eq("failed") if metric.is_rate else by_call[metric.column]
    own = evals.filter(pc.equal(eval_names(evals), metric.eval_name)).select(["call_execution_id", metric.column])
    outputs: pd.DataFrame = own.to_pandas().astype({metric.column: float})
    return outputs.groupby("call_execution_id")[metric.column].mean()
