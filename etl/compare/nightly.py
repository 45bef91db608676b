"""What got worse, judged after each night: in all run tests and metrics of a dataset.

Reads the dataset alone and stores no verdict: the same rows give the same verdict. How a series of nights is judged,
``nights`` says.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import chain, compress, groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.causes import JudgeChange, changes_text, judge_changes, usual_version
from etl.compare.comparison import Row, change_texts, change_words
from etl.compare.nights import FEWEST_NIGHTS, LONGEST, NIGHTS_BEFORE, Alarm, figures_of_nights, find_alarms, threshold
from etl.compare.pairing import Pairing
from etl.compare.samples import CALL_COLUMNS, EVAL_COLUMNS, Samples, difference_of, eval_metrics, live_rows, samples_of
from etl.compare.selection import ComparedExecution, read_executions
from etl.compare.statistics import Numbers, Values
from etl.files.interface import Files
from etl.inspect.read_tables import find_scope
from etl.model import schema
from etl.model.arrow import where
from etl.model.metrics import METRICS, Metric, Statistic
from etl.model.wording import counted, first_few
from etl.settings.results import Compare

_NIGHTS = NIGHTS_BEFORE + 2 * LONGEST
"""How many of the last nights of a run test are judged."""
_JUDGED = [metric for metric in METRICS.values() if metric.statistic not in (Statistic.MEDIAN, Statistic.P95)]
"""The metrics of calls that are judged. Percentiles are not: the calls of a night say little about them."""
_SILENT_DAYS, _SILENT_NIGHTS = 14, 3
"""After so many days without calls, or nights without values, there is nothing to judge: if that is not usual."""
_SHOWN, _SAME_OUTAGE = timedelta(days=28), timedelta(days=3)
"""For so long a remark is shown; nights of outages this close to each other are of one."""
_FAILURES = METRICS["failure_rate"], METRICS["line_failure_rate"]
_MOST, _FEWEST_FAILED = 0.5, 5
"""Where more than half of the calls failed, and at least so many, it is an outage."""
Executions = Sequence[ComparedExecution]


@dataclass(frozen=True, slots=True)
class _Series:
    """The nights of one run test."""

    nights: Sequence[date]
    """The days on which executions began, oldest first."""
    figures: Mapping[Metric, tuple[Values, Values]]
    """By metric, what ``figures_of_nights`` gives, with signs turned so that higher figures are worse.

    NaN in nights of an outage, but for the share of failed calls: if it lasts, that is worse.
    """
    outages: Collection[date]
    """The nights in which most calls failed, which is not usual."""
    renewals: Sequence[int]
    """The nights since which no scenario is one of before."""

    def silence_of(self, metric: Metric) -> int:
        """For how many nights the metric has had no values, where it was judged before, and for longer than ever."""
        nights = np.flatnonzero(np.append(np.isfinite(self.figures[metric][0]), True))
        gaps = np.diff(nights) - 1
        is_new = len(gaps) >= FEWEST_NIGHTS and gaps[-1] >= max(_SILENT_NIGHTS, gaps[:-1].max() + 1)
        return int(gaps[-1]) if is_new else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """A metric of a run test that has been worse since some night."""

    run_test: str
    """The name of the run test."""
    since: date
    """The first night of the change."""
    nights: int
    """How many nights there were since, that one included."""
    row: Row
    """The metric in the nights since, as the candidate, against those before, as the baseline."""
    sides: tuple[Executions, Executions]
    """The executions before and since."""
    samples: Sequence[Samples]
    """The values of all metrics, before and since."""
    pairing: Pairing
    """How the calls of both sides are matched."""
    judges: Sequence[JudgeChange] = ()
    """How the metric's eval came to be judged in another way in these nights."""

    @property
    def text(self) -> str:
        """``Cost of a call +47.6% (12.6 ct to 18.6 ct) since 2026-11-09, 6 nights, 95% interval +39.1 to +56.6%``.

        Before it, whether the eval is judged in another way; after it, whether the version of the agent is another one:
        ``; agent version v2, after v1``.
        """
        _, interval = change_texts(self.row.metric, self.row.found)
        certainty = "too few calls for an interval" if interval == "-" else f"95% interval {interval}"
        judged = f"{changes_text(self.judges)}; " if self.judges else ""
        text = f"{judged}{change_words(self.row)} since {self.since}, {counted(self.nights, 'night')}, {certainty}"
        before, since = self.versions
        return f"{text}; agent version {since}, after {before}" if before and since and before != since else text

    @property
    def versions(self) -> tuple[str | None, str | None]:
        """The version of the agent in most executions before and since; None where none is known."""
        return usual_version(self.sides[0]), usual_version(self.sides[1])

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.row.metric.name


