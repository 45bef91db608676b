"""Eval names choose outputs. Shapes are proved in tests/sandbox/test_server.py."""

from etl.sandbox.answers.runs import run_execution
from tests.worlds import settled_world


def test_eval_names_choose_outputs_whatever_their_case():
    world = settled_world(2, run_tests=1, executions=1, calls=9)
    execution = world.run_tests[0].executions[0]
    result = run_execution(execution, eval_names={"tone score"})
    names = {each["name"] for row in result["call_results"]["results"] for each in row["eval_outputs"].values()}
    assert names == {"Tone Score"}
