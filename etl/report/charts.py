"""The figures of a run test as Altair charts, and these as SVG and PNG. Pure; needs the extra ``report``.

Owns how a chart looks and what its marks say to a screen reader; ``page`` has the titles and captions. Weeks begin on
Monday, and times are UTC. A color stands for one thing in all charts; ``page.css`` has those of dark mode.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any

import altair as alt
import pandas as pd
import vl_convert as vlc

from etl.compare.comparison import change_texts, value_text
from etl.model.metrics import passed_title
from etl.model.wording import counted, shown
from etl.report.figures import INTERRUPTIONS, Figures, Forest, change_of

INK, GRID, PAPER = "#1f2933", "#d9dee3", "#ffffff"
BLUE, ORANGE, GREEN, RED = "#2366b8", "#c2560c", "#2e8555", "#c42b2b"
GREY, PURPLE, TEAL = "#7b8794", "#7d4aa5", "#0d7f8c"
_WIDTH, _HEIGHT = 310, 130
"""The size of the plot within a chart, in pixels."""
_NAMES = 165
"""How much of a forest's width the names of scenarios take."""
_TICKS = 6
MOST_EVALS = 6
"""How many evals have a chart, those that changed most."""
MOST_SCENARIOS = 20
"""How many scenarios a forest has, those that changed most."""
_LONGEST_NAME = 60
_LONGEST_STATUS = 40
_STATUS_COLORS = {"completed": GREEN, "failed": RED, "cancelled": GREY}
_WEEK = timedelta(days=7)
_PERCENTILES = {"p50": "median (p50)", "p95": "95th percentile (p95)"}
Rows = list[dict[Any, Any]]
"""The data of a chart. In all charts, ``text`` is what a mark says in words."""
_CONFIG: dict[str, Any] = {
    "background": PAPER,
    "font": "sans-serif",
    "padding": 4,
    "view": {"stroke": None},
    "title": {"color": INK, "anchor": "start", "fontSize": 13, "limit": _WIDTH + 40},
    "axis": {
        **dict.fromkeys(("labelColor", "titleColor"), INK),
        **dict.fromkeys(("gridColor", "domainColor", "tickColor"), GRID),
        "titleFontWeight": "normal",
    },
    "axisY": {"minExtent": 40, "maxExtent": 40}
    | {"titleAnchor": "end", "titleAngle": 0, "titleAlign": "left", "titleX": -40, "titleY": -8},
    "legend": {"orient": "top", "title": None, "labelColor": INK, "offset": 22},
}


def charts_of(figures: Figures) -> dict[str, Any]:
    """The charts that have data; none without details.

    Of latencies by their column, of evals by ``passed_title``, and as ``calls``, ``cost`` and ``interruptions``; in
    that order.
    """
    details = figures.details
    if figures.days is None or details is None:
        return {}
    x = _time_axis(figures.days)
    charts = {
        column: _measures(by_week, _PERCENTILES, [BLUE, ORANGE], x, "ms")
        for column, by_week in details.latencies.items()
    }
    names = [rates.name for rates, _ in details.pass_rates[:MOST_EVALS]]
    lowest = min((details.weekly_rates[name]["rate"].min() for name in names), default=1.0)
    # One for all, so that they can be compared; it begins at 0%, 25%, 50% or 75%.
    scale = alt.Scale(domain=[min(int(lowest * 4), 3) / 4, 1])
    y = alt.Y("value:Q", title="outputs that passed", axis=alt.Axis(tickCount=4, format=".0%"), scale=scale)
    charts |= {passed_title(name): _passed(details.weekly_rates[name], x, y) for name in names}
    charts["calls"] = _statuses(details.statuses, details.step, x)
    if len(details.cost):
        charts["cost"] = _cost(details.cost, details.step, x)
    if len(details.interruptions):
        lines = dict(zip(INTERRUPTIONS, ("by the agent", "by the user"), strict=True))
        charts["interruptions"] = _measures(details.interruptions, lines, [ORANGE, BLUE], x, "interruptions per minute")
    return charts


