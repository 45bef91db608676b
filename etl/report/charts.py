"""The figures of a run test as Altair charts, and these as SVG and PNG. Pure; needs the extra ``report``.

Owns how a chart looks and what its marks say to a screen reader; ``page`` has the titles and captions. Nights are days,
UTC. A color stands for one thing in all charts; ``page.css`` has those of dark mode.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any

import altair as alt
import pandas as pd
import vl_convert as vlc

from etl.compare.comparison import Row, change_texts, value_text
from etl.model.wording import counted, first_few, shown
from etl.report.figures import Distribution, Forest, Trend, change_of

INK, GRID, PAPER = "#1f2933", "#d9dee3", "#ffffff"
BLUE, RED, GREY = "#2366b8", "#c42b2b", "#7b8794"
_WIDTH, _HEIGHT = 310, 130
"""The size of the plot within a chart, in pixels."""
_NAMES = 165
"""How much of a forest's width the names of scenarios take."""
_TICKS = 4
MOST_SCENARIOS = 8
"""How many scenarios a forest has, those that changed most."""
MOST_CHARACTERS = 60
"""Of a name, so many characters are drawn."""
_LONGEST_LABEL = 20
_MOST_MARKS = 6
"""So many nights with news are marked."""
_DEFAULTS = '(opacity="1"|stroke-width="1"|pointer-events="none"|font-family="sans-serif")'
_UNSEEN = re.compile(f'<path class="(back|fore)ground"[^>]*/>| {_DEFAULTS}(?=[^<>]*>)')
"""In an SVG element, frames without a color, and what is so by default or by ``page.css``."""
_DAY = timedelta(days=1)
_BEFORE, _AFTER = "before", "after"
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


def trend_chart(trend: Trend, news: Iterable[tuple[date, str, str]] = ()) -> Any:
    """A point for each night, with the level before and after, and a line at the moment of change if there is one.

    Each of ``news`` has a night, a short label and a longer text. A dotted line marks a night that has some, of the
    nights nearest to the change; the label stands at the nearest alone.
    """
    metric, since = trend.row.metric, trend.since
    days = [night for night, _ in trend.nights]
    rows: Rows = [
        {"night": _utc(night), "value": value, "side": _BEFORE if since and night < since else _AFTER}
        | {"text": f"{night}: {value_text(value, metric.unit)}"}
        for night, value in trend.nights
    ]
    first, last = days[0] - _DAY, days[-1] + _DAY
    step = -(-(last - first).days // _TICKS) * _DAY  # rounded up
    ticks = [_utc(days[0] + number * step) for number in range(_TICKS) if days[0] + number * step < last]
    axis = alt.Axis(values=ticks, format="%Y-%m" if step.days > 60 else "%Y-%m-%d", grid=False, title=None)
    x = alt.X("night:T", scale=alt.Scale(type="utc", domain=[_utc(first), _utc(last)]), axis=axis)
    y_axis = alt.Axis(tickCount=4, format=".0%" if metric.is_rate else ",~f")
    y_scale = alt.Scale(domain=[0, 1]) if metric.is_rate else alt.Scale(zero=True)
    y = alt.Y("value:Q", title="" if metric.is_rate else metric.unit, axis=y_axis, scale=y_scale)
    color = _color(is_worse=since is not None, legend=None)
    chart = _chart(rows).encode(x=x, y=y, color=color)
    told: dict[date, dict[str, str]] = {}
    for night, label, text in news:
        if days[0] <= night <= days[-1]:
            told.setdefault(night, {})[shown(text)] = shown(label)
    nearest = sorted(told, key=lambda night: abs(night - (since or days[-1])))[:_MOST_MARKS]
    layers = [
        chart.mark_line(aria=False, strokeWidth=1),
        chart.mark_point(filled=True, size=16, opacity=1, strokeWidth=1).encode(description="text:N"),
    ]
    if nearest:
        marks = [
            {"night": _utc(each - _DAY / 2), "text": f"{first_few(list(told[each]))} since {each}"} for each in nearest
        ]
        lines = _chart(marks).mark_rule(color=GREY, strokeDash=[2, 3])
        label = ", ".join(dict.fromkeys(told[nearest[0]].values()))[:_LONGEST_LABEL]
        name = _beside(nearest[0], label, days, color=GREY, fontSize=9)
        layers += [lines.encode(x=x, description="text:N"), name.encode(x=x, y=alt.value(_HEIGHT - 6))]
    if since:
        found = trend.row.found
        edges = (_BEFORE, found.baseline, first, since - _DAY / 2), (_AFTER, found.candidate, since - _DAY / 2, last)
        levels: Rows = [
            {"side": side, "value": level, "night": _utc(begin), "end": _utc(end)}
            | {"text": f"{side}: {value_text(level, metric.unit)}"}
            for side, level, begin, end in edges
        ]
        level = _chart(levels).mark_rule(strokeWidth=2, strokeDash=[6, 3]).encode(x=x, x2="end:T", y=y, color=color)
        text = f"since {since}"
        moment = _chart([{"night": _utc(since - _DAY / 2), "text": text}]).mark_rule(color=INK)
        layers = [
            moment.encode(x=x, description="text:N"),
            _beside(since, text, days, color=INK).encode(x=x, y=alt.value(-6)),
            *layers,
            level.encode(description="text:N"),
        ]
    return alt.LayerChart(layer=layers)


def _beside(night: date, text: str, days: Sequence[date], **look: Any) -> Any:
    """The text beside the line at the night: after it, where there is room."""
    is_late = 10 * (days[-1] - night) < 3 * (days[-1] - days[0])
    chart = _chart([{"night": _utc(night - _DAY / 2), "text": text}]).encode(text="text:N")
    return chart.mark_text(align="right" if is_late else "left", dx=-4 if is_late else 4, aria=False, **look)


def distribution_chart(found: Distribution, *, is_worse: bool) -> Any:
    """The share of the calls in each step of the values, before as an area and after as a line."""
    rows: Rows = [
        {"value": edge, "share": share, "side": side}
        for side, shares in ((_BEFORE, found.before), (_AFTER, found.after))
        for edge, share in zip(found.edges.tolist(), [*shares.tolist(), float(shares[-1])], strict=True)
    ]
    x = alt.X("value:Q", title=found.metric.unit, axis=alt.Axis(tickCount=5, format=",~f", grid=False))
    y = alt.Y("share:Q", title="share of calls", axis=alt.Axis(tickCount=4, format=".0%"))
    legend = alt.Legend(symbolOpacity=1, symbolType="square")
    chart = _chart(rows).encode(x=x, y=y, color=_color(is_worse=is_worse, legend=legend))
    before, after = (chart.transform_filter(f"datum.side == '{side}'") for side in (_BEFORE, _AFTER))
    area = before.mark_area(interpolate="step-after", opacity=0.35, aria=False)
    return alt.LayerChart(layer=[area, after.mark_line(interpolate="step-after", aria=False)])


def forest_chart(row: Row, forest: Forest) -> Any:
    """A row for each scenario, and for all together at the bottom, with a dot as far from zero as the figure changed.

    A line is the 95% interval. Names stand on the left, with the figures before and since.
    """
    metric = row.metric
    lines = [*forest[:MOST_SCENARIOS], ("All together", row.found)]
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
        label = shown(name)[:MOST_CHARACTERS]
        point = {
            "line": f"{len(rows)}\n{label}\n{before} to {since}",
            "text": f"{label}: {before} of {calls_before} before, {since} of {calls_since} since, {certainty}",
            "change": change,
            "shape": len(rows) + 1 < len(lines),
            "low": interval and max(interval.low, least),
            "high": interval and min(interval.high, most),
        }
        rows.append(point)
    axis = alt.Axis(tickCount=5, labelExpr="datum.value ? format(datum.value * 100, '+,~f') : '0'", labelOverlap=True)
    unit = "percentage points" if metric.is_rate else "%"
    x = alt.X("change:Q", title=f"change in {unit}", axis=axis, scale=alt.Scale(padding=12))
    # The first line of a label, a number, keeps two scenarios of one name apart. The font of a browser may be wider.
    labels: dict[str, Any] = {"labelLimit": 0.85 * _NAMES, "labelExpr": "slice(split(datum.label, '\\n'), 1)"}
    names = alt.Axis(minExtent=_NAMES, maxExtent=_NAMES, ticks=False, domain=False, title=None, **labels)
    y = alt.Y("line:N", sort=[each["line"] for each in rows], axis=names)
    shape = alt.Shape("shape:N", scale=alt.Scale(domain=[True, False], range=["circle", "diamond"]), legend=None)
    chart = alt.Chart(alt.InlineData(values=rows), width=_WIDTH + 40 - _NAMES, height=alt.Step(30)).encode(x=x, y=y)
    dots = chart.mark_point(filled=True, size=64, opacity=1, strokeWidth=1, color=INK)
    now = dots.encode(shape=shape, description="text:N")
    no_change = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color=GREY, aria=False).encode(x=alt.datum(0))
    intervals = chart.mark_rule(color=GREY, strokeWidth=2, aria=False).encode(x="low:Q", x2="high:Q")
    return alt.LayerChart(layer=[no_change, intervals, now])


