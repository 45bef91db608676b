"""The report as one HTML page without scripts, and as pictures. Needs the extra ``report``.

``page.html`` has the words and ``page.css`` the look. Whatever came from outside is escaped, control characters too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import jinja2
from markupsafe import Markup

from etl.compare.comparison import Row, change_texts, value_text
from etl.compare.repeats import K, Repeated
from etl.compare.selection import Selection, Span, can_tell_slow_days
from etl.compare.statistics import FEWEST_EXECUTIONS, Verdict
from etl.model import schema
from etl.model.metrics import SHARE, passed_title
from etl.model.wording import counted, shown
from etl.report.charts import MOST_EVALS, charts_of, panel, png, svg
from etl.report.contents import Contents
from etl.report.figures import COST, INTERRUPTIONS, LATENCIES, Figures
from etl.settings.results import Report

_MOST_SCENARIOS = 20
_MOST_HEADLINES = 3


@dataclass(frozen=True, slots=True)
class Section:
    """One chart with its words."""

    title: str
    caption: str
    chart: Any

    @property
    def svg(self) -> Markup:
        """The chart, to stand in the page as it is."""
        return Markup(svg(self.chart))  # noqa: S704 made by Vega, which escapes all text


def page(contents: Contents, links: Report | None = None) -> str:
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
        *(change_texts, change_words, comparison, counted, covered, headline),
        *(rate_text, sections, selection_text, span_words, unclear, value_text),
    )
    environment.globals.update({each.__name__: each for each in words})
    return environment.get_template("page.html").render(
        contents=contents,
        links=links or Report(),
        details=[each for each in contents.run_tests if each.details],
        headlines=headlines(contents.run_tests),
        in_doubt=sum(
            each.selections is not None and not can_tell_slow_days(each.selections) for each in contents.run_tests
        ),
        fewest_executions=FEWEST_EXECUTIONS,
        comparisons=sum(change.found.difference is not None for each in contents.run_tests for change in each.changes),
        most_scenarios=_MOST_SCENARIOS,
        most_evals=MOST_EVALS,
        share=SHARE,
        most_k=K,
    )


def pictures(contents: Contents) -> Iterator[tuple[str, bytes]]:
    """Of each run test that is shown in detail and has a chart: its key, and a PNG of all of its charts."""
    for figures in contents.run_tests:
        if picture := picture_of(figures):
            yield figures.key, png(picture)


def picture_of(figures: Figures) -> Any:
    """All charts of the run test as one, under its name and what got worse; None without any."""
    drawn = [(shown(each.title), each.chart) for each in sections(figures)]
    return panel([shown(figures.name), headline(figures)], drawn) if drawn else None


def headlines(run_tests: Sequence[Figures]) -> list[tuple[Figures, str]]:
    """The run tests that got worse most, each with what got worse in words."""
    return [(each, headline(each)) for each in run_tests[:_MOST_HEADLINES] if each.worse]


def headline(figures: Figures) -> str:
    """What got worse most, in at most two metrics; or why nothing can be said."""
    if figures.selections is None:
        return "nothing to compare with yet: fewer than two finished executions"
    if not figures.worse:
        few = all(each.found.verdict is Verdict.TOO_FEW for each in figures.changes)
        return "too few calls to compare" if few else "nothing got clearly worse"
    return "; ".join(map(change_words, figures.worse[:2]))


def change_words(change: Row) -> str:
    """``Agent latency, median +44.1% (1,310 ms to 1,888 ms)``."""
    found, unit = change.found, change.metric.unit
    by, _ = change_texts(change.metric, found)
    values = f"{value_text(found.baseline, unit)} to {value_text(found.candidate, unit)}"
    return f"{shown(change.metric.title)} {by} ({values})"


def rate_text(judged: Repeated) -> str:
    """``63.3% of 60``; ``-`` when nothing was judged."""
    return f"{value_text(judged.rate, SHARE)} of {judged.calls:,}" if judged.calls else "-"


def comparison(baseline: Selection, candidate: Selection) -> str:
    """What is compared with what."""
    doubt = "" if can_tell_slow_days((baseline, candidate)) else "; one slow day can look like a worse agent"
    return f"{selection_text(candidate)}, against {selection_text(baseline)}{doubt}"


def selection_text(selection: Selection) -> str:
    """The days on which its executions began, or the one execution."""
    if not isinstance(selection.selector, Span):
        return f"execution {selection.label}"
    days = [each.started_at.date() for each in selection.executions]
    return f"{span_words(min(days), max(days))} ({counted(len(days), 'execution')})"


def unclear(figures: Figures) -> str:
    """How many metrics are not in the list of changes, and why; empty when all are."""
    verdicts = [each.found.verdict for each in figures.changes]
    kinds = ((Verdict.UNCLEAR, "without a clear difference"), (Verdict.TOO_FEW, "with too few calls to tell"))
    return ", ".join(f"{counted(count, 'metric')} {words}" for kind, words in kinds if (count := verdicts.count(kind)))


def covered(contents: Contents) -> str:
    """Which days the calls of the report are from."""
    days = [day for each in contents.run_tests for day in each.days or ()]
    return span_words(min(days), max(days)) if days else "no calls"


def span_words(first: date, last: date) -> str:
    """``2026-11-01 to 2026-11-07``, or the one day."""
    return f"{first} to {last}" if first < last else str(first)


def sections(figures: Figures) -> list[Section]:
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
    return [Section(*words[name], chart) for name, chart in charts_of(figures).items()]


def _meaning(column: str) -> str:
    return next(each.meaning.rstrip(".") for each in schema.CALLS.columns if each.name == column)
