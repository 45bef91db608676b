"""Values of metrics: of the right calls, and evals under one name on both sides."""

from datetime import UTC, datetime

import numpy as np
import pytest

from etl.compare.samples import Samples, eval_metrics, read_samples
from etl.compare.statistics import Sample
from etl.files.local import LocalFiles
from etl.model.metrics import METRICS, Statistic, eval_metric
from etl.settings.results import Compare
from tests.compare.executions import execution
from tests.datasets import a_dataset, write

AT = datetime(2026, 8, 1, 8, tzinfo=UTC)


@pytest.fixture
def data(tmp_path):
    a_dataset(tmp_path)
    return tmp_path


def call(call_id, execution_id="e1", **values):
    return {"call_execution_id": call_id, "execution_id": execution_id, "execution_started_at": AT} | values


def judged(call_id, name, config_id="c", **output):
    return call(call_id) | {"eval_config_id": config_id, "eval_name": name} | output


def read(data):
    one = [execution("e1", run_test="checkout", started_at=AT)]
    return read_samples(LocalFiles(data), one, one, rules=Compare())[0][0]


def test_null_is_no_value_and_other_executions_do_not_count(data):
    latency = METRICS["latency_p50"].column
    write(data, "calls", call("1", **{latency: 5.0}), call("2"), call("3", "e2", **{latency: 9.0}))
    samples = read(data)
    assert samples.calls == 2
    assert samples.of(METRICS["latency_p50"]).values.tolist() == [5.0]


def test_failure_rate_is_of_the_calls_that_ended_by_themselves(data):
    statuses = ("completed", "failed", "cancelled", "pending", None, "completed")
    write(data, "calls", *(call(str(n), status=status) for n, status in enumerate(statuses)))
    assert read(data).of(METRICS["failure_rate"]).values.tolist() == [0.0, 1.0, 0.0]


def test_eval_has_a_pass_rate_or_a_score_and_one_without_a_name_its_configuration(data):
    write(
        data,
        "evals",
        judged("1", "Task: Done", output_passed=True),
        judged("2", "Task: Done", output_passed=False),
        judged("3", "Task: Done"),
        judged("1", "Tone", "t", output_score=0.5),
        judged("1", "Mood", "m", output_text="glad"),
        judged("1", None, "77", output_score=1.0),
    )
    samples = read(data)
    found = eval_metrics([samples])
    assert set(found) == {"eval_77_mean", "eval_task_done_pass_rate", "eval_tone_mean"}
    assert sorted(samples.of(found["eval_task_done_pass_rate"]).values) == [0.0, 1.0]
    assert samples.of(found["eval_tone_mean"]).values.tolist() == [0.5]
    assert samples.of(eval_metric("x", "other", Statistic.MEAN)).values.tolist() == []


def test_evals_whose_names_look_alike_keep_apart_under_the_same_names_on_both_sides():
    values = Sample.of(np.ones(1))
    one = Samples(1, {("Tone", "output_score"): values})
    other = Samples(1, {("tone!", "output_score"): values, ("Tone", "output_score"): values})
    named = {name: metric.eval_name for name, metric in eval_metrics([one, other]).items()}
    assert named == {"eval_tone_mean": "Tone", "eval_tone_2_mean": "tone!"}
    assert eval_metrics([other, one]) == eval_metrics([one, other])


def test_whole_number_that_no_double_holds_counts_as_the_nearest_one(data):
    write(data, "calls", call("1", cost_total_cost_cents=2**53 + 1), call("2", cost_total_cost_cents=2**63 - 1))
    assert read(data).of(METRICS["cost_mean"]).values.tolist() == [2.0**53, 2.0**63]


def test_without_words_for_the_line_every_failure_is_the_agents(data):
    write(data, "calls", call("1", status="failed", ended_reason="error: no answer"))
    one = [execution("e1", run_test="checkout", started_at=AT)]
    (samples, *_), _ = read_samples(LocalFiles(data), one, one, rules=Compare(line_failures=[]))
    assert samples.of(METRICS["failure_rate"]).values.tolist() == [1.0]
    assert read(data).of(METRICS["failure_rate"]).values.tolist() == []
