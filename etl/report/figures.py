"""What a report says of one run test: figures by week and day, rates, the worst calls, what changed and what got worse. Pure.

A figure without data has no rows: nothing is shown as zero that nobody measured.
"""

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
from etl.compare.repeats import Repeated, repeats_of
from etl.compare.samples import CALL_COLUMNS, difference_of, eval_metrics, samples_of
from etl.compare.selection import ComparedExecution, Selection, select_latest
from etl.compare.statistics import Difference
from etl.inspect.joined_calls import eval_names
from etl.model import schema
from etl.model.arrow import where
from etl.model.metrics import METRICS, Metric

LATENCIES = ("latency_avg_agent_latency_ms", "chat_metrics_avg_latency_ms")
INTERRUPTIONS = ("conversation_ai_interruption_rate", "conversation_user_interruption_rate")
COST = "cost_total_cost_cents"
CALLS_READ = [*CALL_COLUMNS, "date"]
WORST_CALLS = 10
_DAY, _WEEK = timedelta(days=1), timedelta(days=7)
_LONG = timedelta(days=92)
Forest = tuple[Worse, Sequence[tuple[str, Difference]]]
"""What got worse, and each scenario that has calls before and since: by name, the largest change first, but few calls last."""


@dataclass(frozen=True, slots=True)
class PassRates:
    """The outputs of an eval, or of one of its scenarios: in the baseline, in the candidate, whose ``k`` it is, in all calls."""

    name: str
    k: int
    before: Repeated
    now: Repeated
    whole: Repeated

    @property
    def change(self) -> float:
        """What the rate now differs from that before; 0 where one is missing."""
        return self.now.rate - self.before.rate if self.now.calls and self.before.calls else 0.0


@dataclass(frozen=True, slots=True)
class WorstCall:
    """A call, its ``value`` of the metric that got worse most, and the names of the evals that it failed."""

    call_execution_id: str
    execution_id: str
    scenario_name: str | None
    day: date
    latency_ms: float | None
    value: float | None
    failed_evals: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is drawn of one run test.

    A bar stands for a ``step``: a day, or of a longer time a week. ``latencies``, by column: by ``week``, its Monday, ``p50`` and
    ``p95`` in ms. ``interruptions``: by ``week`` the means of ``INTERRUPTIONS``. ``weekly_rates``, by eval: by ``week`` the
    ``rate`` that passed of so many ``outputs``. All have a row without values for an empty week. ``cost``: by ``start`` of a step
    the ``dollars``. ``statuses``: by ``start`` and ``status`` the number of ``calls``. ``pass_rates``: of each eval, the largest
    change first, the whole, and each scenario, the lowest rate now first. ``forests``: of what got worse, where scenarios are
    known. ``worst_calls``: since it got worse, or of the candidate.
    """

    step: timedelta
    latencies: Mapping[str, pd.DataFrame]
    interruptions: pd.DataFrame
    cost: pd.DataFrame
    statuses: pd.DataFrame
    weekly_rates: Mapping[str, pd.DataFrame]
    pass_rates: Sequence[tuple[PassRates, Sequence[PassRates]]]
    forests: Sequence[Forest]
    worst_calls: Sequence[WorstCall]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run test; ``key`` is where its newest execution lies.

    ``selections`` are baseline and candidate of the changes; None with fewer than two finished executions. ``worse`` is what the
    nights say, what surely got worse most first. ``details`` are None where it is only listed.
    """

    key: str
    name: str
    executions: int
    calls: int
    days: tuple[date, date] | None
    dollars: float | None
    selections: tuple[Selection, Selection] | None
    changes: Sequence[Row]
    worse: Sequence[Worse]
    details: Details | None