@dataclass(frozen=True, slots=True)
class Remark:
    """What else there is to say of the nights of run tests: why an alarm ended, or what cannot be judged."""

    run_tests: Sequence[str]
    """The names of the run tests."""
    since: date
    text: str
    metric: str = ""
    """The name of the metric; empty for all."""

    @property
    def run_test(self) -> str:
        """The name of the only run test; empty for several."""
        return self.run_tests[0] if len(self.run_tests) == 1 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is worse after the last night of each run test, and how much was judged to know that."""

    worse: Sequence[Worse] = ()
    """By the names of run tests, and in each what surely got worse most first."""
    remarks: Sequence[Remark] = ()
    """What else the last four weeks show, by the names of run tests."""
    run_tests: Sequence[str] = ()
    """The names of the run tests that had enough nights."""
    metrics: int = 0
    """How many metrics were judged, added up over these run tests."""
    nights: int = 0
    """How many different nights were judged."""
    silent: Sequence[str] = ()
    """The names of the run tests that have had no calls for longer than usual."""
    false_alarms_per_year: float = 1.0
    """How many false alarms to expect if nothing changes."""


def read_worse(files: Files, rules: Compare, today: date) -> Sequence[Worse | Remark]:
    """What is worse after the last night of each run test, in the order of ``Judged.worse``, and then the remarks.

    ``today`` is the day of the last export.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    judged = judge_nights(*read_nights(files, CALL_COLUMNS, None, None), rules, today)
    return [*judged.worse, *judged.remarks]


