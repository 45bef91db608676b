"""Charts say in words what they draw, in colors that dark mode knows."""

import re
from dataclasses import replace
from datetime import date, timedelta
from importlib import resources
from xml.etree import ElementTree as ET

import pytest

from etl.report import charts
from etl.report.charts import distribution_chart, forest_chart, panel, png, svg, trend_chart
from etl.report.figures import Trend
from tests.report.rows import LATENCY, call, execution, figures, output

SLOWER = [execution("e1"), execution("e2", day=10)]


def slower(**values):
    """A run test whose calls are slower in its second night."""
    calls = [
        call(n, of=f"e{1 + n % 2}", day=10 * (n % 2), scenario_id="s", **{LATENCY: 1000 + n % 2 * 500 + n} | values)
        for n in range(60)
    ]
    evals = [output(n, of=f"e{1 + n % 2}", passed=n % 2 == 0 or n % 3 == 0) for n in range(60)]
    return figures(calls, evals, SLOWER, worse=["latency_mean", "eval_task_pass_rate"])


def drawn(chart):
    """The chart as XML."""
    return ET.fromstring(svg(chart))


def words(image, role="point"):
    """What the marks say, but for axes and legends."""
    found = [each for each in image.iter() if each.get("aria-roledescription") == role]
    return [each.get("aria-label") for each in found if each.get("aria-label")]


def texts(image):
    return [each.text for each in image.iter() if each.tag.endswith("text")]


def test_each_night_of_a_trend_says_what_it_shows_and_the_change_is_marked_with_both_levels():
    news = [(date(2026, 11, 1), "v1", "agent version v1"), (date(2026, 11, 12), "agent v2\x1b", "agent version v2\x1b")]
    image = drawn(trend_chart(slower().trends[0], news))
    assert words(image) == ["2026-11-02: 1,029 ms", "2026-11-12: 1,530 ms"]
    rules = ["since 2026-11-12", "agent version v2\\x1b since 2026-11-12", "before: 1,029 ms", "after: 1,530 ms"]
    assert words(image, "rule mark") == rules
    assert {"since 2026-11-12", "agent v2\\x1b"} <= {*texts(image)}
    assert [each for each in texts(image) if re.fullmatch("[0-9,]+", each)] == ["0", "500", "1,000", "1,500"]


def test_nights_with_news_are_marked_once_and_the_nearest_to_the_change_is_named():
    trend = replace(slower().trends[0], nights=[(date(2026, 11, 1) + timedelta(days=n), 1.0) for n in range(30)])
    news = [(night, "new judge", f"judged {n}") for night, _ in trend.nights for n in range(4)]
    image = drawn(trend_chart(trend, [*news, (date(2026, 11, 12), "agent v2", "agent v2")]))
    told = sorted((each for each in words(image, "rule mark") if "judged" in each), key=lambda each: each[-2:])
    assert [each[-2:] for each in told] == ["09", "10", "11", "12", "13", "14"]
    assert told[0] == "judged 0, judged 1 and 2 more since 2026-11-09"
    assert [each for each in texts(image) if each and "judge" in each] == ["new judge, agent v2"]


def test_trend_without_a_change_has_nothing_but_its_nights():
    image = drawn(trend_chart(figures([call(1, **{LATENCY: 5})]).trends[0]))
    assert (words(image), words(image, "rule mark")) == (["2026-11-02: 5.00 ms"], [])


@pytest.mark.parametrize("passed", [0.0, 0.97])
def test_axis_of_a_rate_is_from_0_to_100_percent(passed):
    trend = slower().trends[1]
    changed = Trend(trend.row, [(date(2026, 11, 2), passed)], None)
    assert [each for each in texts(drawn(trend_chart(changed))) if "%" in each][::5] == ["0%", "100%"]


@pytest.mark.parametrize("nights", [1, 2, 9, 60, 400])
def test_dates_on_an_axis_are_few_enough_to_read(nights):
    first = date(2026, 1, 1)
    trend = Trend(slower().trends[0].row, [(first, 1.0), (first + timedelta(days=nights - 1), 2.0)], None)
    found = texts(drawn(trend_chart(trend)))
    dates = [each for each in found if re.fullmatch(r"\d{4}-\d\d(-\d\d)?", each)]
    assert 1 <= len(dates) <= 7
    assert len(set(dates)) == len(dates)


