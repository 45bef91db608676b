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

from etl.compare.comparison import change_texts, change_words, value_text
from etl.compare.nightly import Worse
from etl.compare.nights import FEWEST_NIGHTS
from etl.compare.selection import Selection, Span
from etl.model import schema
from etl.model.metrics import SHARE, passed_title
from etl.model.wording import counted, first_few, shown
from etl.report.charts import MOST_EVALS, MOST_SCENARIOS, charts_of, forest_chart, panel, png, svg
from etl.report.figures import COST, INTERRUPTIONS, LATENCIES, Figures, Outputs
from etl.report.gather import ReportContents
from etl.settings.results import ReportSettings

_MOST_HEADLINES = 10
"""How many things that got worse stand at the top of the page."""
_MOST_IN_PICTURE = 2
"""How many stand above a picture of charts."""


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
        return Markup(svg(self.chart))  # noqa: S704 made by Vega, which escapes all text


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
    of_compare = (change_texts, change_words, value_text)
    of_page = (counted, covered, first_few, forests, rate_text, sections, selection_text, span_words)
    environment.globals.update({function.__name__: function for function in of_compare + of_page})
    return environment.get_template("page.html").render(
        contents=contents,
        links=links or ReportSettings(),
        details=[figures for figures in contents.run_tests if figures.details],
        headlines=headlines(contents.run_tests),
        more=sum(len(figures.worse) for figures in contents.run_tests) - _MOST_HEADLINES,
        latencies=LATENCIES,
        most_scenarios=MOST_SCENARIOS,
        most_evals=MOST_EVALS,
        fewest_nights=FEWEST_NIGHTS,
    )


def pictures(contents: ReportContents) -> Iterator[tuple[str, bytes]]:
    """For each run test that has charts: its key, and a PNG of all of them."""
    for figures in contents.run_tests:
        if picture := picture_of(figures):
            yield figures.key, png(picture)


def picture_of(figures: Figures) -> Any:
    """All charts of the run test as one, under its name and what got worse; None without charts."""
    charts = [(shown(section.title), section.chart) for section in sections(figures)]
    titles = [shown(figures.name), *(worse.text for worse in figures.worse[:_MOST_IN_PICTURE])]
    return panel(titles, charts) if charts else None


def headlines(run_tests: Sequence[Figures]) -> list[tuple[Figures, Worse]]:
    """The first things that got worse, each with the figures of its run test."""
    return [(figures, worse) for figures in run_tests for worse in figures.worse][:_MOST_HEADLINES]


def rate_text(outputs: Outputs) -> str:
    """The share that passed, and of how many: ``63.3% of 60``; ``-`` without outputs."""
    return f"{value_text(outputs.rate, SHARE)} of {outputs.calls:,}" if outputs.calls else "-"


def selection_text(selection: Selection) -> str:
    """``2026-11-01 to 2026-11-07 (9 executions)``: the days on which these began; or the one execution."""
    if not isinstance(selection.selector, Span):
        return f"execution {selection.label}"
    days = [execution.started_at.date() for execution in selection.executions]
    return f"{span_words(min(days), max(days))} ({counted(len(days), 'execution')})"


def covered(contents: ReportContents) -> str:
    """The days of the report's calls, or ``no calls``."""
    days = [day for figures in contents.run_tests for day in figures.days or ()]
    return span_words(min(days), max(days)) if days else "no calls"


def span_words(first: date, last: date) -> str:
    """``2026-11-01 to 2026-11-07``, or the one day."""
    return f"{first} to {last}" if first < last else str(first)


def sections(figures: Figures) -> list[PageSection]:
    """The charts that there are, of latencies, evals, calls, cost and interruptions; none without details."""
    if figures.details is None:
        return []
    step = "week" if figures.details.step.days == 7 else "day"
    weekly = "the median call and the 95th percentile of each week, in ms."
    agent, user = map(_meaning, INTERRUPTIONS)
    words = {
        LATENCIES[0]: ("Agent latency", f"{_meaning(LATENCIES[0])}: {weekly}"),
        LATENCIES[1]: ("Chat latency", f"{_meaning(LATENCIES[1])}: {weekly}"),
        "calls": (f"Calls per {step}", "Calls by how they ended."),
        "cost": (f"Cost per {step}", f"{_meaning(COST)}, added up, in US dollars."),
        "interruptions": ("Interruptions", f"{agent} and {user[0].lower()}{user[1:]}: means of each week's calls."),
    }
    for rates, _ in figures.details.pass_rates:
        sides = f" Before: {rate_text(rates.before)}; now: {rate_text(rates.now)}." if figures.selections else ""
        title = passed_title(rates.name)
        words[title] = (title, f"Share of its outputs that passed, by week.{sides}")
    return [PageSection(*words[name], chart) for name, chart in charts_of(figures).items()]


def forests(figures: Figures) -> list[PageSection]:
    """The charts of what got worse, by scenario; none without details."""
    drawn = []
    for forest in figures.details.forests if figures.details else ():
        worse, scenarios = forest
        metric = worse.row.metric
        caption = (
            f"Each scenario since {worse.since}, with the 95% interval of its change if there are enough calls; "
            f"the line is where it was before, further {'right' if metric.is_higher_worse else 'left'} is worse."
        )
        more = len(scenarios) - MOST_SCENARIOS
        if more > 0:
            caption += f" {counted(more, 'more scenario')} changed less, or have too few calls."
        drawn.append(PageSection(f"{metric.title}, by scenario", caption, forest_chart(forest)))
    return drawn


def _meaning(column: str) -> str:
    """What a column of calls means, to stand within a sentence."""
    return next(declared.meaning.rstrip(".") for declared in schema.CALLS.columns if declared.name == column)
