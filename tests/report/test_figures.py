"""What a report says is what the rows say, and what they do not say is not shown as zero."""

from dataclasses import replace
from datetime import date
from itertools import product

import pytest

from etl.report.figures import ScenarioRates
from tests.report.rows import CHAT_LATENCY, LATENCY, call, execution, figures, output

FAILURES = ("failure_rate", "line_failure_rate")
TWO = [execution("e1"), execution("e2", day=10)]


def test_trend_is_the_mean_of_each_night_over_the_last_nights_that_are_compared():
    executions = [execution(f"e{night}", day=night) for night in range(50)]
    numbers = list(product(range(50), (0, 1)))
    calls = [call(2 * night + n, of=f"e{night}", day=night, **{LATENCY: night + n}) for night, n in numbers]
    same = figures(calls, [], executions).trends[0]
    assert (same.since, len(same.nights), same.nights[-1]) == (None, 35, (date(2026, 12, 21), 49.5))
    trend = figures(calls, [], executions, worse=["latency_mean"]).trends[0]
    assert (trend.since, len(trend.nights), trend.nights[-1]) == (date(2026, 11, 3), 35, same.nights[-1])


def test_all_is_compared_on_the_sides_of_the_gravest_alarm_and_what_got_worse_has_the_figures_of_its_own():
    executions = [execution(f"e{day}", day=day) for day in (0, 10, 12)]
    calls = [
        call(10 * day + n, of=f"e{day}", day=day, cost_total_cost_cents=day + n, **{LATENCY: 5})
        for day, n in product((0, 10, 12), range(3))
    ]
    found = figures(calls, [], executions, worse=["cost_mean"])
    rows = {row.metric.name: row for row in found.details.changes}
    assert list(rows) == ["cost_mean", *(f"latency_{each}" for each in ("p50", "p95", "mean")), *FAILURES, ""]
    assert rows["cost_mean"] is found.worse[0].row is found.trends[0].row
    assert {(row.found.baseline_calls, row.found.candidate_calls) for row in rows.values()} == {(3, 6)}
    assert (rows[""].found.baseline, rows[""].found.candidate) == (1, 12)


def test_cost_per_success_is_all_cost_over_the_completed_calls_that_failed_no_eval():
    calls = [call(n, status=status, cost_total_cost_cents=6) for n, status in enumerate(["completed"] * 3 + ["failed"])]
    evals = [output(0, passed=False), output(1, passed=True), output(2, passed=None)]
    (row,) = (row for row in figures(calls, evals).details.changes if not row.metric.name)
    assert (row.found.baseline, row.found.candidate) == (None, 12)
    assert all(row.metric.name for row in figures(calls[:1], evals).details.changes), "no success, no price"
    assert all(row.metric.name for row in figures([call(1)]).details.changes)


def test_what_no_call_has_is_not_there():
    found = figures([call(1), call(2)])
    assert (found.dollars, [trend.row.metric.name for trend in found.trends]) == (None, ["failure_rate"])
    assert (found.details.distributions, found.details.evals, found.details.rates) == ([], [], [])
    assert found.details.worst_calls[0].latency_ms is None
    nothing = figures([])
    assert (nothing.calls, nothing.days, nothing.trends, nothing.details.changes) == (0, None, [], [])


