"""What got worse, judged after each night: of all run tests and metrics of a dataset. Asks the dataset alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

import numpy as np
import pyarrow as pa

from etl.compare.comparison import Row, change_words
from etl.compare.nights import LONGEST, NIGHTS_BEFORE, Alarm, figures_of_nights, find_alarms, threshold
from etl.compare.samples import CALL_COLUMNS, EVAL_COLUMNS, difference_of, eval_metrics, living_rows, samples_of
from etl.compare.selection import ComparedExecution, read_executions
from etl.compare.statistics import Sample, Values
from etl.inspect.tables import find_scope
from etl.load.files.contract import Files
from etl.model import schema
from etl.model.metrics import METRICS, Metric, Statistic

_DAYS = timedelta(days=2 * (NIGHTS_BEFORE + LONGEST))
_JUDGED = [metric for metric in METRICS.values() if metric.statistic not in (Statistic.MEDIAN, Statistic.P95)]
Executions = Sequence[ComparedExecution]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """A metric of a run test that is worse since a day, in a row that compares the ``nights`` since with those before."""

    run_test: str
    since: date
    nights: int
    row: Row
    sides: tuple[Executions, Executions]

    @property
    def metric(self) -> str:
        """Its name."""
        return self.row.metric.name

    @property
    def text(self) -> str:
        """``latency_mean +47.6% (1,260 ms to 1,859 ms) since 2026-11-09``."""
        return f"{change_words(self.row)} since {self.since}"

    def as_json(self) -> dict[str, str]:
        """For a webhook."""
        return {"run_test": self.run_test, "metric": self.metric, "since": f"{self.since}", "text": self.text}


def read_worse(
    files: Files, *, false_alarms_per_year: float, run_tests: Sequence[str] | None = None, until: date | None = None
) -> list[Worse]:
    """What is worse after the last night of each run test, these in the order of their names.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    scope = find_scope(files, schema.EXECUTIONS, run_tests, None, until)
    finished = [each for each in read_executions(files, scope) if each.is_finished and each.deleted_at is None]
    newest = max((each.started_at.date() for each in finished), default=date.min)
    recent = sorted(
        (each for each in finished if newest - each.started_at.date() <= _DAYS), key=lambda each: (each.label, each.age)
    )
    if not recent:
        return []
    scope = find_scope(files, schema.EXECUTIONS, run_tests, min(each.started_at.date() for each in recent), until)
    calls, evals = (
        living_rows(files, table, scope, columns, is_of_days=False)
        for table, columns in ((schema.CALLS, CALL_COLUMNS), (schema.EVALS, EVAL_COLUMNS))
    )
    by_run_test = [list(executions) for _, executions in groupby(recent, key=lambda each: each.label)]
    figures = [_figures(executions, calls, evals) for executions in by_run_test]
    limit = threshold(sum(map(len, figures)), false_alarms_per_year=false_alarms_per_year)
    return [
        _worse(metric, executions, calls, evals, alarm)
        for executions, by_metric in zip(by_run_test, figures, strict=True)
        for metric, (values, variances) in by_metric.items()
        for alarm in find_alarms(values, variances, limit)
        if alarm.ended_at is None
    ]


def _nights(executions: Executions) -> list[date]:
    return sorted({each.started_at.date() for each in executions})


def _figures(executions: Executions, calls: pa.Table, evals: pa.Table) -> dict[Metric, tuple[Values, Values]]:
    """Of each metric that has values in the nights of a run test, those of all nights: higher ones are worse."""
    (samples,), _ = samples_of(calls, evals, executions)
    nights = _nights(executions)
    of_executions = np.array([nights.index(each.started_at.date()) for each in executions])
    found = {}
    for metric in (*_JUDGED, *eval_metrics([samples]).values()):
        sample = samples.of(metric)
        if len(sample):
            by_night = Sample(sample.values, of_executions[sample.executions], sample.scenarios)
            values, variances = figures_of_nights(by_night, metric.statistic)
            found[metric] = (values if metric.is_higher_worse else -values, variances)
    return found


def _worse(metric: Metric, executions: Executions, calls: pa.Table, evals: pa.Table, alarm: Alarm) -> Worse:
    """The nights since the change, against as many before it as it was found by."""
    nights = _nights(executions)
    since, first = nights[alarm.since], nights[max(0, alarm.since - NIGHTS_BEFORE)]
    before = [each for each in executions if first <= each.started_at.date() < since]
    after = [each for each in executions if each.started_at.date() >= since]
    samples, _ = samples_of(calls, evals, before, after)

    return Worse(
        run_test=executions[0].label,
        since=since,
        nights=len(nights) - alarm.since,
        row=Row(metric, difference_of(metric, samples)),
        sides=(before, after),
    )
