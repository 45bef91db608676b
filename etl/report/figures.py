"""What a report says of one run test: figures by week and day, rates, worst calls, what changed, what got worse. Pure.

Owns every figure of the page; ``charts`` draws them and ``page`` puts them in words. A figure without data has no rows:
nothing is shown as zero that nobody measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.comparison import Row
from etl.compare.estimate import difference
from etl.compare.nightly import Worse
from etl.compare.pairing import NONE
from etl.compare.samples import CALL_COLUMNS, difference_of, eval_metrics, samples_of
from etl.compare.selection import ComparedExecution, Selection, select_latest
from etl.compare.statistics import Difference
from etl.inspect.joined_calls import eval_names
from etl.model import schema
from etl.model.arrow import where
from etl.model.metrics import METRICS, Metric
from etl.settings.results import Compare

LATENCIES = ("latency_avg_agent_latency_ms", "chat_metrics_avg_latency_ms")
"""The columns whose latencies are drawn, each in a chart of its own."""
INTERRUPTIONS = ("conversation_ai_interruption_rate", "conversation_user_interruption_rate")
"""By the agent, and by the user: one chart has both."""
COST = "cost_total_cost_cents"
CALLS_READ = [*CALL_COLUMNS, "date"]
"""The columns of calls that a report reads."""
WORST_CALLS = 10
"""How many of them are listed."""
_DAY, _WEEK = timedelta(days=1), timedelta(days=7)
_LONG = timedelta(days=92)
"""If the days of a report are farther apart, a bar stands for a week."""
Forest = tuple[Worse, Sequence[tuple[str, Difference]]]
"""What got worse, and how it differs in each scenario that has calls before and since.

Scenarios have their names, and stand in the order of their change, the largest first; those with too few calls come
last.
"""


@dataclass(frozen=True, slots=True)
class Outputs:
    """How many outputs an eval has, and how many of them passed."""

    calls: int = 0
    passed: int = 0

    @property
    def rate(self) -> float:
        """The share that passed; NaN without outputs."""
        return self.passed / self.calls if self.calls else math.nan


@dataclass(frozen=True, slots=True)
class PassRates:
    """The outputs of an eval, or of one of its scenarios."""

    name: str
    """The name of the eval, or of the scenario."""
    before: Outputs
    """The outputs of the baseline."""
    now: Outputs
    """The outputs of the candidate."""
    whole: Outputs
    """The outputs of all calls of the report."""

    @property
    def change(self) -> float:
        """The rate now minus the rate before; 0 where a side has no outputs."""
        return self.now.rate - self.before.rate if self.now.calls and self.before.calls else 0.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is drawn and listed of one run test.

    Weeks are named by their Mondays. Frames by ``week`` have a row without values for each empty week between two
    others.
    """

    step: timedelta
    """What a bar stands for: a day or, where the report is long, a week."""
    latencies: Mapping[str, pd.DataFrame]
    """By column of ``LATENCIES``: by ``week`` the percentiles ``p50`` and ``p95``, in ms."""
    interruptions: pd.DataFrame
    """By ``week`` the means of ``INTERRUPTIONS``, per minute."""
    cost: pd.DataFrame
    """By ``start`` of a step the ``dollars``, of the steps with a cost."""
    statuses: pd.DataFrame
    """By ``start`` of a step and ``status`` the number of ``calls``."""
    weekly_rates: Mapping[str, pd.DataFrame]
    """By name of an eval: by ``week`` the ``rate`` that passed, a share, and the number of ``outputs``."""
    pass_rates: Sequence[tuple[PassRates, Sequence[PassRates]]]
    """Each eval with its scenarios: evals by the largest change, scenarios by the lowest rate now."""
    forests: Sequence[Forest]
    """What got worse, where scenarios are known that have calls before and since."""
    worst_calls: Sequence[WorstCall]
    """Of the calls since something got worse or, if nothing did, of the candidate; the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a report says of one run test."""

    key: str
    """The key of the folder that holds its newest execution."""
    name: str
    """The name that the newest execution gives it."""
    executions: int
    """How many executions there are, finished or not."""
    calls: int
    """How many calls they have."""
    days: tuple[date, date] | None
    """The first and the last day of the calls; None without calls."""
    dollars: float | None
    """The cost of all calls; None where no call has one."""
    selections: tuple[Selection, Selection] | None
    """Baseline and candidate of the changes; None with fewer than two finished executions."""
    changes: Sequence[Row]
    """Each metric that has values, what got worse first; empty without selections."""
    worse: Sequence[Worse]
    """What got worse by the verdict on the nights, what surely got worse most first."""
    details: Details | None
    """None for a run test that is only listed."""