def figures_of(
    executions: Sequence[ComparedExecution],
    calls: pa.Table,
    evals: pa.Table,
    worse: Sequence[Worse] = (),
    *,
    has_details: bool = True,
) -> Figures:
    """The figures of one run test, from what the dataset holds of these executions.

    ``calls`` and ``evals`` have ``CALLS_READ`` and ``EVAL_COLUMNS`` besides their keys. Rows of other executions are left out.
    """
    ids = pa.array([each.execution_id for each in executions], schema.STRING)
    calls, evals = (where(rows, pc.is_in(rows["execution_id"], value_set=ids)) for rows in (calls, evals))
    selections = select_latest(executions)
    frame = calls.to_pandas(date_as_object=False)
    days = (frame["date"].min().date(), frame["date"].max().date()) if len(frame) else None
    sides = [{each.execution_id for each in side.executions} for side in selections or ()]
    newest = max(executions, key=lambda each: each.age)
    return Figures(
        key=newest.run_test,
        name=newest.label,
        executions=len(executions),
        calls=len(frame),
        days=days,
        dollars=None if frame[COST].isna().all() else float(frame[COST].sum() / 100),
        selections=selections,
        changes=_changes(selections, calls, evals, [each.metric for each in worse]) if selections else [],
        worse=worse,
        details=_details(frame, evals, days, sides, worse) if has_details else None,
    )


def _forest(worse: Worse) -> Forest:
    """Rows of data of a scenario are compared with each other, and shown together."""
    names, groups = np.unique(np.array(worse.pairing.names, dtype=object), return_inverse=True)
    groups, metric = np.append(groups, NONE), worse.row.metric
    samples = [each.of(metric) for each in worse.samples]
    found = []
    for number, name in enumerate(names):
        before, after = (each.only(groups[each.scenarios] == number) for each in samples)
        one = difference(before, after, metric.statistic, is_higher_worse=metric.is_higher_worse)
        if change_of(metric, one) is not None:
            found.append((name, one))
    found.sort(key=lambda each: (each[1].difference is None, -abs(change_of(metric, each[1]) or 0.0)))
    return worse, found


def change_of(metric: Metric, found: Difference) -> float | None:
    """By how much the figure changed, however few calls tell: of a rate the difference, else a share of that before."""
    if found.baseline is None or found.candidate is None or not (metric.is_rate or found.baseline):
        return None
    return (found.candidate - found.baseline) / (1.0 if metric.is_rate else abs(found.baseline))


def _details(
    frame: pd.DataFrame,
    evals: pa.Table,
    days: tuple[date, date] | None,
    sides: Sequence[set[str]],
    worse: Sequence[Worse],
) -> Details:
    step = _WEEK if days and days[1] - days[0] > _LONG else _DAY
    frame["week"] = frame["date"] - pd.to_timedelta(frame["date"].dt.day_of_week, unit="D")
    frame["start"] = frame["week"] if step == _WEEK else frame["date"]
    ids = frame["scenario_id"].fillna(frame["scenario_name"]).fillna("")
    frame["scenario"] = pd.Categorical(ids, sorted({"", *ids.unique()}))  # one text in memory for all of its calls
    outputs = _outputs(evals, frame)
    named = frame[["scenario", "scenario_name"]].dropna().drop_duplicates("scenario", keep="last")
    names = {"": "no scenario"} | dict(named.itertuples(index=False, name=None))
    rates = [_pass_rates(str(name), of_eval, sides, names) for name, of_eval in outputs.groupby("eval")]
    return Details(
        step=step,
        latencies={each: found for each in LATENCIES if len(found := _latency(frame, each))},
        interruptions=_every_week(frame.groupby("week")[list(INTERRUPTIONS)].mean().dropna(how="all")),
        cost=(frame.groupby("start")[COST].sum(min_count=1).dropna() / 100).rename("dollars").reset_index(),
        statuses=_statuses(frame),
        weekly_rates={str(name): _weekly_rates(of_eval) for name, of_eval in outputs.groupby("eval")},
        pass_rates=sorted(rates, key=lambda each: (-abs(each[0].change), each[0].whole.rate)),
        forests=[forest for each in worse if (forest := _forest(each))[1]],
        worst_calls=_worst_calls(
            frame, outputs, evals, next(iter(worse), None), sides[1] if sides else set(frame["execution_id"])
        ),
    )