def test_reasons_of_failed_calls_are_counted_on_both_sides_and_each_new_version_has_its_first_night():
    two = [replace(each, agent_version=version) for each, version in zip(TWO, ("v1", "v2"), strict=True)]
    calls = [
        call(n, of=f"e{1 + n // 3}", day=n // 3 * 10, status="failed", ended_reason=reason)
        for n, reason in enumerate(["busy", "busy", None, "error", "error", "busy"])
    ]
    details = figures([*calls, call(9, of="e2", ended_reason="done")], [], two, worse=["failure_rate"]).details
    assert details.failures == [("error", 0, 2), ("busy", 2, 1), ("unknown", 1, 0)]
    assert details.versions == [(date(2026, 11, 12), "v2")]
    assert {each.agent_version for each in details.worst_calls} == {"v2"}
    assert [each.ended_reason for each in details.worst_calls] == ["error", "error", "busy", "done"]


def test_calls_days_and_cost_are_those_of_the_executions_that_are_shown():
    calls = [call(1, cost_total_cost_cents=110), call(2, day=3, cost_total_cost_cents=15), call(3, day=1)]
    found = figures([*calls, call(4, of="deleted", day=9, cost_total_cost_cents=1)])
    assert (found.calls, found.days, found.dollars) == (3, (date(2026, 11, 2), date(2026, 11, 5)), 1.25)


def test_rates_of_a_scenario_are_those_of_each_eval_before_and_after_the_largest_fall_first():
    """A scenario is its name: rows of its data are shown together."""
    calls, evals = [], []
    for number, (scenario, side, n) in enumerate(product("abc", (0, 1), range(4))):
        own = {"scenario_id": scenario if scenario != "c" else f"c{n % 2}", "scenario_name": scenario.upper()}
        calls.append(call(number, of=f"e{side + 1}", day=10 * side, **own))
        passed = n < {"a": (4, 3), "b": (4, 1), "c": (2, 2)}[scenario][side]
        evals.append(output(number, of=f"e{side + 1}", passed=passed))
        if scenario == "a":
            evals.append(output(number, of=f"e{side + 1}", name="Tone", passed=True))
    details = figures(calls, evals, TWO).details
    assert [row.metric.eval_name for row in details.evals] == ["Task", "Tone"]
    assert details.rates == [
        ScenarioRates("B", (4, 4), [(1, 0.25), (None, None)]),
        ScenarioRates("A", (4, 4), [(1, 0.75), (1, 1)]),
        ScenarioRates("C", (4, 4), [(0.5, 0.5), (None, None)]),
    ]


@pytest.mark.parametrize("column", [LATENCY, CHAT_LATENCY])
def test_distribution_has_all_calls_of_both_sides_the_slowest_in_the_last_step(column):
    calls = [call(n, of=f"e{1 + n % 2}", day=n % 2 * 10, **{column: 100 + 50 * (n % 2)}) for n in range(400)]
    (found,) = figures([*calls, call(999, **{column: 90_000})], [], TWO).details.distributions
    assert (found.metric.column, found.edges[0], found.edges[-1]) == (column, 0, 150)
    assert [shares.sum() for shares in (found.before, found.after)] == pytest.approx([1, 1])
    assert (found.before[-1], found.after[-1]) == (pytest.approx(1 / 201), 1)


def test_worst_calls_failed_the_most_evals_and_then_are_the_slowest():
    calls = [call(n, **{LATENCY: 100 * n}) for n in range(14)]
    calls += [call(20, status="failed", **{LATENCY: 9000}), call(21, **{CHAT_LATENCY: 500.5})]
    evals = [output(2, passed=False), output(3, passed=False), output(2, name="Tone", passed=False)]
    evals.append(output(13, passed=True))
    found = figures(calls, evals).details.worst_calls
    assert [each.call_execution_id for each in found] == ["c2", "c3", *(f"c{n}" for n in range(13, 5, -1))]
    assert [list(each.failed_evals) for each in found[:3]] == [["Task", "Tone"], ["Task"], []]


def test_worst_calls_are_those_of_the_candidate():
    calls = [call(1, **{LATENCY: 900}), call(2, of="e2", day=10, **{LATENCY: 100})]
    assert [each.call_execution_id for each in figures(calls, executions=TWO).details.worst_calls] == ["c2"]


def test_worst_calls_are_those_since_something_got_worse_worst_by_that_first():
    """However late the week begins that is compared, and however many evals others failed."""
    executions = [execution(f"e{n}", day=8 * n) for n in range(1, 4)]
    calls = [
        call(10 * n + of, of=f"e{of}", day=8 * of, cost_total_cost_cents=10 * n + of, **{LATENCY: n})
        for of, n in product((1, 2, 3), (1, 2, 3))
    ]
    calls += [call(99, of="e2", day=16, status="failed", cost_total_cost_cents=99)]
    evals = [
        output(number, of=f"e{number % 10}", passed=number != 12, output_score=number) for number in (12, 22, 33, 31)
    ]
    evals += [output(33, of="e3", name="Tone", passed=False)]
    expected = {
        "cost_mean": ["c33", "c32", "c23"],
        "eval_task_pass_rate": ["c12", "c33", "c22"],
        "eval_task_mean": ["c12", "c22", "c33"],
        "failure_rate": ["c99", "c33", "c12"],
    }
    for metric, first in expected.items():
        worst = figures(calls, evals, executions, worse=[metric]).details.worst_calls
        assert [each.call_execution_id for each in worst[:3]] == first, metric
