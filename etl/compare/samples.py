"""The values of the metrics of some executions' calls, read from the dataset: what ``statistics`` compares."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.estimate import difference
from etl.compare.pairing import NONE, SCENARIO_COLUMNS, Pairing, paired
from etl.compare.selection import ComparedExecution
from etl.compare.statistics import Difference, Sample
from etl.dataset.layout import Scope
from etl.files.interface import Files
from etl.inspect.joined_calls import eval_names, slug_of
from etl.inspect.read_tables import read_rows
from etl.model import schema
from etl.model.arrow import is_of
from etl.model.metrics import METRICS, Metric, Statistic, eval_metric

_NONE = Sample.of(np.empty(0))
_NUMBER, _PLAYED = "number of the execution", "number of the scenario"
_METRIC_COLUMNS = sorted({metric.column for metric in METRICS.values()})
CALL_COLUMNS = [*_METRIC_COLUMNS, *SCENARIO_COLUMNS]
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


def read_samples(
    files: Files, *sides: Sequence[ComparedExecution], is_paired: bool = True
) -> tuple[list[Samples], Pairing]:
    """The values of the calls of baseline and candidate, and how they are paired.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    both = [each for side in sides for each in side]
    keys = frozenset(each.run_test for each in both)
    days = [each.started_at.date() for each in both]
    scope = Scope(keys, min(days), max(days))
    calls = living_rows(files, schema.CALLS, scope, CALL_COLUMNS)
    exported = sum(each.exported_calls or 0 for each in both)
    if len(calls.filter(is_of(calls, [each.execution_id for each in both]))) < exported:
        # An execution stays in the month in which it was first seen, whatever the API says later of its start.
        scope = Scope(keys)
        calls = living_rows(files, schema.CALLS, scope, CALL_COLUMNS)
    evals = living_rows(files, schema.EVALS, scope, EVAL_COLUMNS)
    return samples_of(calls, evals, *sides, is_paired=is_paired)


def samples_of(
    calls: pa.Table, evals: pa.Table, *sides: Sequence[ComparedExecution], is_paired: bool = True
) -> tuple[list[Samples], Pairing]:
    """Those of these executions among the calls and evals, which have ``CALL_COLUMNS`` and ``EVAL_COLUMNS`` besides their keys."""
    of_sides = [_numbered(calls, executions) for executions in sides]
    pairing, played = paired(of_sides, is_wanted=is_paired)
    made = []
    for executions, found, numbers in zip(sides, of_sides, played, strict=True):
        failed = found.set_column(found.column_names.index("status"), "status", _has_failed(found["status"]))
        mine = failed.append_column(_PLAYED, pa.array(numbers))
        outputs = _numbered(evals, executions)
        calls_of = pc.index_in(outputs["call_execution_id"], value_set=mine["call_execution_id"].combine_chunks())
        outputs = outputs.append_column(
            _PLAYED, pc.fill_null(mine[_PLAYED].take(calls_of), NONE if pairing.names else 0)
        )
        made.append(
            Samples(len(mine), {(None, name): _sample(mine, name) for name in _METRIC_COLUMNS} | _outputs(outputs))
        )
    return made, pairing


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


def living_rows(files: Files, table: schema.Table, scope: Scope, names: Collection[str]) -> pa.Table:
    """The columns of the rows that the source still has of these parts, whatever their day, with those of the key.

    Where a call has no score of its own for satisfaction, it has the one that the platform shows as such.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    wanted = dict.fromkeys([*table.key, "execution_id", *names, *([_SHOWN_SCORE] if _SCORE in names else [])])
    rows = read_rows(files, table, scope, list(wanted), is_living=True, is_of_days=False)
    if _SCORE not in wanted:
        return rows
    score = pc.coalesce(rows[_SCORE], rows[_SHOWN_SCORE])
    return rows.set_column(rows.column_names.index(_SCORE), _SCORE, score)


def _numbered(rows: pa.Table, executions: Sequence[ComparedExecution]) -> pa.Table:
    """The rows of the executions, with the number of each one's."""
    ids = [each.execution_id for each in executions]
    rows = rows.filter(is_of(rows, ids)).combine_chunks()
    numbers = pc.index_in(rows["execution_id"], value_set=pa.array(ids, schema.STRING))
    return rows.append_column(_NUMBER, numbers)


def _outputs(evals: pa.Table) -> dict[tuple[str | None, str], Sample]:
    names = eval_names(evals).combine_chunks().dictionary_encode()
    found = {}
    for column in _OUTPUTS.values():
        for number, name in enumerate(names.dictionary.to_pylist()):
            of_eval = evals.filter(pc.equal(names.indices, number))
            if len(sample := _sample(of_eval, column)):
                found[name, column] = sample
    return found


def _has_failed(statuses: pa.ChunkedArray) -> pa.ChunkedArray:
    """True for a call that failed, false for one that completed; null for others, which have not ended or were cancelled."""
    has_ended = pc.is_in(statuses, value_set=pa.array(["completed", "failed"], schema.STRING))
    return pc.if_else(has_ended, pc.equal(statuses, "failed"), pa.scalar(None, schema.BOOL))


def _sample(rows: pa.Table, column: str) -> Sample:
    rows = rows.filter(pc.is_valid(rows[column]))
    numbers = (rows[each].to_numpy().astype(np.int64) for each in (_NUMBER, _PLAYED))
    return Sample(rows[column].cast(schema.FLOAT, safe=False).to_numpy(), *numbers)
