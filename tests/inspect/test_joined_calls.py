"""What ``etl.read_calls`` promises: each call once, with its execution and its evals beside it."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

import etl
from etl.inspect.joined_calls import CALL_COLUMNS, EXECUTION_COLUMNS
from etl.model import schema
from etl.pipeline import job
from etl.sandbox import Sandbox
from tests.datasets import a_dataset, write
from tests.support import settings_for
from tests.worlds import settled_world

AT = datetime(2026, 10, 1, 8, tzinfo=UTC)


@pytest.fixture
def data(tmp_path):
    a_dataset(tmp_path)
    return tmp_path


def call(call_id, execution_id="e1", **values):
    return {"call_execution_id": call_id, "execution_id": execution_id, "execution_started_at": AT} | values


def judged(call_id, config_id="tone", name="Tone", **output):
    own = {"call_execution_id": call_id, "eval_config_id": config_id, "eval_name": name, "execution_id": "e1"}
    return own | {"execution_started_at": AT} | output


def evals_of(data, **asked):
    """The columns of evals with their values, in the order of calls."""
    frame = etl.read_calls(data, columns=["call_execution_id"], evals="wide", **asked)
    return {name: frame[name].to_list() for name in frame if name != "call_execution_id"}


def test_a_call_without_a_row_of_its_execution_has_null_there(data):
    write(data, "calls", call("c1"), call("c2", "e2"), call("c3"))
    write(data, "executions", {"execution_id": "e1", "status": "completed", "completed_at": AT})
    frame = etl.read_calls(data)
    assert frame["call_execution_id"].to_list() == ["c1", "c2", "c3"]
    assert frame["execution_status"].to_list() == ["completed", pd.NA, "completed"]
    assert frame["execution_started_at"].to_list() == [AT, AT, AT]


def test_columns_are_those_of_calls_and_executions_with_the_declared_types(data):
    assert etl.read_calls(data, evals="wide").shape == (0, len(CALL_COLUMNS) + len(EXECUTION_COLUMNS))
    write(data, "calls", call("c1"))
    expected = {column.name: column.type for column in (*schema.CALLS.columns, *schema.CALLS.added_columns)}
    expected |= {
        f"execution_{column.name}": column.type
        for column in schema.EXECUTIONS.columns
        if column.name not in {"execution_id", "run_test_name", "started_at", "judged_by"}
    }
    frame = etl.read_calls(data)
    assert {name: dtype.pyarrow_dtype for name, dtype in frame.dtypes.items()} == expected
    assert list(frame) == [*CALL_COLUMNS, *EXECUTION_COLUMNS] == list(expected)


def test_columns_are_those_asked_for_in_their_order_and_evals_come_on_top(data):
    write(data, "calls", call("c1", status="completed"))
    write(data, "executions", {"execution_id": "e1", "status": "failed"})
    write(data, "evals", judged("c1", output_score=0.5))
    frame = etl.read_calls(data, columns=["execution_status", "date", "status"], evals="wide")
    assert list(frame) == ["execution_status", "date", "status", "eval_tone_score"]
    assert list(etl.read_calls(data, columns="status")) == ["status"]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([judged("c1", output_score=0.5)], {"eval_tone_score": [0.5, pd.NA]}),
        (
            [
                judged("c1", output_passed=True, output_text="Passed"),
                judged("c2", output_passed=False, output_text="Failed"),
            ],
            {"eval_tone_passed": [True, False]},
        ),
        ([judged("c2", output_text="calm")], {"eval_tone_text": [pd.NA, "calm"]}),
        ([judged("c2", output_json='["calm"]')], {"eval_tone_text": [pd.NA, '["calm"]']}),
        (
            [judged("c1", output_score=0.5), judged("c2", output_text="calm")],
            {"eval_tone_score": [0.5, pd.NA], "eval_tone_text": [pd.NA, "calm"]},
        ),
        ([judged("c1", output_type="Pass/Fail")], {"eval_tone_passed": [pd.NA, pd.NA]}),
        ([judged("c1", output_type="score"), judged("c2")], {"eval_tone_score": [pd.NA, pd.NA]}),
        ([judged("c1", output_type="choices")], {"eval_tone_text": [pd.NA, pd.NA]}),
        (
            [judged("c1", status="skipped")],
            {"eval_tone_passed": [pd.NA] * 2, "eval_tone_score": [pd.NA] * 2, "eval_tone_text": [pd.NA] * 2},
        ),
        ([], {}),
    ],
)
def test_an_eval_has_a_column_for_what_its_outputs_are(data, rows, columns):
    write(data, "calls", call("c1"), call("c2"))
    write(data, "evals", *rows)
    found = evals_of(data)
    assert {name: [repr(value) for value in values] for name, values in found.items()} == {
        name: [repr(value) for value in values] for name, values in columns.items()
    }


def test_evals_of_one_name_share_a_column_when_no_call_has_two_of_them(data):
    """Each run test has its own configuration of the same eval."""
    write(data, "calls", call("c1"))
    write(data, "calls", call("c2", "e2"), key="refund")
    write(data, "evals", judged("c1", "1111aaaa-1", output_score=0.1))
    write(data, "evals", judged("c2", "2222bbbb-2", output_score=0.2), key="refund")
    assert evals_of(data) == {"eval_tone_score": [0.1, 0.2]}


def test_two_evals_of_one_name_on_one_call_have_a_column_each(data):
    write(data, "calls", call("c1"), call("c2"))
    evals = [
        judged("c1", "1111aaaa-1", output_score=0.1),
        judged("c1", "2222bbbb-2", output_score=0.2),
        judged("c2", "2222bbbb-2", output_score=0.3),
        judged("c2", "other", "Mood", output_score=0.4),
    ]
    write(data, "evals", *evals)
    found = evals_of(data)
    assert list(found) == ["eval_mood_score", "eval_tone_1111aaaa_score", "eval_tone_2222bbbb_score"]
    assert found["eval_tone_1111aaaa_score"][0] == 0.1
    assert found["eval_tone_1111aaaa_score"][1] is pd.NA
    assert found["eval_tone_2222bbbb_score"] == [0.2, 0.3]


def test_ids_that_begin_alike_and_names_that_differ_in_punctuation_are_told_apart(data):
    write(data, "calls", call("c1"))
    evals = [
        judged("c1", "1111aaaa-1", output_score=0.1),
        judged("c1", "1111aaaa-2", output_score=0.2),
        judged("c1", "third", "Tone 1111aaaa", output_score=0.3),
        judged("c1", "b", "mood-score", output_score=0.4),
        judged("c1", "a", "Mood score", output_score=0.5),
    ]
    write(data, "evals", *evals)
    found = evals_of(data)
    assert sorted(value for (value,) in found.values()) == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert {"eval_mood_score_a_score", "eval_mood_score_b_score"} < {*found}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Höflichkeit & Ton", "eval_höflichkeit_ton_text"),
        ("__Is it  OK?__", "eval_is_it_ok_text"),
        ("!!", "eval_eval_text"),
        (None, "eval_config_1_text"),
    ],
)
def test_an_evals_column_is_called_by_its_name(data, name, column):
    write(data, "calls", call("c1"))
    write(data, "evals", judged("c1", "config-1", name, output_text="x"))
    assert list(evals_of(data)) == [column]


def test_calls_of_executions_that_changed_are_all_of_each_with_evals_of_theirs_alone(data):
    later = AT + timedelta(days=1)
    executions = [
        {"execution_id": "e1", "exported_at": AT},
        {"execution_id": "e2", "exported_at": later},
        {"execution_id": "e3", "exported_at": None},
    ]
    write(data, "executions", *executions)
    write(data, "calls", call("c1", exported_at=later), *(call(f"c{n}", f"e{n}", exported_at=AT) for n in (2, 3, 4)))
    second = judged("c2", "own", "Own", output_score=0.2, execution_id="e2")
    write(data, "evals", judged("c1", output_score=0.1), second)
    frame = etl.read_calls(data, columns=["call_execution_id"], evals="wide", changed_since=AT)
    # What is not known to be the same may have changed.
    assert frame["call_execution_id"].to_list() == ["c2", "c3", "c4"]
    assert list(frame) == ["call_execution_id", "eval_own_score"]


def test_calls_and_evals_that_the_source_no_longer_has_are_left_out_unless_they_are_asked_for(data):
    write(data, "executions", {"execution_id": "e1", "deleted_at": AT}, {"execution_id": "e2"})
    write(data, "calls", call("c1", deleted_at=AT), call("c2", "e2"), call("c3", "e2", deleted_at=AT))
    old = judged("c2", "old", "Old", output_score=0.3, execution_id="e2", deleted_at=AT)
    own = judged("c2", "own", "Own", output_score=0.2, execution_id="e2")
    write(data, "evals", judged("c1", output_score=0.1, deleted_at=AT), own, old)
    left = etl.read_calls(data, columns="call_execution_id", evals="wide")
    assert left["call_execution_id"].to_list() == ["c2"]
    assert list(left) == ["call_execution_id", "eval_own_score"]
    whole = etl.read_calls(data, columns=["call_execution_id", "deleted_at"], evals="wide", deleted="include")
    assert whole["call_execution_id"].to_list() == ["c1", "c2", "c3"]
    assert whole["deleted_at"].notna().to_list() == [True, False, True]
    assert list(whole)[2:] == ["eval_old_score", "eval_own_score", "eval_tone_score"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"deleted": None}, 'deleted must be "exclude" or "include", got None'),
        ({"columns": ["started_at"]}, "calls has no column 'started_at'. Did you mean 'execution_started_at'?"),
        ({"evals": "long"}, "evals must be \"wide\" or None, got 'long'"),
        ({"run_tests": "Nope"}, "{data} has no run test 'Nope'. There are none to choose from"),
    ],
)
def test_read_calls_tells_a_mistake_in_one_line(data, asked, message):
    with pytest.raises(etl.ConfigurationError) as caught:
        etl.read_calls(data, **asked)
    assert str(caught.value) == message.format(data=data)


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_calls_of_a_real_export_are_those_of_the_table_with_what_the_other_tables_say(tmp_path, seed):
    world = settled_world(seed, executions=4, calls=6, calls_spread=6, quirks=True, include_unfinished=True)
    async with Sandbox(world) as server:
        mode = random.Random(seed).choice(["all", "finished"])
        await job.export(settings_for(server, tmp_path, export={"calls": mode}))
    scopes: list[dict[str, Any]] = [
        {},
        {"run_tests": world.run_tests[0].name},
        {"since": "2026-10-20", "until": "2026-10-28"},
    ]
    for asked in scopes:
        calls = etl.read_table(tmp_path, "calls", **asked)
        frame = etl.read_calls(tmp_path, evals="wide", **asked)
        assert len(calls) > 0
        pd.testing.assert_frame_equal(frame[list(calls)], calls)
        executions = etl.read_table(tmp_path, "executions", **asked).set_index("execution_id")["status"].to_dict()
        assert frame["execution_status"].to_list() == [executions[each] for each in calls["execution_id"]]
        evals = etl.read_table(tmp_path, "evals", **asked)
        given = evals[["output_passed", "output_score", "output_text", "output_json"]].notna().any(axis=1)
        told = frame.set_index("call_execution_id").filter(regex="^eval_").notna().sum(axis=1)
        assert Counter(told[told > 0].to_dict()) == Counter(evals["call_execution_id"][given])