def figures_of(
    executions: Sequence[ComparedExecution],
    calls: pa.Table,
    evals: pa.Table,
    worse: Sequence[Worse] = (),
    *,
    rules: Compare,
    has_details: bool = True,
) -> Figures:
    """The figures of one run test that has these executions, one at least; ``worse`` is what the nights say of it.

    ``calls`` and ``evals`` have their keys, ``CALLS_READ`` and ``EVAL_COLUMNS``. Rows of other executions are left out.
    """
    ids = pa.array([execution.execution_id for execution in executions], schema.STRING)
    calls, evals = (where(rows, pc.is_in(rows["execution_id"], value_set=ids)) for rows in (calls, evals))
    selections = select_latest(executions)
    frame = calls.to_pandas(date_as_object=False)
    days = (frame["date"].min().date(), frame["date"].max().date()) if len(frame) else None
    newest = max(executions, key=lambda execution: execution.age)
    return Figures(
        key=newest.run_test,
        name=newest.label,
        executions=len(executions),
        calls=len(frame),
        days=days,
        dollars=None if frame[COST].isna().all() else float(frame[COST].sum() / 100),
        selections=selections,
        changes=_changes(selections, calls, evals, [each.row.metric.name for each in worse], rules)
        if selections
        else [],
        worse=worse,
        details=_details(frame, evals, selections, worse) if has_details else None,
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


def _changes(
    selections: tuple[Selection, Selection], calls: pa.Table, evals: pa.Table, worse: Sequence[str], rules: Compare
) -> list[Row]:
    """A row for each metric of which baseline or candidate has values, first the metrics that are worse."""
    samples, _ = samples_of(calls, evals, *(selection.executions for selection in selections), rules=rules)
    metrics = (*METRICS.values(), *eval_metrics(samples).values())
    rows = [Row(metric, difference_of(metric, samples)) for metric in metrics]
    rows = [row for row in rows if row.found.baseline_calls or row.found.candidate_calls]
    return sorted(rows, key=lambda row: [*worse, row.metric.name].index(row.metric.name))


def _details(
    calls: pd.DataFrame, evals: pa.Table, selections: tuple[Selection, Selection] | None, worse: Sequence[Worse]
) -> Details:
    """The details of one run test. Adds to ``calls`` the ``week``, the ``start`` of the step, and the ``scenario``."""
    step = _WEEK if calls["date"].max() - calls["date"].min() > _LONG else _DAY
    calls["week"] = calls["date"] - pd.to_timedelta(calls["date"].dt.day_of_week, unit="D")
    calls["start"] = calls["week"] if step == _WEEK else calls["date"]
    scenarios = calls["scenario_id"].fillna(calls["scenario_name"]).fillna("")
    calls["scenario"] = pd.Categorical(scenarios, sorted({"", *scenarios.unique()}))  # each text is in memory once
    named = calls[["scenario", "scenario_name"]].dropna().drop_duplicates("scenario", keep="last")
    names = {"": "no scenario"} | dict(named.itertuples(index=False, name=None))
    sides = [{execution.execution_id for execution in side.executions} for side in selections or ()]
    outputs = _outputs(evals, calls)
    by_eval = [(str(name), of_eval) for name, of_eval in outputs.groupby("eval")]
    pass_rates = [_pass_rates(name, of_eval, sides, names) for name, of_eval in by_eval]
    candidate = sides[1] if sides else set(calls["execution_id"])
    return Details(
        step=step,
        latencies={column: by_week for column in LATENCIES if len(by_week := _latency(calls, column))},
        interruptions=_every_week(calls.groupby("week")[list(INTERRUPTIONS)].mean().dropna(how="all")),
        cost=(calls.groupby("start")[COST].sum(min_count=1).dropna() / 100).rename("dollars").reset_index(),
        statuses=calls.groupby(["start", calls["status"].fillna("unknown")]).size().rename("calls").reset_index(),
        weekly_rates={name: _weekly_rates(of_eval) for name, of_eval in by_eval},
        pass_rates=sorted(pass_rates, key=lambda rates: (-abs(rates[0].change), rates[0].whole.rate)),
        forests=[forest for forest in map(_forest, worse) if forest[1]],
        worst_calls=_worst_calls(calls, outputs, evals, worse[0] if worse else None, candidate),
    )


def _outputs(evals: pa.Table, calls: pd.DataFrame) -> pd.DataFrame:
    """The outputs that passed or failed, with the ``eval``'s name, and their call's ``week`` and ``scenario``."""
    judged = evals.filter(pc.is_valid(evals["output_passed"]))
    rows: pd.DataFrame = judged.to_pandas()
    of_calls = calls.set_index("call_execution_id")[["week", "scenario"]].reindex(rows["call_execution_id"])
    return rows.assign(
        eval=eval_names(judged).to_pandas(),
        week=of_calls["week"].array,
        scenario=of_calls["scenario"].fillna("").array,
        has_passed=rows["output_passed"].astype(bool),
    )


def _latency(calls: pd.DataFrame, column: str) -> pd.DataFrame:
    by_week = calls.dropna(subset=[column]).groupby("week")[column]
    return _every_week(pd.DataFrame({"p50": by_week.quantile(0.5), "p95": by_week.quantile(0.95)}))


def _every_week(by_week: pd.DataFrame) -> pd.DataFrame:
    """The weeks with values, and those in between without: no line runs across them."""
    return by_week.asfreq("7D").rename_axis("week").reset_index()


def _weekly_rates(outputs: pd.DataFrame) -> pd.DataFrame:
    passed = outputs.groupby("week")["has_passed"]
    return _every_week(pd.DataFrame({"rate": passed.mean(), "outputs": passed.size()}))


def _pass_rates(
    eval_name: str, outputs: pd.DataFrame, sides: Sequence[set[str]], names: Mapping[str, str]
) -> tuple[PassRates, list[PassRates]]:
    """The rates of one eval, and of each of its scenarios: those with calls now first, each by its rate.

    ``sides`` are the ids of the executions of baseline and candidate, if there are such; ``names`` those of scenarios
    by id.
    """
    compared = [outputs[outputs["execution_id"].isin(ids)] for ids in sides or (set(), set())]
    of_sides = [_by_scenario(rows) for rows in (*compared, outputs)]
    whole = (Outputs(len(rows), int(rows["has_passed"].sum())) for rows in (*compared, outputs))
    scenarios = [
        PassRates(names.get(scenario, scenario), *(side.get(scenario, Outputs()) for side in of_sides))
        for scenario in of_sides[-1]
    ]
    return PassRates(eval_name, *whole), sorted(scenarios, key=_lowest_rate_first)


def _by_scenario(outputs: pd.DataFrame) -> dict[str, Outputs]:
    passed = outputs.groupby("scenario")["has_passed"].agg(["size", "sum"])
    return {scenario: Outputs(calls, passes) for scenario, calls, passes in passed.itertuples(name=None)}


def _lowest_rate_first(rates: PassRates) -> tuple[bool, float, str]:
    current = rates.now if rates.now.calls else rates.whole
    return not rates.now.calls, current.rate, rates.name


def _forest(worse: Worse) -> Forest:
    """How the metric differs in each scenario. Rows of a scenario's data are matched one by one, but shown together."""
    names, scenario_of_row = np.unique(np.array(worse.pairing.names, dtype=object), return_inverse=True)
    scenario_of_row = np.append(scenario_of_row, NONE)  # the last one, at -1, is that of calls without a scenario
    metric = worse.row.metric
    samples = [each.of(metric) for each in worse.samples]
    scenarios = []
    for number, name in enumerate(names):
        before, after = (sample.only(scenario_of_row[sample.scenarios] == number) for sample in samples)
        found = difference(before, after, metric.statistic, is_higher_worse=metric.is_higher_worse)
        change = change_of(metric, found)
        if change is not None:
            scenarios.append((found.difference is None, -abs(change), name, found))
    scenarios.sort(key=lambda each: each[:2])
    return worse, [(name, found) for _, _, name, found in scenarios]


def _worst_calls(
    calls: pd.DataFrame, outputs: pd.DataFrame, evals: pa.Table, worse: Worse | None, candidate: set[str]
) -> list[WorstCall]:
    """The calls that are worst by what got worse, then those with the most failed evals, and among equals the slowest.

    They are completed calls, unless it is the share of failed calls that got worse; of the candidate's executions, or
    of those since it got worse.
    """
    metric = worse.row.metric if worse else None
    compared = {execution.execution_id for execution in worse.sides[1]} if worse else candidate
    calls = calls[calls["execution_id"].isin(compared)]
    if metric is None or metric.column != "status":
        calls = calls[calls["status"].eq("completed")]
    failed = outputs[~outputs["has_passed"]].set_index("call_execution_id")["eval"]
    values = _values(metric, calls, evals) if metric else pd.Series(dtype=float)
    calls = calls.assign(
        day=calls["date"].dt.date,
        value=values.reindex(calls["call_execution_id"]).to_numpy(float),
        latency_ms=calls[LATENCIES[0]].fillna(calls[LATENCIES[1]]),
        failures=calls["call_execution_id"].map(failed.index.value_counts()).fillna(0),
    )
    is_lower_worse = metric is not None and not metric.is_higher_worse
    by = {"value": is_lower_worse, "failures": False, "latency_ms": False, "call_execution_id": True}
    worst = calls.sort_values(list(by), ascending=list(by.values())).head(WORST_CALLS).astype(object)
    worst["failed_evals"] = [sorted(failed[failed.index == call_id]) for call_id in worst["call_execution_id"]]
    rows = worst.where(worst.notna(), None)[[field.name for field in fields(WorstCall)]]
    return [WorstCall(*row) for row in rows.to_numpy().tolist()]


def _values(metric: Metric, calls: pd.DataFrame, evals: pa.Table) -> pd.Series:
    """The values of the metric by call: of a rate of calls, whether it failed; of an eval, the mean of its outputs."""
    if metric.eval_name is None:
        values = calls.set_index("call_execution_id")[metric.column]
        return values.eq("failed") if metric.is_rate else values
    own = evals.filter(pc.equal(eval_names(evals), metric.eval_name)).select(["call_execution_id", metric.column])
    outputs: pd.DataFrame = own.to_pandas().astype({metric.column: float})
    return outputs.groupby("call_execution_id")[metric.column].mean()
