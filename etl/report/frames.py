"""The figures behind the page as frames, so that people draw their own. No package of the extra is needed."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from etl.compare.comparison import Row
from etl.compare.nightly import Worse
from etl.inspect.read_status import read_now
from etl.model.values import fields_of
from etl.report.figures import Details, Figures, WorstCall
from etl.report.gather import gather_contents
from etl.settings import Settings

_FIGURES = ("metric", "unit", "before", "after", "difference", "low", "high", "calls_before", "calls_after")
_COLUMNS = {
    "run_tests": ("verdict", "first_day", "last_day", "key", "calls", "dollars"),
    "nights": ("metric", "night", "value", "since"),
    "metrics": (*_FIGURES, "since"),
    "scenarios": ("scenario", *_FIGURES),
    "rates": ("scenario", "eval", "before", "after"),
    "failures": ("reason", "calls_before", "calls_after"),
    "worst_calls": tuple(field.name for field in fields(WorstCall)),
}
"""The frames and, after ``run_test``, their columns."""


def report_data(
    settings: Settings | str | Path | None = None,
    *,
    run_tests: Sequence[str] | None = None,
    since: date | None = None,
    until: date | None = None,
) -> dict[str, pd.DataFrame]:
    """What the page of ``metrics-etl report`` shows, as frames by name; the arguments are its options.

    ``run_tests`` has a row for each run test, in the order of the page; ``metrics`` one for each metric before and
    after, and ``nights``, ``scenarios``, ``rates``, ``failures`` and ``worst_calls`` what is drawn and listed of the
    run tests that the page shows in detail. A frame without rows has its columns all the same. Rates
    are shares from 0 to 1, other values have the metric's unit. ``since`` is the first night of a change.

    Raises:
        ConfigurationError: a mistake in the settings, or the dataset has no such run test.
        DestinationError: there is no dataset, or it cannot be read.
    """
    chosen, files, status = read_now(settings)
    contents = gather_contents(files, status, run_tests, since, until, rules=chosen.compare)
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _COLUMNS}
    for figures in contents.run_tests:
        for name, *row in _rows(figures):
            rows[name].append((figures.name, *row))
    return {name: pd.DataFrame(rows[name], columns=["run_test", *columns]) for name, columns in _COLUMNS.items()}


def _rows(figures: Figures) -> Iterator[tuple[Any, ...]]:
    """Each row after the name of its frame."""
    verdict = (figures.standing.value, *(figures.days or (None, None)))
    yield "run_tests", *verdict, figures.key, figures.calls, figures.dollars
    for trend in figures.trends:
        for night, value in trend.nights:
            yield "nights", trend.row.metric.name, night, value, trend.since
    if figures.details:
        yield from _rows_of_details(figures.details, figures.worse)


def _rows_of_details(details: Details, worse: Sequence[Worse]) -> Iterator[tuple[Any, ...]]:
    since = {each.metric: each.since for each in worse}
    for row in details.changes:
        yield "metrics", *_figures(row), since.get(row.metric.name)
    for each, forest in zip(worse, details.forests, strict=True):
        for scenario, found in forest:
            yield "scenarios", scenario, *_figures(Row(each.row.metric, found))
    for scenario_rates in details.rates:
        for row, rates in zip(details.evals, scenario_rates.rates, strict=True):
            yield "rates", scenario_rates.name, row.metric.eval_name, *rates
    for failure in details.failures:
        yield "failures", *failure
    for call in details.worst_calls:
        yield "worst_calls", *fields_of(call, *_COLUMNS["worst_calls"]).values()


def _figures(row: Row) -> tuple[Any, ...]:
    """The values of ``_FIGURES``: a metric before and after, and by how much it changed, with the 95% interval."""
    found, difference = row.found, row.found.difference
    bounds = (difference.value, difference.low, difference.high) if difference else (None, None, None)
    sides = found.baseline, found.candidate
    calls = found.baseline_calls, found.candidate_calls
    return row.metric.name or "cost_of_success", row.metric.unit, *sides, *bounds, *calls
