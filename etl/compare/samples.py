"""The values of the metrics of some executions' calls, read from the dataset: what ``statistics`` compares.

Owns which rows count: those that the source still has, and for each metric the calls that have a value. It judges
nothing.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.estimate import difference
from etl.compare.nights import without_outliers
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
from etl.settings.results import Compare

_NO_VALUES = Sample.of(np.empty(0))
_EXECUTION, _SCENARIO = "number of the execution", "number of the scenario"
"""Columns that are added to calls and evals; a ``Sample`` has the same numbers."""
_METRIC_COLUMNS = sorted({metric.column for metric in METRICS.values()})
CALL_COLUMNS = [*_METRIC_COLUMNS, *SCENARIO_COLUMNS]
"""The columns of calls that a comparison reads."""
_SCORE, _SHOWN_SCORE = METRICS["csat_mean"].column, "overall_score"
_OUTPUTS = {"output_passed": Statistic.RATE, "output_score": Statistic.MEAN}
EVAL_COLUMNS = ["eval_name", "eval_config_id", *_OUTPUTS]
"""The columns of evals that a comparison reads."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The values of all metrics of the baseline, or of the candidate."""

    calls: int
    """How many calls there are, with values or without."""
    values: Mapping[tuple[str | None, str], Sample]
    """By the eval's name (None for the metrics of calls themselves) and the column; those of evals are never empty."""

    def of(self, metric: Metric) -> Sample:
        """One value for each call that has the metric; empty if none has."""
        return self.values.get((metric.eval_name, metric.column), _NO_VALUES)

    def without_outliers(self, metric: Metric) -> "Samples":
        """The same, but no call counts for more of this metric than ``nights`` lets one count."""
        sample = self.of(metric)
        values = without_outliers(sample.values, sample.scenarios + 1)
        return replace(self, values={**self.values, (metric.eval_name, metric.column): replace(sample, values=values)})


def read_samples(
    files: Files, *sides: Sequence[ComparedExecution], rules: Compare, is_paired: bool = True
) -> tuple[list[Samples], Pairing]:
    """The values of the calls of baseline and candidate, and how both sides are matched.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    executions = list(chain(*sides))
    days = [execution.started_at.date() for execution in executions]
    scope = Scope(frozenset(execution.run_test for execution in executions), min(days), max(days))
    calls = live_rows(files, schema.CALLS, scope, CALL_COLUMNS)
    exported = sum(execution.exported_calls or 0 for execution in executions)
    if len(calls.filter(is_of(calls, [execution.execution_id for execution in executions]))) < exported:
        # An execution stays in the month in which it was first seen, whatever the API says later of its start.
        scope = Scope(scope.run_test_keys)
        calls = live_rows(files, schema.CALLS, scope, CALL_COLUMNS)
    evals = live_rows(files, schema.EVALS, scope, EVAL_COLUMNS)
    return samples_of(calls, evals, *sides, rules=rules, is_paired=is_paired)


def samples_of(
    calls: pa.Table, evals: pa.Table, *sides: Sequence[ComparedExecution], rules: Compare, is_paired: bool = True
) -> tuple[list[Samples], Pairing]:
    """For each side, the values of its executions' calls; and how the sides are matched.

    ``calls`` and ``evals`` have their keys, ``CALL_COLUMNS`` and ``EVAL_COLUMNS``, and may have rows of other
    executions.
    """
    calls_of_sides = [_numbered(calls, executions) for executions in sides]
    pairing, scenarios_of_sides = paired(calls_of_sides, is_wanted=is_paired)
    samples = []
    for executions, rows, scenarios in zip(sides, calls_of_sides, scenarios_of_sides, strict=True):
        own_calls = _with_failures(rows, rules.line_failures).append_column(_SCENARIO, pa.array(scenarios))
        own_evals = _numbered(evals, executions)
        places = pc.index_in(own_evals["call_execution_id"], value_set=own_calls["call_execution_id"].combine_chunks())
        # The call of an eval may be missing from the files: its scenario is unknown, unless all calls are compared
        # together.
        of_evals = pc.fill_null(own_calls[_SCENARIO].take(places), NONE if pairing.names else 0)
        values = {(None, column): _sample(own_calls, column) for column in _METRIC_COLUMNS}
        samples.append(Samples(len(own_calls), values | _eval_samples(own_evals.append_column(_SCENARIO, of_evals))))
    return samples, pairing


def eval_metrics(both: Sequence[Samples]) -> dict[str, Metric]:
    """The metrics of the evals of baseline and candidate, by name; an eval that both have has the same metrics."""
    outputs = sorted({(name, column) for samples in both for name, column in samples.values if name is not None})
    labels: dict[str, str] = {}
    for name in sorted({name for name, _ in outputs}):  # two may differ in nothing but case and punctuation
        slug = slug_of(name)
        candidates = chain([slug], (f"{slug}_{number}" for number in count(2)))
        labels[name] = next(label for label in candidates if label not in labels.values())
    metrics = [eval_metric(labels[name], name, _OUTPUTS[column]) for name, column in outputs]
    return {metric.name: metric for metric in metrics}


def difference_of(metric: Metric, both: Sequence[Samples]) -> Difference:
    """How the metric changed from the baseline to the candidate, whose samples ``both`` are."""
    before, after = (samples.of(metric) for samples in both)
    return difference(before, after, metric.statistic, is_higher_worse=metric.is_higher_worse)


def live_rows(files: Files, table: schema.Table, scope: Scope, names: Collection[str]) -> pa.Table:
    """The named columns and the key of the rows that the source still has, of all days in the parts of the scope.

    A call without a satisfaction score of its own gets the score that the platform shows as such.

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
    """The rows of the executions, with the place of each one's execution among them."""
    ids = [execution.execution_id for execution in executions]
    rows = rows.filter(is_of(rows, ids)).combine_chunks()
    numbers = pc.index_in(rows["execution_id"], value_set=pa.array(ids, schema.STRING))
    return rows.append_column(_EXECUTION, numbers)