def read_nights(
    files: Files, columns: Sequence[str], run_tests: Sequence[str] | None, until: date | None, since: date = date.max
) -> tuple[Executions, pa.Table, pa.Table]:
    """The executions that the source still has, their calls with these columns, and their evals with ``EVAL_COLUMNS``.

    Those of a run test begin with its first night that is judged, or with ``since`` if that is earlier.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    scope = find_scope(files, schema.EXECUTIONS, run_tests, None, until)
    living = [execution for execution in read_executions(files, scope) if execution.deleted_at is None]
    judged = sorted(chain(*_judged(living).values()), key=lambda execution: execution.age, reverse=True)
    first = {execution.run_test: min(since, execution.started_at.date()) for execution in judged}
    scope = replace(scope, since=since, since_of=first)
    calls = live_rows(files, schema.CALLS, scope, columns)
    evals = live_rows(files, schema.EVALS, scope, EVAL_COLUMNS)
    return [each for each in living if each.started_at.date() >= first.get(each.run_test, since)], calls, evals


def _judged(executions: Executions) -> Mapping[str, Executions]:
    """By the names of run tests, the finished executions of the nights that count, by age."""
    finished = [each for each in executions if each.is_finished and each.exported_calls != 0]
    finished.sort(key=lambda each: (each.label, each.age))
    groups = {}
    for label, group in groupby(finished, key=lambda each: each.label):
        own = list(group)
        first = sorted({each.started_at.date() for each in own})[-_NIGHTS:][0]
        groups[label] = [each for each in own if each.started_at.date() >= first]
    return groups


def judge_nights(
    executions: Executions, calls: pa.Table, evals: pa.Table, rules: Compare, today: date = date.min
) -> Judged:
    """What is worse after the last night of each run test; all metrics of all run tests share the false alarms.

    ``calls`` and ``evals`` have their keys, ``CALL_COLUMNS`` and ``EVAL_COLUMNS``. ``today`` is the day of the last
    export, if it is known: how long a run test has been silent is counted to there, or to the last night of any.
    """
    groups = _judged(executions)
    calls_of, evals_of = by_run_test(executions, calls), by_run_test(executions, evals)
    series = {name: _series(group, calls_of[name], evals_of[name], rules) for name, group in groups.items()}
    limit = threshold(sum(len(each.figures) for each in series.values()), rules.false_alarms_per_year)
    newest = max([today, *(each.nights[-1] for each in series.values())])
    worse: list[Worse] = []
    remarks: list[Remark] = []
    without_calls = []
    for name, own in series.items():
        *earlier, silent = np.diff([night.toordinal() for night in (*own.nights[-LONGEST:], newest)])
        if silent > (usual := max(_SILENT_DAYS, *earlier, 0)):
            without_calls.append(name)
            if silent <= usual + _SHOWN.days:
                remarks.append(Remark([name], own.nights[-1], f"no calls since {own.nights[-1]}"))
            continue
        alarms = {metric: find_alarms(*figures, limit) for metric, figures in own.figures.items()}
        remarks += _remarks(name, own, alarms)
        standing = {
            metric: found[-1]
            for metric, found in alarms.items()
            if found and found[-1].ended_at is None and not own.silence_of(metric)
        }
        of_run_test = _worse(own, standing, groups[name], calls_of[name], evals_of[name], rules)
        worse += sorted(of_run_test, key=lambda each: -each.row.surely_worse)
    # A metric is judged once it has more nights than those that are judged by no others.
    counts = {name: [np.isfinite(each).sum() for each, _ in own.figures.values()] for name, own in series.items()}
    judged = {name: sum(int(nights) > FEWEST_NIGHTS for nights in of_metrics) for name, of_metrics in counts.items()}
    return Judged(
        worse=worse,
        remarks=[*_outages(series, newest), *remarks],
        run_tests=[name for name, metrics in judged.items() if metrics],
        metrics=sum(judged.values()),
        nights=len({night for name, metrics in judged.items() if metrics for night in series[name].nights}),
        silent=without_calls,
        false_alarms_per_year=rules.false_alarms_per_year,
    )


def _outages(series: Mapping[str, _Series], newest: date) -> Iterator[Remark]:
    """One remark on the last nights in which most calls failed, in whatever run tests, if they were of late."""
    nights = sorted(set[date]().union(*(own.outages for own in series.values())), reverse=True)
    if nights and newest - nights[0] < _SHOWN:
        ends = zip(nights, [*nights[1:], date.min], strict=True)
        since = next(night for night, before in ends if night - before > _SAME_OUTAGE)
        names = [name for name, own in series.items() if any(night >= since for night in own.outages)]
        failed = [f"{night}" for night in nights if night >= since]
        places = f" in {first_few(names, shown=5)}" if len(names) > 1 else ""
        text = f"{first_few(failed, shown=3)}{places} not judged, because most calls failed"
        yield Remark(names, since, text)


def _remarks(name: str, own: _Series, alarms: Mapping[Metric, Sequence[Alarm]]) -> Iterator[Remark]:
    """Why alarms ended without being better again, and since when there is nothing to judge."""
    for metric, found in alarms.items():
        if silence := own.silence_of(metric):
            since = own.nights[-1 - silence]
            if silence <= LONGEST and own.nights[-1] not in own.outages:
                yield Remark([name], since, f"no values of {metric.title} since {since}", metric.name)
        elif found and found[-1].is_normal and (ended := found[-1].ended_at or 0) + LONGEST > len(own.nights):
            since = own.nights[found[-1].since]
            text = f"{metric.title}: worse since {since}, but counted as normal since {own.nights[ended]}"
            yield Remark([name], since, text, metric.name)
    lately = [night for night in own.renewals if len(own.nights) - LONGEST < night <= len(own.nights) - _SILENT_NIGHTS]
    if len(lately) == 1:
        since = own.nights[lately[0]]
        yield Remark([name], since, f"all scenarios are new since {since}, so only nights from then on are judged")


def by_run_test(executions: Executions, rows: pa.Table) -> Mapping[str, pa.Table]:
    """The rows of each run test's executions, by its name; no rows for a name that has none."""
    ids = pa.array([execution.execution_id for execution in executions], schema.STRING)
    names = pa.array([execution.label for execution in executions], schema.STRING)
    labels = names.take(pc.index_in(rows["execution_id"], value_set=ids)).combine_chunks().dictionary_encode()
    numbers = pc.fill_null(labels.indices, -1).to_numpy(zero_copy_only=False)
    tables = defaultdict[str, pa.Table](lambda: rows.slice(0, 0))
    for number, name in enumerate(labels.dictionary.to_pylist()):
        is_own = numbers == number
        # Rows of a run test lie close together: a slice is no copy, and the filter looks at few others.
        first, last = np.flatnonzero(is_own)[[0, -1]]
        tables[name] = where(rows.slice(first, last + 1 - first), pa.array(is_own[first : last + 1]))
    return tables


