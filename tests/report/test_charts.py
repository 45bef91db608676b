"""Charts say in words what they draw, in colors that dark mode knows."""

import re
from importlib import resources
from itertools import product
from xml.etree import ElementTree as ET

import pytest

from etl.model.wording import shown
from etl.report import charts
from etl.report.charts import charts_of, forest_chart, panel, png, svg
from tests.report.rows import CHAT_LATENCY, LATENCY, call, execution, figures, output

RATES = {"conversation_ai_interruption_rate": 0.5, "conversation_user_interruption_rate": 1.25}
WHOLE = {LATENCY: 1200, "cost_total_cost_cents": 30} | RATES


def drawn(name, *calls, evals=()):
    """The chart as XML."""
    return ET.fromstring(svg(charts_of(figures(calls, evals))[name]))


def words(image):
    """What the marks say, but for axes and legends."""
    labels = [each.get("aria-label", "") for each in image.iter()]
    return [each for each in labels if re.search("2026-", each)]


def texts(image):
    return [each.text for each in image.iter() if each.tag.endswith("text")]


def test_each_point_and_bar_says_what_it_shows():
    calls = [call(1, **WHOLE), call(2, status="failed"), call(3, day=7, **WHOLE)]
    assert words(drawn(LATENCY, *calls)) == [
        "week of 2026-11-02, median (p50): 1,200 ms",
        "week of 2026-11-02, 95th percentile (p95): 1,200 ms",
        "week of 2026-11-09, median (p50): 1,200 ms",
        "week of 2026-11-09, 95th percentile (p95): 1,200 ms",
    ]
    assert words(drawn("cost", *calls)) == ["2026-11-02: $0.30", "2026-11-09: $0.30"]
    found = words(drawn("calls", *calls))
    assert sorted(found) == ["2026-11-02: 1 completed", "2026-11-02: 1 failed", "2026-11-09: 1 completed"]
    assert words(drawn("interruptions", calls[0])) == [
        "week of 2026-11-02, by the agent: 0.5 interruptions per minute",
        "week of 2026-11-02, by the user: 1.25 interruptions per minute",
    ]


@pytest.mark.parametrize(("name", "color"), [(LATENCY, charts.BLUE), ("Task: passed", charts.GREEN)])
def test_week_without_values_has_no_point_and_breaks_the_line(name, color):
    calls = [call(n, day=7 * n, **({} if n == 2 else {LATENCY: 500})) for n in range(5)]
    image = drawn(name, *calls, evals=[output(n, passed=True) for n in range(5) if n != 2])
    assert not [each for each in words(image) if "nan" in each or "2026-11-16" in each]
    lines = [each.get("d") for each in image.iter() if each.get("stroke") == color and each.get("fill") != color]
    assert [each.count("M") for each in lines] == [2]