def svg(chart: Any) -> str:
    """The chart as an SVG element, whose marks say in words what they show. Emoji are drawn as ``▯``.

    Places have two decimals, which is less than a reader could see; what draws nothing is left out.
    """
    return _UNSEEN.sub("", re.sub(r"(\d\.\d\d)\d{9,}", r"\1", vlc.vegalite_to_svg(_spec(chart))))


def png(chart: Any) -> bytes:
    """The chart as a picture on white, twice as large as on a page."""
    return bytes(vlc.vegalite_to_png(_spec(chart), scale=2))


def panel(titles: Sequence[str], charts: Sequence[tuple[str, Any]]) -> Any:
    """Charts with their titles as one picture in two columns, as a page has them."""
    head, *rest = titles
    title = alt.TitleParams(
        head, subtitle=rest, offset=14, anchor="start", fontSize=16, subtitleColor=INK, limit=2 * _WIDTH
    )
    titled = [chart.properties(title=text) for text, chart in charts]
    middle = (len(titled) + 1) // 2
    columns = [alt.vconcat(*each) for each in (titled[:middle], titled[middle:]) if each]
    alone: Any = dict.fromkeys(("color", "shape"), "independent")
    return alt.hconcat(*(each.resolve_scale(**alone) for each in columns), title=title).resolve_scale(**alone)


def _spec(chart: Any) -> str:
    spec = chart.to_dict(validate=False) | {"config": _CONFIG}  # Vega validates, too
    # Vega cuts long texts between UTF-16 units, and fails on half a character.
    return re.sub("[^\0-\uffff]", "▯", json.dumps(spec, ensure_ascii=False))


def _color(*, is_worse: bool, legend: alt.Legend | None) -> alt.Color:
    """Grey is before, and after is blue, or red where something got worse."""
    scale = alt.Scale(domain=[_BEFORE, _AFTER], range=[GREY, RED if is_worse else BLUE])
    return alt.Color("side:N", scale=scale, legend=legend)


def _chart(rows: Rows) -> Any:
    return alt.Chart(alt.InlineData(values=rows), width=_WIDTH, height=_HEIGHT)


def _utc(moment: date) -> str:
    return f"{pd.Timestamp(moment).isoformat()}Z"
