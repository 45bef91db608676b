"""The values of metrics, and how they changed, as people read them. Pure."""

from etl.compare.statistics import Difference, Interval
from etl.model.metrics import SHARE, Metric

_SHORT_UNITS = {"US cents": "ct", "score": ""}


def value_text(value: float | None, unit: str) -> str:
    """``1,310 ms``, ``93.0%``; ``-`` when there is none."""
    if value is None:
        return "-"
    if unit == SHARE:
        return f"{value * 100:.1f}%"
    return f"{_rounded(value)} {_SHORT_UNITS.get(unit, unit)}".rstrip()


def _rounded(value: float) -> str:
    size = abs(value)
    if 0 < size < 0.1 or size >= 1e15:
        return f"{value:.2g}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def change_texts(metric: Metric, found: Difference) -> tuple[str, str]:
    """The change and its interval: of a rate in percentage points, else as a share of the baseline, where there is one."""
    if found.difference is None or found.change is None:
        return "-", "-"
    if metric.is_rate:
        return _signed(found.difference, 100, " pp")
    if found.baseline:
        return _signed(found.change, 100, "%")
    return _signed(found.difference, 1, f" {_SHORT_UNITS.get(metric.unit, metric.unit)}".rstrip())


def _signed(interval: Interval, factor: float, unit: str) -> tuple[str, str]:
    value, low, high = (
        f"{round(each * factor, 1) + 0.0:+.1f}"  # no -0.0
        for each in (interval.value, interval.low, interval.high)
    )
    return f"{value}{unit}", f"{low} to {high}{unit}"