def test_pass_rates_have_a_chart_each_with_one_axis_and_say_how_many_outputs_there_are():
    calls = [call(n, day=n // 4) for n in range(56)]
    evals = [output(n, passed=n % 4 > 0) for n in range(56)] + [output(9, name="Tone", passed=True)]
    assert words(drawn("Task: passed", *calls, evals=evals)) == [
        "week of 2026-11-02: 75.0% of 28 passed",
        "week of 2026-11-09: 75.0% of 28 passed",
    ]
    tone = drawn("Tone: passed", *calls, evals=evals)
    assert words(tone) == ["week of 2026-11-02: 100.0% of 1 passed"]
    assert [each for each in texts(tone) if "%" in each] == ["75%", "80%", "85%", "90%", "95%", "100%"]
    none = drawn("Task: passed", call(1), evals=[output(1, passed=False)])
    assert [each for each in texts(none) if "%" in each][::5] == ["0%", "100%"]


def test_so_many_evals_have_a_chart_those_that_changed_most():
    executions = [execution("e1"), execution("e2", day=10)]
    evals = [
        output(10 * of + n, of=f"e{of}", name=f"Eval {name}", passed=of == 1 or n >= name)
        for name, of, n in product(range(9), (1, 2), range(9))
    ]
    found = figures([call(10 * of + n, of=f"e{of}") for of in (1, 2) for n in range(9)], evals, executions)
    assert [each for each in charts_of(found) if "Eval" in each] == [f"Eval {n}: passed" for n in (8, 7, 6, 5, 4, 3)]


def test_what_has_no_data_has_no_chart():
    assert charts_of(figures([])) == {}
    assert charts_of(figures([call(1)])).keys() == {"calls"}
    assert charts_of(figures([call(1, **{CHAT_LATENCY: 5})])).keys() == {CHAT_LATENCY, "calls"}


def test_forest_has_each_scenario_that_both_sides_have_the_largest_change_first_and_the_whole_below():
    """Where calls are few there are the points alone, after the others."""
    calls = []
    for s in range(23):
        scenario = {"scenario_id": f"s{s}", "scenario_name": f"S{s}\x1b"}
        for n in range(4 if s == 22 else 60):
            latency = {LATENCY: 100 + n % 5 + s * 10 * (n % 2)}
            calls.append(call(100 * s + n, of=f"e{1 + n % 2}", day=10 * (n % 2), **scenario, **latency))
    calls.append(call(9999, of="e2", day=10, scenario_id="new", scenario_name="New", **{LATENCY: 9000}))
    found = figures(calls, [], [execution("e1"), execution("e2", day=10)], worse=["latency_mean"])
    ((worse, scenarios),) = found.details.forests
    assert [name for name, _ in scenarios] == [f"S{s}\x1b" for s in (*range(21, -1, -1), 22)]
    assert len(points(forest_chart((worse, scenarios)))) == charts.MOST_SCENARIOS + 1
    first, few, whole = points(forest_chart((worse, [scenarios[0], scenarios[-1]])))
    text = r"S21\\x1b: 102 ms of 30 calls before, 312 ms of 30 calls since, \+.+%, 95% interval .+%"
    assert re.fullmatch(text, first)
    assert few == "S22\\x1b: 101 ms of 2 calls before, 322 ms of 2 calls since, too few calls for an interval"
    assert whole.startswith("All together: 102 ms of 662 calls before")


def points(chart):
    """What they say, from above."""
    image = ET.fromstring(svg(chart))
    found = [each for each in image.iter() if each.get("aria-roledescription") == "point" and each.get("aria-label")]
    heights = [float(each.get("transform", "").partition(",")[2].rstrip(")")) for each in found]
    assert len(set(heights)) == len(found)
    return [each.get("aria-label") for _, each in sorted(zip(heights, found, strict=True), key=lambda each: each[0])]


def test_few_calls_are_counted_in_whole_ones():
    assert "0.5" not in texts(drawn("calls", call(1)))


@pytest.mark.parametrize("amount", [1, 5, 150, 999, 1001])
def test_no_two_ticks_of_an_axis_say_the_same(amount):
    rates = dict.fromkeys(RATES, amount / 700)
    for name, values in (("cost", {"cost_total_cost_cents": amount}), ("interruptions", rates)):
        ticks = [each for each in texts(drawn(name, call(1, **values))) if re.fullmatch(r"\$?[0-9,.]+", each)]
        assert len(set(ticks)) == len(ticks) > 1


@pytest.mark.parametrize("weeks", [1, 9, 60, 200])
def test_dates_on_an_axis_are_few_enough_to_read(weeks):
    found = texts(drawn("interruptions", call(1, **RATES), call(2, day=7 * weeks - 1, **RATES)))
    dates = [each for each in found if re.fullmatch(r"\d+ [A-Z][a-z]+|[A-Z][a-z]+ \d{4}", each)]
    assert 1 < len(dates) <= 7
    assert len(set(dates)) == len(dates)


@pytest.mark.parametrize(
    "text", ["\x00", "\x1b[31m", "\uffff", "\u202e", "", "x" * 5000, *(f"{'x' * n}{'🚀' * 60}" for n in (20, 21))]
)
def test_status_of_any_characters_is_drawn(text):
    """The renderer ends the process at a character that XML does not have."""
    chart = charts_of(figures([call(1, status=text)]))["calls"]
    assert len(words(ET.fromstring(svg(chart)))) == 1
    assert png(panel([shown(text)], [("calls", chart)]))


def test_each_status_of_a_call_has_a_color_of_its_own_and_is_escaped():
    statuses = ["completed", "failed", "cancelled", "pending", "<b>", "ongoing", "analyzing"]
    image = drawn("calls", *(call(n, status=each) for n, each in enumerate(statuses)))
    assert len({each.get("fill") for each in image.iter() if "2026-" in each.get("aria-label", "")}) == len(statuses)
    assert {*statuses} <= {*texts(image)}


def test_dark_mode_knows_every_color_of_the_charts():
    css = resources.files("etl.report").joinpath("page.css").read_text()
    statuses = ("completed", "failed", "cancelled", "a", "b", "c", "d")
    calls = [call(n, status=each, **WHOLE) for n, each in enumerate(statuses)]
    calls = [each | {"scenario_id": "s"} for each in (*calls, call(9, of="e2", day=9, **WHOLE))]
    executions = [execution("e1"), execution("e2", day=9)]
    found = figures(calls, [output(1, passed=True)], executions, worse=["latency_mean"])
    drawn_charts = [*charts_of(found).values(), forest_chart(found.details.forests[0])]
    used = {pair for chart in drawn_charts for pair in re.findall(r'(fill|stroke)="(#[0-9a-f]+)"', svg(chart))}
    unknown = {pair for pair in used if f'[{pair[0]}="{pair[1]}"]' not in css}
    assert unknown == {("fill", charts.GREY), ("stroke", charts.GREY)}, "which is to be seen on both"


def test_picture_of_a_run_test_has_all_charts_under_its_name():
    drawn_charts = list(charts_of(figures([call(1, **WHOLE)])).items())
    picture = panel(["漢字 <name>", "Agent latency +40.8%"], drawn_charts)
    expected = {"漢字 <name>", "Agent latency +40.8%", LATENCY, "calls", "cost", "interruptions"}
    assert expected <= {*texts(ET.fromstring(svg(picture)))}
    assert png(picture).startswith(b"\x89PNG")