def forest_chart(forest: Forest) -> Any:
    """A row for each scenario, and for all together at the bottom, with a dot as far from zero as the figure changed.

    A line is the 95% interval. Names stand on the left, with the figures before and since.
    """
    worse, scenarios = forest
    metric = worse.row.metric
    lines = [*scenarios[:MOST_SCENARIOS], ("All together", worse.row.found)]
    changes = [change_of(metric, found) or 0.0 for _, found in lines]
    # An interval that is far wider than all changes would make these unreadable: its line is cut.
    least = 2 * min(*changes, 0.0) - max(*changes, 0.0)
    most = 2 * max(*changes, 0.0) - min(*changes, 0.0)
    rows: Rows = []
    for (name, found), change in zip(lines, changes, strict=True):
        interval = found.difference if metric.is_rate else found.change
        before, since = (value_text(value, metric.unit) for value in (found.baseline, found.candidate))
        calls_before, calls_since = (counted(calls, "call") for calls in (found.baseline_calls, found.candidate_calls))
        by, bounds = change_texts(metric, found)
        certainty = f"{by}, 95% interval {bounds}" if interval else "too few calls for an interval"
        label = shown(name)[:_LONGEST_NAME]
        row = {
            "line": f"{len(rows)}\n{label}\n{before} to {since}",
            "text": f"{label}: {before} of {calls_before} before, {since} of {calls_since} since, {certainty}",
            "change": change,
            "before": 0,
            "shape": len(rows) + 1 < len(lines),
            "low": interval and max(interval.low, least),
            "high": interval and min(interval.high, most),
        }
        rows.append(row)
    axis = alt.Axis(tickCount=5, labelExpr="datum.value ? format(datum.value * 100, '+,~f') : '0'", labelOverlap=True)
    unit = "percentage points" if metric.is_rate else "%"
    x = alt.X("change:Q", title=f"change in {unit}", axis=axis, scale=alt.Scale(padding=12))
    # The first line of a label, a number, keeps two scenarios of one name apart. The font of a browser may be wider.
    labels: dict[str, Any] = {"labelLimit": 0.85 * _NAMES, "labelExpr": "slice(split(datum.label, '\\n'), 1)"}
    names = alt.Axis(minExtent=_NAMES, maxExtent=_NAMES, ticks=False, domain=False, title=None, **labels)
    y = alt.Y("line:N", sort=[row["line"] for row in rows], axis=names)
    shape = alt.Shape("shape:N", scale=alt.Scale(domain=[True, False], range=["circle", "diamond"]), legend=None)
    chart = alt.Chart(alt.InlineData(values=rows), width=_WIDTH + 40 - _NAMES, height=alt.Step(34)).encode(x=x, y=y)
    now = chart.mark_point(filled=True, size=60, opacity=1, color=INK).encode(shape=shape, description="text:N")
    no_change = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color=GREY, aria=False).encode(x=alt.datum(0))
    intervals = chart.mark_rule(color=GREY, strokeWidth=2, aria=False).encode(x="low:Q", x2="high:Q")
    before = chart.mark_point(color=GREY, size=40, aria=False).encode(x="before:Q")
    return alt.LayerChart(layer=[no_change, intervals, before, now])


def svg(chart: Any) -> str:
    """The chart as an SVG element, whose marks say in words what they show. Emoji are drawn as ``▯``."""
    return str(vlc.vegalite_to_svg(_spec(chart)))


def png(chart: Any) -> bytes:
    """The chart as a picture on white, twice as large as on a page."""
    return bytes(vlc.vegalite_to_png(_spec(chart), scale=2))


def panel(titles: Sequence[str], charts: Sequence[tuple[str, Any]]) -> Any:
    """Charts with their titles as one picture, two in a row."""
    head, *rest = titles
    title = alt.TitleParams(
        head, subtitle=rest, offset=14, anchor="start", fontSize=16, subtitleColor=INK, limit=2 * _WIDTH
    )
    titled = [chart.properties(title=text) for text, chart in charts]
    return alt.concat(*titled, columns=2, title=title).resolve_scale(color="independent", shape="independent")


def _spec(chart: Any) -> str:
    spec = chart.to_dict(validate=False) | {"config": _CONFIG}  # Vega validates, too
    # Vega cuts long texts between UTF-16 units, and fails on half a character.
    return re.sub("[^\0-\uffff]", "▯", json.dumps(spec, ensure_ascii=False))


