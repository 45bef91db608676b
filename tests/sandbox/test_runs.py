"""Eval results as recorded, and eval names that choose outputs. Shapes are proved in tests/sandbox/test_server.py."""

from etl.sandbox.runs import eval_results, run_execution
from etl.sandbox.world import EvalConfig, Execution, RunTest
from tests.sandbox.samples import result_of
from tests.sandbox.test_metrics import call
from tests.worlds import END, settled_world


def execution_of(calls, configs):
    run_test = RunTest(run_test_id="run-test", name="Name", created_at=END, eval_configs=list(configs))
    return Execution(
        execution_id="execution", run_test=run_test, status="completed", created_at=END, started_at=END, calls=calls
    )


def test_eval_statistics_are_those_that_were_recorded():
    """All calls of the recorded execution that have a choice, as the two recorded pages and the percentages give them."""
    recorded = result_of("runs_execution")["eval_results"]
    configs = [
        EvalConfig(each["result"][0]["id"], each["result"][0]["name"], each["output_type"], each["id"], each["name"])
        for each in recorded
    ]
    moods = [["neutral"]] * 13 + [["positive"]] * 9 + [["negative", "neutral"]] * 7
    passed = [{"output": "Passed", "output_type": "Pass/Fail"}] * 25 + [
        {"output": None, "output_type": "Pass/Fail"}
    ] * 4
    calls = [
        call(
            eval_outputs={
                configs[0].config_id: {"name": "Caller Sentiment", "output": mood, "output_type": "choices"},
                configs[2].config_id: {"name": "Task Completion", **result},
            }
        )
        for mood, result in zip(moods, passed, strict=True)
    ]
    computed = eval_results(execution_of(calls, configs))
    assert computed[0] == recorded[0]
    assert computed[2] == recorded[2]


def test_score_statistics_are_percent():
    config = EvalConfig("config", "Tone Score", "score", "template", "tone_score")
    calls = [call(eval_outputs={"config": {"output": each / 10, "output_type": "score"}}) for each in range(11)]
    (computed,) = eval_results(execution_of(calls, [config]))
    assert computed["result"][0]["output"]["p5"] == 5.0
    assert computed["result"][0]["output"]["p100"] == 100.0
    assert (computed["total_avg"], computed["result"][0]["total_cells"]) == (50.0, 11)


def test_eval_statistics_leave_out_calls_that_are_not_completed_or_deleted():
    config = EvalConfig("config", "Done", "Pass/Fail", "template", "done")
    outputs = {"config": {"name": "Done", "output": "Failed", "output_type": "Pass/Fail"}}
    calls = [
        call(1, eval_outputs=outputs),
        call(2, status="analyzing", eval_outputs=outputs),
        call(3, eval_outputs=outputs, is_deleted=True),
    ]
    (computed,) = eval_results(execution_of(calls, [config]))
    assert computed["result"][0]["output"] == {"pass": 0.0, "fail": 100.0, "pass_count": 0, "fail_count": 1}


def test_eval_names_choose_outputs_whatever_their_case():
    world = settled_world(2, run_tests=1, executions=1, calls=9)
    execution = world.run_tests[0].executions[0]
    result = run_execution(execution, {"eval_name": "tone score"})
    names = {each["name"] for row in result["call_results"]["results"] for each in row["eval_outputs"].values()}
    assert names == {"Tone Score"}
