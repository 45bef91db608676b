"""What got worse, judged after each night: in all run tests and metrics of a dataset.

Reads the dataset alone and stores no verdict: the same rows give the same verdict. How a series of nights is judged,
``nights`` says.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.comparison import Row, change_texts, change_words
from etl.compare.nights import FEWEST_NIGHTS, LONGEST, NIGHTS_BEFORE, figures_of_nights, find_alarms, threshold
from etl.compare.pairing import Pairing
from etl.compare.samples import CALL_COLUMNS, EVAL_COLUMNS, Samples, difference_of, eval_metrics, live_rows, samples_of
from etl.compare.selection import ComparedExecution, read_executions
from etl.compare.statistics import Values
from etl.files.interface import Files
from etl.inspect.read_tables import find_scope
from etl.model import schema
from etl.model.arrow import where
from etl.model.metrics import METRICS, Metric, Statistic
from etl.model.wording import counted

_DAYS = timedelta(days=NIGHTS_BEFORE + 2 * LONGEST)
"""Nights that are older than this, beside the newest one of the run test, are not judged."""
_JUDGED = [metric for metric in METRICS.values() if metric.statistic not in (Statistic.MEDIAN, Statistic.P95)]
"""The metrics of calls that are judged. Percentiles are not: the calls of a night say little about them."""
Executions = Sequence[ComparedExecution]
FiguresOfNights = Mapping[Metric, tuple[Values, Values]]
"""By metric, what ``figures_of_nights`` gives, with signs turned so that higher figures are worse."""


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

    @property
    def text(self) -> str:
        """``Cost of a call +47.6% (12.6 ct to 18.6 ct) since 2026-11-09, 6 nights, 95% interval +39.1 to +56.6%``."""
        _, interval = change_texts(self.row.metric, self.row.found)
        certainty = "too few calls for an interval" if interval == "-" else f"95% interval {interval}"
        return f"{change_words(self.row)} since {self.since}, {counted(self.nights, 'night')}, {certainty}"

    def as_json(self) -> dict[str, str]:
        """The item of a webhook's message."""
        return {"run_test": self.run_test, "metric": self.row.metric.name, "since": f"{self.since}", "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is worse after the last night of each run test, and how much was judged to know that."""

    worse: Sequence[Worse] = ()
    """By the names of run tests, and in each what surely got worse most first."""
    run_tests: int = 0
    """How many run tests had enough nights."""
    metrics: int = 0
    """How many metrics were judged, added up over these run tests."""
    nights: int = 0
    """How many different nights were judged."""
    not_yet: Sequence[str] = ()
    """The names of the run tests that had too few nights."""
    false_alarms_per_year: float = 1.0
    """How many false alarms to expect if nothing changes."""


def read_worse(files: Files, *, false_alarms_per_year: float) -> Sequence[Worse]:
    """What is worse after the last night of each run test, in the order of ``Judged.worse``.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    nights = read_nights(files, CALL_COLUMNS, None, None)
    return judge_nights(*nights, false_alarms_per_year=false_alarms_per_year).worse


def read_nights(
    files: Files, columns: Sequence[str], run_tests: Sequence[str] | None, until: date | None, since: date = date.max
) -> tuple[Executions, pa.Table, pa.Table]:
    """The executions that the source still has, their calls with these columns, and their evals with ``EVAL_COLUMNS``.

    They begin with the first night that is judged, or with ``since`` if that is earlier.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    scope = find_scope(files, schema.EXECUTIONS, run_tests, None, until)
    living = [execution for execution in read_executions(files, scope) if execution.deleted_at is None]
    first = min([since, *(execution.started_at.date() for execution in _judged(living))])
    scope = replace(scope, since=first)
    calls = live_rows(files, schema.CALLS, scope, columns)
    evals = live_rows(files, schema.EVALS, scope, EVAL_COLUMNS)
    return [execution for execution in living if execution.started_at.date() >= first], calls, evals


def _judged(executions: Executions) -> Executions:
    """The finished executions of the nights that count, by the names of run tests, and by age in each."""
    finished = [execution for execution in executions if execution.is_finished]
    newest = max((execution.started_at.date() for execution in finished), default=date.min)
    recent = (execution for execution in finished if newest - execution.started_at.date() <= _DAYS)
    return sorted(recent, key=lambda execution: (execution.label, execution.age))


def judge_nights(executions: Executions, calls: pa.Table, evals: pa.Table, *, false_alarms_per_year: float) -> Judged:
    """What is worse after the last night of each run test; all metrics of all run tests share the false alarms.

    ``calls`` and ``evals`` have their keys, ``CALL_COLUMNS`` and ``EVAL_COLUMNS``.
    """
    groups = {label: list(group) for label, group in groupby(_judged(executions), key=lambda each: each.label)}
    calls_of, evals_of = by_run_test(executions, calls), by_run_test(executions, evals)
    figures = {name: _figures(group, calls_of[name], evals_of[name]) for name, group in groups.items()}
    limit = threshold(sum(map(len, figures.values())), false_alarms_per_year=false_alarms_per_year)
    worse: list[Worse] = []
    for name, by_metric in figures.items():
        of_run_test = _worse(by_metric, limit, groups[name], calls_of[name], evals_of[name])
        worse += sorted(of_run_test, key=lambda each: -each.row.surely_worse)
    nights = {name: _nights(group) for name, group in groups.items()}
    judged = [name for name in groups if len(nights[name]) > FEWEST_NIGHTS]
    return Judged(
        worse=worse,
        run_tests=len(judged),
        metrics=sum(len(figures[name]) for name in judged),
        nights=len({night for name in judged for night in nights[name]}),
        not_yet=[name for name in groups if name not in judged],
        false_alarms_per_year=false_alarms_per_year,
    )


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


def _nights(executions: Executions) -> list[date]:
    """The days on which executions began, oldest first."""
    return sorted({execution.started_at.date() for execution in executions})


def _figures(executions: Executions, calls: pa.Table, evals: pa.Table) -> FiguresOfNights:
    """The figures of all nights of one run test, for each metric that has values."""
    (samples,), _ = samples_of(calls, evals, executions)
    days = np.array([execution.started_at.date() for execution in executions], dtype="datetime64[D]")
    nights = np.unique(days, return_inverse=True)[1]  # the number of each execution's night
    figures = {}
    for metric in (*_JUDGED, *eval_metrics([samples]).values()):
        sample = samples.of(metric)
        if len(sample):
            by_night = replace(sample, executions=nights[sample.executions])
            values, variances = figures_of_nights(by_night, metric.statistic)
            figures[metric] = (values if metric.is_higher_worse else -values, variances)
    return figures


def _worse(
    figures: FiguresOfNights, limit: float, executions: Executions, calls: pa.Table, evals: pa.Table
) -> Iterator[Worse]:
    """Each metric of a run test whose alarm stands, with the nights since the change against those before it.

    Before are as many nights as an alarm is found by, ``NIGHTS_BEFORE`` at most.
    """
    standing = {}
    for metric, (values, variances) in figures.items():
        alarms = find_alarms(values, variances, limit)
        if alarms and alarms[-1].ended_at is None:
            standing[metric] = alarms[-1]
    nights = _nights(executions)
    for number in sorted({alarm.since for alarm in standing.values()}):
        since, first = nights[number], nights[max(0, number - NIGHTS_BEFORE)]
        before = [execution for execution in executions if first <= execution.started_at.date() < since]
        after = [execution for execution in executions if execution.started_at.date() >= since]
        samples, pairing = samples_of(calls, evals, before, after)
        for metric in [metric for metric, alarm in standing.items() if alarm.since == number]:
            yield Worse(
                run_test=executions[0].label,
                since=since,
                nights=len(nights) - number,
                row=Row(metric, difference_of(metric, samples)),
                sides=(before, after),
                samples=samples,
                pairing=pairing,
            )
