"""The report as one HTML page without scripts, and as pictures. Needs the extra ``report``.

``page.html`` has the words and ``page.css`` the look. Whatever came from outside is escaped, control characters too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import jinja2
from markupsafe import Markup

from etl.compare.comparison import change_texts, change_words, value_text
from etl.compare.nightly import Judged, Worse
from etl.compare.nights import FEWEST_NIGHTS
from etl.compare.repeats import K, Repeated
from etl.compare.selection import Selection, Span
from etl.model import schema
from etl.model.metrics import SHARE, passed_title
from etl.model.wording import counted, first_few, shown
from etl.report.charts import MOST_EVALS, MOST_SCENARIOS, charts_of, forest_chart, panel, png, svg
from etl.report.figures import COST, INTERRUPTIONS, LATENCIES, Figures
from etl.report.gather import ReportContents
from etl.settings.results import ReportSettings

_MOST_HEADLINES = 10
_MOST_IN_PICTURE = 2


@dataclass(frozen=True, slots=True)
class PageSection:
    """One chart with its words."""

    title: str
    caption: str
    chart: Any

    @property
    def svg(self) -> Markup:
        """The chart, to stand in the page as it is."""
        return Markup(svg(self.chart))  # noqa: S704 made by Vega, which escapes all text


def page(contents: ReportContents, links: ReportSettings | None = None) -> str:
    """The page: the head, an overview, and a section for each of the run tests that got worse most."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("etl.report", "."),
        autoescape=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        *(change_texts, change_words, counted, covered, forests, judged_words, rate_text),
        *(sections, selection_text, span_words, value_text),
    )
    environment.globals.update({each.__name__: each for each in words})
    return environment.get_template("page.html").render(
        contents=contents,
        links=links or ReportSettings(),
        details=[each for each in contents.run_tests if each.details],
        headlines=headlines(contents.run_tests),
        more=sum(len(each.worse) for each in contents.run_tests) - _MOST_HEADLINES,
        latencies=LATENCIES,
        most_scenarios=MOST_SCENARIOS,
        most_evals=MOST_EVALS,
        share=SHARE,
        most_k=K,
    )


def pictures(contents: ReportContents) -> Iterator[tuple[str, bytes]]:
    """Of each run test that is shown in detail and has a chart: its key, and a PNG of all of its charts."""
    for figures in contents.run_tests:
        if picture := picture_of(figures):
            yield figures.key, png(picture)


def picture_of(figures: Figures) -> Any:
    """All charts of the run test as one, under its name and what got worse; None without any."""
    drawn = [(shown(each.title), each.chart) for each in sections(figures)]
    told = [each.text for each in figures.worse[:_MOST_IN_PICTURE]]
    return panel([shown(figures.name), *told], drawn) if drawn else None


def headlines(run_tests: Sequence[Figures]) -> list[tuple[Figures, Worse]]:
    """What got worse, of the run tests that surely did so most."""
    return [(figures, each) for figures in run_tests for each in figures.worse][:_MOST_HEADLINES]


def judged_words(judged: Judged) -> str:
    """How much was judged, how often that is wrong, and what was not judged yet."""
    rate = judged.false_alarms_per_year
    metrics = f"{counted(judged.metrics, 'metric')} of {counted(judged.run_tests, 'run test')}"
    wrong = f"expect {rate:g} false alarm{'' if rate == 1 else 's'} a year"
    told = []
    if judged.run_tests:
        told.append(
            f"Judged after each night: {metrics}, {counted(judged.nights, 'night')}. If nothing changes, {wrong}."
        )
    if names := judged.not_yet:
        told.append(f"Not judged yet, with fewer than {FEWEST_NIGHTS} nights before: {first_few(names, shown=10)}.")
    return " ".join(told)


def rate_text(judged: Repeated) -> str:
    """``63.3% of 60``; ``-`` when nothing was judged."""
    return f"{value_text(judged.rate, SHARE)} of {judged.calls:,}" if judged.calls else "-"


def selection_text(selection: Selection) -> str:
    """The days on which its executions began, or the one execution."""
    if not isinstance(selection.selector, Span):
        return f"execution {selection.label}"
    days = [each.started_at.date() for each in selection.executions]
    return f"{span_words(min(days), max(days))} ({counted(len(days), 'execution')})"


def covered(contents: ReportContents) -> str:
    """Which days the calls of the report are from."""
    days = [day for each in contents.run_tests for day in each.days or ()]
    return span_words(min(days), max(days)) if days else "no calls"


def span_words(first: date, last: date) -> str:
    """``2026-11-01 to 2026-11-07``, or the one day."""
    return f"{first} to {last}" if first < last else str(first)


def sections(figures: Figures) -> list[PageSection]:
    """What there is of latencies, calls, cost and interruptions. None without details."""
    step = "week" if figures.details and figures.details.step.days == 7 else "day"
    weekly = "the median call and the 95th percentile of each week, in ms."
    agent, user = map(_meaning, INTERRUPTIONS)
    words = {
        LATENCIES[0]: ("Agent latency", f"{_meaning(LATENCIES[0])}: {weekly}"),
        LATENCIES[1]: ("Chat latency", f"{_meaning(LATENCIES[1])}: {weekly}"),
        "calls": (f"Calls per {step}", "Calls by how they ended."),
        "cost": (f"Cost per {step}", f"{_meaning(COST)}, added up, in US dollars."),
        "interruptions": ("Interruptions", f"{agent} and {user[0].lower()}{user[1:]}: means of each week's calls."),
    }
    for each, _ in figures.details.pass_rates if figures.details else ():
        sides = f" Before: {rate_text(each.before)}; now: {rate_text(each.now)}." if figures.selections else ""
        title = passed_title(each.name)
        words[title] = (title, f"Share of its outputs that passed, by week.{sides}")
    return [PageSection(*words[name], chart) for name, chart in charts_of(figures).items()]


def forests(figures: Figures) -> list[PageSection]:
    """What got worse, by scenario. None without details."""
    made = []
    for each in figures.details.forests if figures.details else ():
        worse, scenarios = each
        metric, more = worse.row.metric, len(scenarios) - MOST_SCENARIOS
        caption = (
            f"Each scenario since {worse.since}, with the 95% interval of its change if there are enough calls; "
            f"the line is where it was before, further {'right' if metric.is_higher_worse else 'left'} is worse."
        )
        caption += f" {counted(more, 'more scenario')} changed less, or have too few calls." if more > 0 else ""
        made.append(PageSection(f"{metric.title}, by scenario", caption, forest_chart(each)))
    return made


def _meaning(column: str) -> str:
    return next(each.meaning.rstrip(".") for each in schema.CALLS.columns if each.name == column)