def _series(executions: Executions, calls: pa.Table, evals: pa.Table, rules: Compare) -> _Series:
    """The nights of one run test, with the figures of each metric that has values, since its level was accepted."""
    (samples,), _ = samples_of(calls, evals, executions, rules=rules)
    label, nights = executions[0].label, sorted({execution.started_at.date() for execution in executions})
    number = np.array([nights.index(execution.started_at.date()) for execution in executions])
    by_agent, by_line = map(samples.of, _FAILURES)
    ended = np.bincount(number[by_line.executions], minlength=len(nights))
    failed = sum(np.bincount(number[each.executions], each.values, len(nights)) for each in (by_agent, by_line))
    share = failed / np.maximum(ended, 1)
    is_outage = (share > _MOST) & (failed >= _FEWEST_FAILED) & (np.median(share) <= _MOST)
    figures = {}
    for metric in (*_JUDGED, *eval_metrics([samples]).values()):
        since = max(rules.accepted.get(key, date.min) for key in (label, f"{label}/{metric.name}"))
        is_judged = (~is_outage | (metric in _FAILURES)) & (np.array(nights) >= since)
        sample = samples.of(metric)
        sample = sample.only(is_judged[number[sample.executions]])
        if len(sample):
            of_nights = figures_of_nights(replace(sample, executions=number[sample.executions]), metric.statistic)
            missing = (0, len(nights) - len(of_nights[0]))
            values, variances = (np.pad(each, missing, constant_values=np.nan) for each in of_nights)
            figures[metric] = (values if metric.is_higher_worse else -values, variances)
    outages = {*compress(nights, is_outage)}
    return _Series(nights, figures, outages, _renewals(number[by_line.executions], by_line.scenarios, len(nights)))


def _renewals(nights: Numbers, scenarios: Numbers, count: int) -> list[int]:
    """The nights since which no scenario is one of before, of calls of these nights and scenarios."""
    crossed = np.zeros(count + 1, dtype=np.int64)
    for scenario in np.unique(scenarios):
        own = nights[scenarios == scenario]
        crossed[own.min() + 1] += 1
        crossed[own.max() + 1] -= 1
    return [
        int(night) for night in np.flatnonzero(np.cumsum(crossed)[:count] == 0) if night > nights.min(initial=count)
    ]


def _worse(
    own: _Series, alarms: Mapping[Metric, Alarm], group: Executions, calls: pa.Table, evals: pa.Table, rules: Compare
) -> Iterator[Worse]:
    """Each metric that is worse, with the nights since against those before, as its alarm is found.

    A call that hung counts as a slow one.
    """
    for metric, alarm in alarms.items():
        after = np.flatnonzero(np.isfinite(own.figures[metric][0]))
        numbers = alarm.before, after[after >= alarm.since]
        nights = [{own.nights[number] for number in side} for side in numbers]
        sides = [[each for each in group if each.started_at.date() in side] for side in nights]
        both, pairing = samples_of(calls, evals, *sides, rules=rules)
        samples = [side.without_outliers(metric) for side in both]
        changes = judge_changes(chain(*sides)) if metric.eval_name else []
        yield Worse(
            run_test=group[0].label,
            since=own.nights[alarm.since],
            nights=len(own.nights) - alarm.since,
            row=Row(metric, difference_of(metric, samples)),
            sides=(sides[0], sides[1]),
            samples=samples,
            pairing=pairing,
            judges=[change for change in changes if change.eval_name == metric.eval_name],
        )
