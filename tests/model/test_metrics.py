"""Metrics are declared as the schema declares their columns; a limit is read in one way or refused."""

import re

import pytest

from etl.model.metrics import EVAL, METRICS, SHARE, Limit, Statistic, eval_metric, limits_of
from etl.model.schema import CALLS

UNITS = {column.name: column.unit for column in CALLS.columns}


def test_each_metric_is_of_a_column_of_calls_and_has_its_unit():
    for name, metric in METRICS.items():
        assert metric.column in UNITS, name
        assert metric.unit == (SHARE if metric.is_rate else UNITS[metric.column]), name
        assert metric.statistic in (Statistic.MEAN, name.rpartition("_")[2]), name


def test_names_of_evals_are_told_from_others_by_their_form():
    for statistic in (Statistic.RATE, Statistic.MEAN):
        assert EVAL.fullmatch(eval_metric("task_completion", "Task Completion", statistic).name)
        assert EVAL.fullmatch(eval_metric("語", "語", statistic).name)
    assert not any(map(EVAL.fullmatch, METRICS))


@pytest.mark.parametrize(
    ("metric", "text", "limit", "shown"),
    [
        ("latency_p95", "10%", Limit(0.1, is_relative=True), "10%"),
        ("latency_p95", " 2.5 % ", Limit(0.025, is_relative=True), "2.5%"),
        ("cost_mean", "0%", Limit(0.0, is_relative=True), "0%"),
        ("failure_rate", "2pp", Limit(0.02, is_relative=False), "2 pp"),
        ("eval_tone_pass_rate", "5%", Limit(0.05, is_relative=True), "5%"),
    ],
)
def test_limit_is_a_share_of_the_baseline_or_of_the_calls(metric, text, limit, shown):
    parsed = limits_of({metric: text})[metric]
    assert parsed.amount == pytest.approx(limit.amount)
    assert (parsed.is_relative, str(parsed)) == (limit.is_relative, shown)


@pytest.mark.parametrize("text", ["10", "-1%", "%", "", "10 percent", "1e3%", "9999999%", "10%%", "٣%", "nan%"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ValueError, match=re.escape('needs a limit such as "10%" for latency_p95')):
        limits_of({"latency_p95": text})


@pytest.mark.parametrize("name", ["latency_95", "x", ""])
def test_unknown_metric_is_refused(name):
    with pytest.raises(ValueError, match=f"names '{name}', which is not a metric. "):
        limits_of({name: "10%"})


def test_percentage_points_are_for_rates():
    with pytest.raises(ValueError, match='such as "10%" for csat_mean'):
        limits_of({"csat_mean": "2pp"})
