"""The values of a call: the regression shows in them, and open-ended objects come in each form."""

from statistics import median


def completed_calls(run_test):
    return [call for each in run_test.executions for call in each.calls if call.status == "completed"]


def passes(calls):
    outputs = [each["output"] for call in calls for each in call.eval_outputs.values()]
    return outputs.count("Passed") / (outputs.count("Passed") + outputs.count("Failed"))


def test_first_run_test_gets_slower_and_passes_less_from_one_day_on(month):
    regression_at = month.run_tests[0].profile.regression_at
    calls = [call for call in completed_calls(month.run_tests[0]) if call.completed_at]
    before = [call for call in calls if call.completed_at < regression_at]
    after = [call for call in calls if call.completed_at >= regression_at]
    jump = median(call.avg_agent_latency_ms for call in after) / median(call.avg_agent_latency_ms for call in before)
    assert 1.4 < jump < 1.8
    assert passes(before) - passes(after) > 0.15
    assert [each.profile.regression_at for each in month.run_tests[1:]] == [None, None]


def test_open_ended_objects_are_present_absent_and_empty(month):
    calls = completed_calls(month.run_tests[0])
    assert {call.system_metrics is None for call in calls} == {True, False}
    assert {call.cost_breakdown is None for call in calls} == {True, False}
    assert {} in [call.cost_breakdown for call in calls]
    assert {} in [call.chat_metrics for call in calls]
    assert None in [call.chat_metrics for call in calls]