def _outputs(evals: pa.Table, calls: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of evals, with the ``eval`` by its name, else its id, and the week and scenario of the call."""
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
    values = calls.dropna(subset=[column]).groupby("week")[column]
    return _every_week(pd.DataFrame({"p50": values.quantile(0.5), "p95": values.quantile(0.95)}))


def _every_week(by_week: pd.DataFrame) -> pd.DataFrame:
    """With the weeks in between that have no values: no line runs across them."""
    return by_week.asfreq("7D").rename_axis("week").reset_index()


def _statuses(calls: pd.DataFrame) -> pd.DataFrame:
    statuses = calls["status"].fillna("unknown")
    return calls.groupby(["start", statuses]).size().rename("calls").reset_index()


def _weekly_rates(outputs: pd.DataFrame) -> pd.DataFrame:
    passed = outputs.groupby("week")["has_passed"]
    return _every_week(pd.DataFrame({"rate": passed.mean(), "outputs": passed.size()}))


def _pass_rates(
    name: str, outputs: pd.DataFrame, sides: Sequence[set[str]], names: Mapping[str, str]
) -> tuple[PassRates, list[PassRates]]:
    compared = [outputs[outputs["execution_id"].isin(ids)] for ids in sides or (set(), set())]
    before, now, whole = (repeats_of(each["scenario"].to_numpy(), each["has_passed"]) for each in (*compared, outputs))
    earlier, latest, all_calls = ({one.scenario: one for one in each.scenarios} for each in (before, now, whole))
    none = Repeated("")
    scenarios = [
        PassRates(names.get(each, each), now.k, earlier.get(each, none), latest.get(each, none), one)
        for each, one in all_calls.items()
    ]
    scenarios.sort(key=lambda each: (not each.now.calls, (each.now if each.now.calls else each.whole).rate, each.name))
    return PassRates(name, now.k, before.whole, now.whole, whole.whole), scenarios


def _worst_calls(
    calls: pd.DataFrame, outputs: pd.DataFrame, evals: pa.Table, worse: Worse | None, candidate: set[str]
) -> list[WorstCall]:
    """Those that are worst by what got worse, then those with the most failed evals, and among equals the slowest."""
    metric = worse.row.metric if worse else None
    since = {each.execution_id for each in worse.sides[1]} if worse else candidate
    calls = calls[calls["execution_id"].isin(since)]
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
    by = ["value", "failures", "latency_ms", "call_execution_id"]
    ascending = [metric is not None and not metric.is_higher_worse, False, False, True]
    worst = calls.sort_values(by, ascending=ascending).head(WORST_CALLS).astype(object)
    worst["failed_evals"] = [sorted(failed[failed.index == each]) for each in worst["call_execution_id"]]
    rows = worst.where(worst.notna(), None)[[each.name for each in fields(WorstCall)]]
    return [WorstCall(*row) for row in rows.to_numpy().tolist()]


def _values(metric: Metric, calls: pd.DataFrame, evals: pa.Table) -> pd.Series:
    """Of the metric, by call."""
    if metric.eval_name is None:
        values = calls.set_index("call_execution_id")[metric.column]
        return values.eq("failed") if metric.is_rate else values
    mine = evals.filter(pc.equal(eval_names(evals), metric.eval_name)).select(["call_execution_id", metric.column])
    found: pd.Series = (
        mine.to_pandas().astype({metric.column: float}).groupby("call_execution_id")[metric.column].mean()
    )
    return found


def _changes(
    selections: tuple[Selection, Selection], calls: pa.Table, evals: pa.Table, worse: Sequence[str]
) -> list[Row]:
    """Of each metric of which baseline or candidate has values, first those that are worse."""
    samples, _ = samples_of(calls, evals, *(each.executions for each in selections))
    found = [
        Row(metric, difference_of(metric, samples)) for metric in (*METRICS.values(), *eval_metrics(samples).values())
    ]
    there = (each for each in found if each.found.baseline_calls or each.found.candidate_calls)
    return sorted(there, key=lambda each: [*worse, each.metric.name].index(each.metric.name))
