"""What got worse, judged after each night: of all run tests and metrics of a dataset. Asks the dataset alone."""

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
from etl.compare.samples import (
    CALL_COLUMNS,
    EVAL_COLUMNS,
    Samples,
    difference_of,
    eval_metrics,
    living_rows,
    samples_of,
)
from etl.compare.selection import ComparedExecution, read_executions
from etl.compare.statistics import Sample, Values
from etl.files.interface import Files
from etl.inspect.read_tables import find_scope
from etl.model import schema
from etl.model.arrow import where
from etl.model.metrics import METRICS, Metric, Statistic
from etl.model.wording import counted

_DAYS = timedelta(days=2 * (NIGHTS_BEFORE + LONGEST))
_JUDGED = [metric for metric in METRICS.values() if metric.statistic not in (Statistic.MEDIAN, Statistic.P95)]
Executions = Sequence[ComparedExecution]
FiguresOfNights = Mapping[Metric, tuple[Values, Values]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """A metric of a run test that is worse since a day, in a row that compares the ``nights`` since with those before.

    ``sides`` are the executions of both, ``samples`` their values, and ``pairing`` says which of these are compared.
    """

    run_test: str
    since: date
    nights: int
    row: Row
    sides: tuple[Executions, Executions]
    samples: Sequence[Samples]
    pairing: Pairing

    @property
    def metric(self) -> str:
        """Its name."""
        return self.row.metric.name

    @property
    def text(self) -> str:
        """``Agent latency, mean +47.6% (1,260 ms to 1,859 ms) since 2026-11-09, 6 nights, 95% interval +39.1 to +56.6%``."""
        interval = change_texts(self.row.metric, self.row.found)[1]
        sure = "too few calls for an interval" if interval == "-" else f"95% interval {interval}"
        return f"{change_words(self.row)} since {self.since}, {counted(self.nights, 'night')}, {sure}"

    def as_json(self) -> dict[str, str]:
        """For a webhook."""
        return {"run_test": self.run_test, "metric": self.metric, "since": f"{self.since}", "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How much was judged, how surely, in all run tests but those ``not_yet`` that had too few nights; and what is worse."""

    worse: Sequence[Worse] = ()
    run_tests: int = 0
    metrics: int = 0
    nights: int = 0
    not_yet: Sequence[str] = ()
    false_alarms_per_year: float = 1.0


def read_worse(
    files: Files, *, false_alarms_per_year: float, run_tests: Sequence[str] | None = None, until: date | None = None
) -> Sequence[Worse]:
    """What is worse after the last night of each run test, as ``judge_nights``.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    return judge_nights(
        *read_nights(files, CALL_COLUMNS, run_tests, until), false_alarms_per_year=false_alarms_per_year
    ).worse


def read_nights(
    files: Files, columns: Sequence[str], run_tests: Sequence[str] | None, until: date | None, since: date = date.max
) -> tuple[Executions, pa.Table, pa.Table]:
    """The executions that the source has, since the day or since the nights began that are judged; these columns of calls; evals.

    Raises:
        ConfigurationError, DestinationError: as ``read_worse``.
    """
    scope = find_scope(files, schema.EXECUTIONS, run_tests, None, until)
    living = [each for each in read_executions(files, scope) if each.deleted_at is None]
    scope = replace(scope, since=min([since, *(each.started_at.date() for each in _judged(living))]))
    calls, evals = (
        living_rows(files, table, scope, wanted)
        for table, wanted in ((schema.CALLS, columns), (schema.EVALS, EVAL_COLUMNS))
    )
    return [each for each in living if each.started_at.date() >= scope.since], calls, evals


def _judged(executions: Executions) -> Executions:
    """Those that finished, of the nights that count after the last one; by the names of run tests, and by age."""
    finished = [each for each in executions if each.is_finished]
    newest = max((each.started_at.date() for each in finished), default=date.min)
    recent = (each for each in finished if newest - each.started_at.date() <= _DAYS)
    return sorted(recent, key=lambda each: (each.label, each.age))


def judge_nights(executions: Executions, calls: pa.Table, evals: pa.Table, *, false_alarms_per_year: float) -> Judged:
    """What is worse after the last night of each run test, these in the order of names, and of each what surely is so most first.

    ``calls`` and ``evals`` have ``CALL_COLUMNS`` and ``EVAL_COLUMNS`` besides their keys.
    """
    groups = {name: list(each) for name, each in groupby(_judged(executions), key=lambda each: each.label)}
    calls_of, evals_of = (by_run_test(executions, rows) for rows in (calls, evals))
    figures = {name: _figures(each, calls_of[name], evals_of[name]) for name, each in groups.items()}
    limit = threshold(sum(map(len, figures.values())), false_alarms_per_year=false_alarms_per_year)
    worse = [
        each
        for name, by_metric in figures.items()
        for each in _worse(by_metric, limit, groups[name], calls_of[name], evals_of[name])
    ]
    judged = {name: nights for name, each in groups.items() if len(nights := _nights(each)) > FEWEST_NIGHTS}
    return Judged(
        worse=sorted(worse, key=lambda each: (each.run_test, -each.row.surely_worse)),
        run_tests=len(judged),
        metrics=sum(len(figures[name]) for name in judged),
        nights=len(set[date]().union(*judged.values())),
        not_yet=[name for name in groups if name not in judged],
        false_alarms_per_year=false_alarms_per_year,
    )


def by_run_test(executions: Executions, rows: pa.Table) -> Mapping[str, pa.Table]:
    """The rows of the executions of each run test, by its name. They lie close together, so that few others are looked at."""
    ids, names = (
        pa.array([getattr(each, name) for each in executions], schema.STRING) for name in ("execution_id", "label")
    )
    labels = names.take(pc.index_in(rows["execution_id"], value_set=ids)).combine_chunks().dictionary_encode()
    numbers = pc.fill_null(labels.indices, -1).to_numpy(zero_copy_only=False)
    found = defaultdict[str, pa.Table](lambda: rows.slice(0, 0))
    for number, name in enumerate(labels.dictionary.to_pylist()):
        mine = numbers == number
        first, last = np.flatnonzero(mine)[[0, -1]]
        found[name] = where(rows.slice(first, last + 1 - first), pa.array(mine[first : last + 1]))
    return found


def _nights(executions: Executions) -> list[date]:
    return sorted({each.started_at.date() for each in executions})


def _figures(executions: Executions, calls: pa.Table, evals: pa.Table) -> FiguresOfNights:
    """Of each metric that has values in the nights of a run test, those of all nights: higher ones are worse."""
    (samples,), _ = samples_of(calls, evals, executions)
    days = np.array([each.started_at.date() for each in executions], dtype="datetime64[D]")
    of_executions = np.unique(days, return_inverse=True)[1]
    found = {}
    for metric in (*_JUDGED, *eval_metrics([samples]).values()):
        sample = samples.of(metric)
        if len(sample):
            by_night = Sample(sample.values, of_executions[sample.executions], sample.scenarios)
            values, variances = figures_of_nights(by_night, metric.statistic)
            found[metric] = (values if metric.is_higher_worse else -values, variances)
    return found


def _worse(
    figures: FiguresOfNights, limit: float, executions: Executions, calls: pa.Table, evals: pa.Table
) -> Iterator[Worse]:
    """The metrics of a run test whose alarm stands: the nights since the change, against as many before it as it was found by."""
    alarms = {
        metric: alarm for metric, of in figures.items() for alarm in find_alarms(*of, limit) if alarm.ended_at is None
    }
    nights = _nights(executions)
    for number in sorted({alarm.since for alarm in alarms.values()}):
        since, first = nights[number], nights[max(0, number - NIGHTS_BEFORE)]
        before = [each for each in executions if first <= each.started_at.date() < since]
        after = [each for each in executions if each.started_at.date() >= since]
        samples, pairing = samples_of(calls, evals, before, after)
        for metric, alarm in alarms.items():
            if alarm.since == number:
                yield Worse(
                    run_test=executions[0].label,
                    since=since,
                    nights=len(nights) - number,
                    row=Row(metric, difference_of(metric, samples)),
                    sides=(before, after),
                    samples=samples,
                    pairing=pairing,
                )
