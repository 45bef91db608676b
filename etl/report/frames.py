"""The figures behind the page as frames, so that people draw their own. No package of the extra is needed."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from etl.compare.comparison import Row
from etl.compare.nightly import Worse
from etl.inspect.read_status import read_now
from etl.model.values import fields_of
from etl.report.figures import Details, Figures
from etl.report.gather import gather_contents
from etl.settings import Settings


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
    run tests that the page shows in detail. Rates are shares from 0 to 1, other values have the metric's unit.
    ``since`` is the first night of a change.

    Raises:
        ConfigurationError: a mistake in the settings, or the dataset has no such run test.
        DestinationError: there is no dataset, or it cannot be read.
    """
    chosen, files, status = read_now(settings)
    contents = gather_contents(files, status, run_tests, since, until, rules=chosen.compare)
    rows = defaultdict[str, list[dict[str, Any]]](list)
    for figures in contents.run_tests:
        for name, row in _rows(figures):
            rows[name].append({"run_test": figures.name, **row})
    return {name: pd.DataFrame(of_frame) for name, of_frame in rows.items()}


def _rows(figures: Figures) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with the name of its frame."""
    first, last = figures.days or (None, None)
    verdict = {"verdict": figures.standing.value, "first_day": first, "last_day": last}
    yield "run_tests", verdict | fields_of(figures, "key", "calls", "dollars")
    for trend in figures.trends:
        for night, value in trend.nights:
            yield "nights", {"metric": trend.row.metric.name, "night": night, "value": value, "since": trend.since}
    if figures.details:
        yield from _rows_of_details(figures.details, figures.worse)


def _rows_of_details(details: Details, worse: Sequence[Worse]) -> Iterator[tuple[str, dict[str, Any]]]:
    since = {each.metric: each.since for each in worse}
    for row in details.changes:
        yield "metrics", _figures(row) | {"since": since.get(row.metric.name)}
    for each, forest in zip(worse, details.forests, strict=True):
        for scenario, found in forest:
            yield "scenarios", {"scenario": scenario} | _figures(Row(each.row.metric, found))
    for scenario_rates in details.rates:
        for row, (before, after) in zip(details.evals, scenario_rates.rates, strict=True):
            names = {"scenario": scenario_rates.name, "eval": row.metric.eval_name}
            yield "rates", names | {"before": before, "after": after}
    for reason, calls_before, calls_after in details.failures:
        yield "failures", {"reason": reason, "calls_before": calls_before, "calls_after": calls_after}
    for call in details.worst_calls:
        yield "worst_calls", fields_of(call, *call.__slots__)


def _figures(row: Row) -> dict[str, Any]:
    """A metric before and after, and by how much it changed, with the 95% interval."""
    found, difference = row.found, row.found.difference
    bounds = (difference.value, difference.low, difference.high) if difference else (None, None, None)
    return {
        "metric": row.metric.name or "cost_of_success",
        "unit": row.metric.unit,
        "before": found.baseline,
        "after": found.candidate,
        **dict(zip(("difference", "low", "high"), bounds, strict=True)),
        "calls_before": found.baseline_calls,
        "calls_after": found.candidate_calls,
    }
