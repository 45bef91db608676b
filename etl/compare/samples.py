"""The values of the metrics of some executions' calls, read from the dataset: what ``statistics`` compares."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.selection import ComparedExecution
from etl.compare.statistics import Difference, Sample, difference
from etl.inspect.calls import eval_names, slug_of
from etl.inspect.tables import read_rows
from etl.load.files.contract import Files
from etl.load.layout import Scope
from etl.load.merge import is_of
from etl.model import schema
from etl.model.metrics import METRICS, Metric, Statistic, eval_metric

_NONE = Sample.of_one_execution(np.empty(0))
_NUMBER = "number of the execution"
CALL_COLUMNS = sorted({metric.column for metric in METRICS.values()})
_SCORE, _SHOWN_SCORE = METRICS["csat_mean"].column, "overall_score"
_OUTPUTS = {Statistic.RATE: "output_passed", Statistic.MEAN: "output_score"}
EVAL_COLUMNS = ["eval_name", "eval_config_id", *_OUTPUTS.values()]


@dataclass(frozen=True, slots=True)
class Samples:
    """The values of the baseline, or of the candidate: by eval name, None for calls themselves, and column."""

    calls: int
    values: Mapping[tuple[str | None, str], Sample]

    def of(self, metric: Metric) -> Sample:
        """One value for each call that has the metric."""
        return self.values.get((metric.eval_name, metric.column), _NONE)


def read_samples(files: Files, executions: Sequence[ComparedExecution]) -> Samples:
    """The values of the calls of these executions.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    keys = frozenset(each.run_test for each in executions)
    days = [each.started_at.date() for each in executions]
    ids = [each.execution_id for each in executions]
    scope = Scope(keys, min(days), max(days))
    calls = living_rows(files, schema.CALLS, scope, CALL_COLUMNS, is_of_days=False)
    if len(calls.filter(is_of(calls, ids))) < sum(each.exported_calls or 0 for each in executions):
        # An execution stays in the month in which it was first seen, whatever the API says later of its start.
        scope = Scope(keys)
        calls = living_rows(files, schema.CALLS, scope, CALL_COLUMNS, is_of_days=False)
    evals = living_rows(files, schema.EVALS, scope, EVAL_COLUMNS, is_of_days=False)
    return samples_of(calls, evals, executions)


def samples_of(calls: pa.Table, evals: pa.Table, executions: Sequence[ComparedExecution]) -> Samples:
    """Those of these executions among the calls and evals, which have ``CALL_COLUMNS`` and ``EVAL_COLUMNS`` besides their keys."""
    ids = [each.execution_id for each in executions]
    calls, evals = _numbered(calls, ids), _numbered(evals, ids)
    calls = calls.set_column(calls.column_names.index("status"), "status", _has_failed(calls["status"]))
    columns = {(None, name): _sample(calls[name], calls[_NUMBER]) for name in CALL_COLUMNS}
    return Samples(len(calls), columns | _outputs(evals))


def eval_metrics(both: Sequence[Samples]) -> dict[str, Metric]:
    """The metrics of the evals of baseline and candidate, by name; an eval that both have has the same metrics."""
    found = sorted({(name, column) for each in both for name, column in each.values if name is not None})
    labels: dict[str, str] = {}
    for name in sorted({name for name, _ in found}):  # two may differ in nothing but case and punctuation
        slug = slug_of(name)
        numbered = (f"{slug}_{number}" for number in count(2))
        labels[name] = next(each for each in chain([slug], numbered) if each not in labels.values())
    statistics = {column: statistic for statistic, column in _OUTPUTS.items()}
    metrics = [eval_metric(labels[name], name, statistics[column]) for name, column in found]
    return {metric.name: metric for metric in metrics}


def difference_of(metric: Metric, both: Sequence[Samples]) -> Difference:
    """How the metric changed from the baseline to the candidate, whose samples ``both`` are."""
    before, after = (each.of(metric) for each in both)
    return difference(before, after, metric.statistic, is_higher_worse=metric.is_higher_worse)


def living_rows(
    files: Files, table: schema.Table, scope: Scope, names: Collection[str], *, is_of_days: bool = True
) -> pa.Table:
    """The columns of the rows that the source still has, with those of the key.

    Where a call has no score of its own for satisfaction, it has the one that the platform shows as such.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    wanted = dict.fromkeys([*table.key, "execution_id", *names, *([_SHOWN_SCORE] if _SCORE in names else [])])
    rows = read_rows(files, table, scope, list(wanted), is_living=True, is_of_days=is_of_days)
    if _SCORE not in wanted:
        return rows
    score = pc.coalesce(rows[_SCORE], rows[_SHOWN_SCORE])
    return rows.set_column(rows.column_names.index(_SCORE), _SCORE, score)


def _numbered(rows: pa.Table, executions: Sequence[str]) -> pa.Table:
    """The rows of the executions, with the number of each one's."""
    rows = rows.filter(is_of(rows, executions)).combine_chunks()
    numbers = pc.index_in(rows["execution_id"], value_set=pa.array(executions, schema.STRING))
    return rows.append_column(_NUMBER, numbers)


def _outputs(evals: pa.Table) -> dict[tuple[str | None, str], Sample]:
    names = eval_names(evals).combine_chunks().dictionary_encode()
    found = {}
    for column in _OUTPUTS.values():
        for number, name in enumerate(names.dictionary.to_pylist()):
            of_eval = evals.filter(pc.equal(names.indices, number))
            if len(sample := _sample(of_eval[column], of_eval[_NUMBER])):
                found[name, column] = sample
    return found


def _has_failed(statuses: pa.ChunkedArray) -> pa.ChunkedArray:
    """True for a call that failed, false for one that completed; null for others, which have not ended or were cancelled."""
    has_ended = pc.is_in(statuses, value_set=pa.array(["completed", "failed"], schema.STRING))
    return pc.if_else(has_ended, pc.equal(statuses, "failed"), pa.scalar(None, schema.BOOL))


def _sample(column: pa.ChunkedArray, executions: pa.ChunkedArray) -> Sample:
    is_given = pc.is_valid(column)
    values = column.filter(is_given).cast(schema.FLOAT, safe=False).to_numpy()
    return Sample(values, executions.filter(is_given).to_numpy().astype(np.int64))
