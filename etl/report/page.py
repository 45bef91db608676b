"""The report as one HTML page without scripts, and as pictures. Needs the extra ``report``.

Owns what ``page.html`` calls, and the titles and captions of charts; ``page.html`` has the other words, ``page.css``
the look. Whatever came from outside is escaped, control characters too. Computes no figure, reads and writes no file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import jinja2
from markupsafe import Markup

from etl.compare.comparison import change_texts, value_text
from etl.compare.nightly import Executions, Worse
from etl.compare.nights import FEWEST_NIGHTS
from etl.model.metrics import Metric
from etl.model.wording import counted, shown
from etl.report import charts
from etl.report.figures import LATENCIES, Details, Figures
from etl.report.gather import ReportContents
from etl.settings.results import ReportSettings

_MOST_HEADLINES = 10
"""How many things that got worse are printed."""
_MOST_TRENDS = 3
"""How many metrics that got worse have charts, those that surely got worse most."""
_MOST_FORESTS = 2
"""How many of these are shown by scenario, and named above a picture of charts."""
_MOST_EVALS = 5
"""How many evals have a column, those that changed most; and of each call, how many that failed are named."""
_MOST_METRICS = 20
"""How many metrics are listed, those that got worse first."""
_LONGEST_NAME = 75
"""Of a name, so many characters stand in a table."""


@dataclass(frozen=True, slots=True)
class PageSection:
    """One chart with its words."""

    title: str
    caption: str
    """What is drawn, in a sentence or two."""
    chart: Any
    """As ``charts`` draws it."""

    @property
    def svg(self) -> Markup:
        """The chart as an SVG element, to stand in the page as it is."""
        return Markup(charts.svg(self.chart))  # noqa: S704 made by Vega, which escapes all text


def page(contents: ReportContents, links: ReportSettings | None = None) -> str:
    """The HTML of the page: a head, an overview, and a section for each run test that has details.

    ``links`` say where the platform shows a call; by default no call is linked.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("etl.report", "."),
        autoescape=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = (change_texts, counted, sections, side_text, value_text)
    environment.globals.update({function.__name__: function for function in functions})
    environment.filters["short"] = lambda name: name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    days = [day for figures in contents.run_tests for day in figures.days or ()]
    return environment.get_template("page.html").render(
        contents=contents,
        links=links or ReportSettings(),
        days=_span(days) if days else "no calls",
        details=[figures for figures in contents.run_tests if figures.details],
        latencies=LATENCIES,
        most_trends=_MOST_TRENDS,
        most_evals=_MOST_EVALS,
        most_metrics=_MOST_METRICS,
        most_scenarios=charts.MOST_SCENARIOS,
        fewest_nights=FEWEST_NIGHTS,
    )


def pictures(contents: ReportContents) -> Iterator[tuple[str, bytes]]:
    """For each run test that has charts: its key, and a PNG of all of them."""
    for figures in contents.run_tests:
        if picture := picture_of(figures):
            yield figures.key, charts.png(picture)


def picture_of(figures: Figures) -> Any:
    """All charts of the run test as one, under its name and what got worse; None without charts."""
    titled = [(shown(section.title), section.chart) for section in sections(figures)]
    texts = (text for each in figures.worse[:_MOST_FORESTS] for text in each.text.split("; "))  # a line has an end
    return charts.panel([shown(text) for text in (figures.name, *texts)], titled) if titled else None


def headlines(run_tests: Sequence[Figures]) -> list[tuple[Figures, Worse]]:
    """The first things that got worse, each with the figures of its run test."""
    return [(figures, worse) for figures in run_tests for worse in figures.worse][:_MOST_HEADLINES]


def side_text(executions: Executions) -> str:
    """``2026-11-01 to 2026-11-07 (9 executions)``: the days on which these began, at least one; of one, its time."""
    began = [execution.started_at for execution in executions]
    span = _span([each.date() for each in began]) if len(began) > 1 else f"{began[0]:%Y-%m-%d %H:%M}"
    return f"{span} ({counted(len(began), 'execution')})"


def _span(days: Sequence[date]) -> str:
    return " to ".join(map(str, sorted({min(days), max(days)})))


def _news(details: Details, metric: Metric) -> Iterator[tuple[date, str, str]]:
    """What changed at the source and may have moved the metric: night, label and text."""
    for night, name in details.versions:
        yield night, f"agent {name}", f"agent version {name[: charts.MOST_CHARACTERS]}"
    for change in details.judges:
        if change.eval_name == metric.eval_name:
            yield change.since, "new judge", f"judged differently ({change.what[: charts.MOST_CHARACTERS]})"


def sections(figures: Figures) -> list[PageSection]:
    """The charts: trends, latencies before and after, and what got worse by scenario; none without details."""
    if figures.details is None:
        return []
    drawn = []
    for trend in figures.trends[:_MOST_TRENDS]:
        metric, found = trend.row.metric, trend.row.found
        by, interval = change_texts(metric, found)
        before, after = (value_text(value, metric.unit) for value in (found.baseline, found.candidate))
        certainty = "too few calls for an interval" if by == "-" else f"{by} (95% interval {interval})"
        words = f"{before} → {after}, {certainty}" if figures.details.sides[0] else "The mean of each night."
        drawn.append(PageSection(metric.title, words, charts.trend_chart(trend, _news(figures.details, metric))))
    for each in figures.details.distributions[:1]:  # an agent speaks or writes
        is_worse = each.metric.name in [worse.metric for worse in figures.worse]
        title = each.metric.title.partition(",")[0]
        caption = "The share of calls at each latency. The last step on the right includes all slower calls."
        drawn.append(PageSection(f"{title}, all calls", caption, charts.distribution_chart(each, is_worse=is_worse)))
    for worse, forest in list(zip(figures.worse, figures.details.forests, strict=True))[:_MOST_FORESTS]:
        way = "right" if worse.row.metric.is_higher_worse else "left"
        more = counted(len(forest) - charts.MOST_SCENARIOS, "more scenario")
        rest = f" {more} changed less, or have too few calls." if len(forest) > charts.MOST_SCENARIOS else ""
        worse_if = f"A scenario with its dot {way} of 0 got worse, unless the line (95% interval) crosses 0."
        caption = f"{worse_if} A dot without a line has too few calls to tell.{rest}"
        if forest:
            title = f"{worse.row.metric.title}, by scenario"
            drawn.append(PageSection(title, caption, charts.forest_chart(worse.row, forest)))
    return drawn