def _time_axis(days: tuple[date, date]) -> alt.X:
    """The axis from the Monday before the first day to the end of the last one's week: two weeks at least.

    It has a tick on every Monday, or on as many as find room.
    """
    first, last = (day - timedelta(days=day.weekday()) for day in days)
    end = last + _WEEK
    start = min(first, end - 2 * _WEEK)
    mondays = [start + _WEEK * number for number in range((end - start) // _WEEK)]
    step = -(-len(mondays) // _TICKS)  # rounded up
    style = "%b %Y" if end - start > timedelta(days=365) else "%-d %b"
    ticks = [_utc(day) for day in mondays[::step]]
    axis = alt.Axis(values=ticks, format=style, grid=False, labelFlush=False, labelOverlap=True, title=None)
    return alt.X("start:T", scale=alt.Scale(type="utc", domain=[_utc(start), _utc(end)]), axis=axis)


def _measures(by_week: pd.DataFrame, names: dict[str, str], colors: list[str], x: alt.X, unit: str) -> Any:
    """A line for each of the columns that have names."""
    points = [
        (row["week"], name, row[column], f", {name}: {row[column]:,.4g} {unit}")
        for row in by_week.to_dict("records")
        for column, name in names.items()
    ]
    y = alt.Y("value:Q", title=unit, axis=alt.Axis(tickCount=4, format=",~f"))
    return _lines(points, dict(zip(names.values(), colors, strict=True)), x, y)


def _passed(by_week: pd.DataFrame, x: alt.X, y: alt.Y) -> Any:
    """The line of the share of outputs that passed."""
    weeks = by_week.itertuples(index=False)
    points = [(week, "", rate, f": {rate:.1%} of {outputs:,.0f} passed") for week, rate, outputs in weeks]
    return _lines(points, {"": GREEN}, x, y)


def _lines(points: Iterable[tuple[date, str, Any, str]], colors: dict[str, str], x: alt.X, y: alt.Y) -> Any:
    """A line of each color, with a point in the middle of each week, and broken where a week has no value.

    A point is its week, its line, its value, and what it says after the week. A single line has no legend.
    """
    rows: Rows = [
        {"start": _utc(week + _WEEK / 2), "line": line, "text": f"{_words(week, _WEEK)}{text}"}
        | {"value": None if pd.isna(value) else value}
        for week, line, value, text in points
    ]
    legend = alt.Undefined if len(colors) > 1 else None
    color = alt.Color("line:N", scale=alt.Scale(domain=[*colors], range=[*colors.values()]), legend=legend)
    shape = alt.Shape("line:N", scale=alt.Scale(domain=[*colors], range=["circle", "triangle-up"]), legend=legend)
    chart = _chart(rows).encode(x=x, y=y, color=color)
    drawn = chart.transform_filter("isValid(datum.value)").mark_point(filled=True, size=40, opacity=1)
    return alt.LayerChart(layer=[chart.mark_line(aria=False), drawn.encode(shape=shape, description="text:N")])


def _cost(by_step: pd.DataFrame, step: timedelta, x: alt.X) -> Any:
    """A bar for each step; the axis has as many decimals as keep its ticks apart."""
    most = by_step["dollars"].max()
    decimals = 0
    if most < 10:
        decimals = 3 if most < 0.05 else 2
    y = alt.Y("above:Q", title="US dollars", axis=alt.Axis(tickCount=4, format=f"$,.{decimals}f"))
    texts = [f"${dollars:,.2f}" for dollars in by_step["dollars"]]
    return _bars(by_step.assign(below=0, above=by_step["dollars"], text=texts), step, x, y, PURPLE)


def _statuses(by_step: pd.DataFrame, step: timedelta, x: alt.X) -> Any:
    """A bar for each step and status, those of a step stacked: the usual statuses at the bottom, others by name."""
    # A control character would end the process in Vega's renderer.
    by_step = by_step.assign(status=[shown(status)[:_LONGEST_STATUS] for status in by_step["status"]])
    present = set(by_step["status"])
    usual = [status for status in _STATUS_COLORS if status in present]
    order = [*usual, *sorted(present - _STATUS_COLORS.keys())]
    bars = by_step.sort_values("status", key=lambda statuses: statuses.map(order.index), kind="stable")
    above = bars.groupby("start")["calls"].cumsum()
    texts = [f"{calls:,} {status}" for calls, status in zip(bars["calls"], bars["status"], strict=True)]
    others = (BLUE, ORANGE, PURPLE, TEAL)
    colors = [_STATUS_COLORS.get(status) or others[number % len(others)] for number, status in enumerate(order)]
    color = alt.Color("status:N", scale=alt.Scale(domain=order, range=colors), legend=alt.Legend(columns=4))
    whole = list(range(int(above.max()) + 1)) if above.max() <= 4 else alt.Undefined  # there is no half a call
    y = alt.Y("above:Q", title="calls", axis=alt.Axis(values=whole, tickCount=4, format="~s"))
    return _bars(bars.assign(below=above - bars["calls"], above=above, text=texts), step, x, y).encode(color=color)


def _bars(bars: pd.DataFrame, step: timedelta, x: alt.X, y: alt.Y, color: str = INK) -> Any:
    """A bar for each row, from ``below`` to ``above``, that says ``text``, with a little room beside it."""
    rows: Rows = [
        row
        | {"start": _utc(row["start"] + step * 0.06), "end": _utc(row["start"] + step * 0.94)}
        | {"text": f"{_words(row['start'], step)}: {row['text']}"}
        for row in bars.to_dict("records")
    ]
    return _chart(rows).mark_bar(color=color).encode(x=x, x2="end:T", y=y, y2="below:Q", description="text:N")


def _chart(rows: Rows) -> Any:
    return alt.Chart(alt.InlineData(values=rows), width=_WIDTH, height=_HEIGHT)


def _words(start: date, step: timedelta) -> str:
    """The day, or the week by its Monday."""
    return f"week of {start:%Y-%m-%d}" if step == _WEEK else f"{start:%Y-%m-%d}"


def _utc(moment: date) -> str:
    return f"{pd.Timestamp(moment).isoformat()}Z"