def _eval_samples(evals: pa.Table) -> dict[tuple[str | None, str], Sample]:
    """The values of each eval by its name and column, of those that have any."""
    names = eval_names(evals).combine_chunks().dictionary_encode()
    samples: dict[tuple[str | None, str], Sample] = {}
    for column in _OUTPUTS:
        for number, name in enumerate(names.dictionary.to_pylist()):
            if len(sample := _sample(evals.filter(pc.equal(names.indices, number)), column)):
                samples[name, column] = sample
    return samples


def _with_failures(calls: pa.Table, line_failures: Sequence[str]) -> pa.Table:
    """The calls with ``status``: whether the agent failed; and ``ended_reason``: whether the line did.

    Both are null for a call that was cancelled or has not ended; the first also where the line failed.
    """
    # Without any words, what matches nothing.
    words = "|".join(re.escape(each).replace(r"\ ", "[^a-z0-9]") for each in line_failures) or r"[^\s\S]"
    pattern = f"(^|[^a-z0-9])({words})($|[^a-z0-9])"
    is_of_line = pc.match_substring_regex(calls["ended_reason"], pattern, ignore_case=True)
    has_ended = pc.is_in(calls["status"], value_set=pa.array(["completed", "failed"], schema.STRING))
    has_failed = pc.equal(calls["status"], "failed")
    of_line = pc.and_(has_failed, pc.fill_null(is_of_line, fill_value=False))
    by_agent = pc.if_else(pc.and_not(has_ended, of_line), has_failed, pa.scalar(None, schema.BOOL))
    by_line = pc.if_else(has_ended, of_line, pa.scalar(None, schema.BOOL))
    for name, values in {"status": by_agent, "ended_reason": by_line}.items():
        calls = calls.set_column(calls.column_names.index(name), name, values)
    return calls


def _sample(rows: pa.Table, column: str) -> Sample:
    """The values of one column, without nulls; a whole number that no double holds is the nearest double."""
    rows = rows.filter(pc.is_valid(rows[column]))
    values = rows[column].cast(schema.FLOAT, safe=False).to_numpy()
    return Sample(values, *(rows[number].to_numpy().astype(np.int64) for number in (_EXECUTION, _SCENARIO)))