@pytest.mark.parametrize("amount", [0, 0.05, 1, 5, 150, 999, 1001])
def test_no_two_ticks_of_an_axis_say_the_same(amount):
    found = slower(**{LATENCY: amount})
    for chart in (trend_chart(found.trends[0]), distribution_chart(found.details.distributions[0], is_worse=True)):
        ticks = [each for each in texts(drawn(chart)) if re.fullmatch(r"[0-9,.]+%?", each)]
        assert len(set(ticks)) >= len(ticks) - 1, "both axes have a zero"


def test_forest_has_each_scenario_that_both_sides_have_the_largest_change_first_and_the_whole_below():
    """Where calls are few there are the points alone, after the others."""
    calls = []
    for s in range(23):
        scenario = {"scenario_id": f"s{s}", "scenario_name": f"S{s}\x1b"}
        for n in range(4 if s == 22 else 60):
            latency = {LATENCY: 100 + n % 5 + s * 10 * (n % 2)}
            calls.append(call(100 * s + n, of=f"e{1 + n % 2}", day=10 * (n % 2), **scenario, **latency))
    calls.append(call(9999, of="e2", day=10, scenario_id="new", scenario_name="New", **{LATENCY: 9000}))
    found = figures(calls, [], SLOWER, worse=["latency_mean"])
    (forest,), row = found.details.forests, found.worse[0].row
    assert [name for name, _ in forest] == [f"S{s}\x1b" for s in (*range(21, -1, -1), 22)]
    assert len(points(forest_chart(row, forest))) == charts.MOST_SCENARIOS + 1
    first, few, whole = points(forest_chart(row, [forest[0], forest[-1]]))
    text = r"S21\\x1b: 102 ms of 30 calls before, 312 ms of 30 calls since, \+.+%, 95% interval .+%"
    assert re.fullmatch(text, first)
    assert few == "S22\\x1b: 101 ms of 2 calls before, 322 ms of 2 calls since, too few calls for an interval"
    assert whole.startswith("All together: 102 ms of 662 calls before")


def points(chart):
    """What they say, from above."""
    found = [each for each in drawn(chart).iter() if each.get("aria-roledescription") == "point"]
    heights = [float(each.get("transform", "").partition(",")[2].rstrip(")")) for each in found]
    assert len(set(heights)) == len(found)
    return [each.get("aria-label") for _, each in sorted(zip(heights, found, strict=True), key=lambda each: each[0])]


@pytest.mark.parametrize(
    "text", ["\x00", "\x1b[31m", "\uffff", "\u202e", "", "x" * 5000, *(f"{'x' * n}{'🚀' * 60}" for n in (20, 21))]
)
def test_scenario_of_any_characters_is_drawn(text):
    """The renderer ends the process at a character that XML does not have."""
    found = slower(scenario_name=text)
    chart = forest_chart(found.worse[0].row, found.details.forests[0])
    assert len(points(chart)) == 2
    assert png(panel(["a title"], [("by scenario", chart)]))


def test_dark_mode_knows_every_color_of_the_charts():
    css = resources.files("etl.report").joinpath("page.css").read_text()
    found, same = slower(), figures([call(1, **{LATENCY: 5})])
    (distribution,) = found.details.distributions
    drawn_charts = [
        *map(trend_chart, [*found.trends, *same.trends]),
        *(distribution_chart(distribution, is_worse=is_worse) for is_worse in (True, False)),
        forest_chart(found.worse[0].row, found.details.forests[0]),
    ]
    used = {pair for chart in drawn_charts for pair in re.findall(r'(fill|stroke)="(#[0-9a-f]+)"', svg(chart))}
    unknown = {pair for pair in used if f'[{pair[0]}="{pair[1]}"]' not in css}
    assert unknown == {("fill", charts.GREY), ("stroke", charts.GREY)}, "which is to be seen on both"
    assert {color for _, color in used} >= {charts.RED, charts.BLUE, charts.GREY}
