"""A comparison of a dataset: with which calls, what is told beside it, and when a limit is kept."""

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etl
from etl.cli.show_compare import junit, markdown
from etl.compare.causes import judge_changes
from etl.compare.comparison import ComparisonReport, Row, change_texts, compare, value_text
from etl.compare.estimate import difference
from etl.compare.selection import Selection, Span, Version
from etl.compare.statistics import Difference, Estimate, Outcome, Sample
from etl.errors import ConfigurationError
from etl.inspect.read_tables import open_dataset
from etl.model.findings import Kind
from etl.model.metrics import METRICS, limits_of
from etl.settings.results import Compare
from tests import datasets
from tests.compare.executions import execution
from tests.datasets import write

WEEKS = (Span(date(2026, 10, 26), date(2026, 11, 8)), Span(date(2026, 11, 9), date(2026, 11, 20)))


def compared(
    data: Path,
    *sides: Any,
    run_test: str | None = None,
    is_paired: bool = True,
    defaults: dict[str, str] | None = None,
    group_by: Any = None,
    **texts: str,
) -> ComparisonReport:
    files, limits = open_dataset(str(data), {}), limits_of(texts)
    rules = Compare(max_regression=defaults or {})
    own = {"run_test": run_test, "is_paired": is_paired, "group_by": group_by}
    return compare(files, *sides, limits=limits, rules=rules, **own)


SIDE = Selection("e", (execution("e", run_test_name="`a``@team <img src=x>\n| b"),))


def test_name_from_outside_is_neither_a_mention_nor_html_in_a_comment() -> None:
    report = ComparisonReport(dataset="data", baseline=SIDE, candidate=SIDE, calls=(0, 0), rows=[])
    assert markdown(report).splitlines()[0] == r"### ``` `a``@team <img src=x>\n| b ```: compared without limits"
    judges = [json.dumps({"1": {"name": "<b>@all\n", "model": f"<{model}>\x1b"}}) for model in "ab"]
    report = replace(report, judges=judge_changes(execution(each, judged_by=each) for each in judges))
    told = r"the judge of eval '<b>@all\n' changed on 2026-11-01: model from '<a>\x1b' to '<b>\x1b'"
    assert markdown(report).splitlines()[0].endswith(f"b ```: `{told}`; compared without limits")
    assert f"`{told}`" in (ET.fromstring(junit(report)).findtext("testcase/system-out") or "")


AT = datetime(2026, 11, 10, 9, tzinfo=UTC)


def an_execution(execution_id: str, **values: object) -> dict[str, object]:
    own = {"execution_id": execution_id, "run_test_name": "A", "status": "completed", "started_at": AT}
    return own | {"export_state": "exported", "exported_calls": 50} | values


def calls_of(execution_id: str, latency: float) -> list[dict[str, object]]:
    own = {"execution_id": execution_id, "execution_started_at": AT, "status": "completed"}
    rng = np.random.default_rng(1)
    return [
        own
        | {"call_execution_id": f"{execution_id}-{n}", "latency_avg_agent_latency_ms": latency * rng.lognormal(0, 0.2)}
        for n in range(50)
    ]


def a_dataset(folder: Path, *executions: dict[str, object]) -> Path:
    """One run test with these executions, in the month of ``AT``."""
    datasets.a_dataset(folder / "data")
    write(folder / "data", "executions", *executions, key="a", date="2026-11-10")
    return folder / "data"


FEW = "one slow day can look like a worse agent. Compare date ranges with at least 5 executions each"
EARLY = {"started_at": datetime(2026, 11, 3, tzinfo=UTC)}


def test_executions_and_calls_that_were_deleted_are_left_out(tmp_path: Path) -> None:
    data = a_dataset(tmp_path, an_execution("old", **EARLY), an_execution("gone", deleted_at=AT), an_execution("new"))
    calls = [*calls_of("old", 1000), *calls_of("gone", 9000), *calls_of("new", 1010)]
    calls += [
        call | {"call_execution_id": f"{call['call_execution_id']}-x", "deleted_at": AT}
        for call in calls_of("new", 9000)
    ]
    write(data, "calls", *calls, key="a", date="2026-11-10")
    spans = (Span(date(2026, 11, 1), date(2026, 11, 7)), Span(date(2026, 11, 8), date(2026, 11, 14)))
    document = compared(data, *spans).as_json()
    assert (document["candidate"]["executions"], document["candidate"]["calls"]) == (["new"], 50)
    assert document["metrics"][0]["candidate"] == pytest.approx(1010, rel=0.1)
    with pytest.raises(ConfigurationError, match="execution 'gone' was deleted at the source, or forgotten"):
        compared(data, "gone", "last")


def judged_by(model: str) -> dict[str, str]:
    return {"judged_by": json.dumps({"c": {"name": "Task", "model": model}}), "judged_by_fingerprint": model}


def test_versions_of_the_agent_are_compared_each_by_itself_too_and_a_changed_judge_is_told_first(
    tmp_path: Path,
) -> None:
    versions = {"old": "v1", "unknown": None, "new": "v2"}
    data = a_dataset(
        tmp_path, *(an_execution(name, agent_version=version, **judged_by(name)) for name, version in versions.items())
    )
    calls = [call for name in versions for call in calls_of(name, 2000 if name == "new" else 1000)]
    write(data, "calls", *calls, key="a", date="2026-11-10")
    document = compared(data, Version("v1"), Version("v2")).as_json()
    sides = [(document[side]["wanted"], document[side]["executions"]) for side in ("baseline", "candidate")]
    assert sides == [("version=v1", ["old"]), ("version=v2", ["new"])]
    what = {"eval_name": "Task", "since": "2026-11-10", "what": "model from 'new' to 'old'"}
    assert [json.loads(json.dumps(each, default=str)) for each in document["judges_changed"]] == [what]
    assert document["conclusion"].startswith("the judge of eval 'Task' changed on 2026-11-10: model from 'new' to 'old")

    (group,) = compared(data, Version("v1"), Version("v2"), group_by="agent_version").as_json()["groups"]
    assert (group["agent_version"], group["notices"]) == ("v2", [])
    assert [row["metric"] for row in group["metrics"]] == [row["metric"] for row in document["metrics"]]
    assert (group["metrics"][0]["limit"], group["metrics"][0]["candidate"]) == (
        None,
        document["metrics"][0]["candidate"],
    )


def test_groups_are_what_executions_have_the_oldest_first_and_each_says_what_it_leaves_out(tmp_path: Path) -> None:
    """A version may be called unknown."""
    versions = ["unknown", None, "v9", "", "v1"]
    others = [
        an_execution(f"e{n}", agent_version=version, started_at=AT.replace(hour=10 + n))
        for n, version in enumerate(versions)
    ]
    data = a_dataset(tmp_path, an_execution("old", **EARLY), *others)
    calls = [call | {"scenario_id": f"{e}"} for n in range(5) for e, call in enumerate(calls_of(f"e{n}", 9)[: n + 1])]
    old = [call | {"scenario_id": "0"} for call in calls_of("old", 9)]
    write(data, "calls", *old, *calls, key="a", date="2026-11-10")
    spans = (Span(date(2026, 11, 1), date(2026, 11, 7)), Span(date(2026, 11, 8), date(2026, 11, 14)))
    groups = compared(data, *spans, group_by="agent_version").as_json()["groups"]
    assert [each["agent_version"] for each in groups] == versions
    assert [len(each["notices"]) for each in groups] == [0, 1, 1, 1, 1]


def test_calls_in_the_month_of_their_first_sight_are_found(tmp_path: Path) -> None:
    data = a_dataset(tmp_path, an_execution("old", **EARLY), an_execution("new"))
    write(data, "calls", *calls_of("old", 1000), key="a", date="2026-11-10")
    write(data, "calls", *calls_of("new", 1000), key="a", date="2026-12-10")
    report = compared(data, "previous", "last")
    assert (report.calls, report.notices) == ((50, 50), [FEW])


def test_calls_that_are_gone_from_the_files_are_told(tmp_path: Path) -> None:
    data = a_dataset(tmp_path, an_execution("old", exported_calls=60, **EARLY), an_execution("new"))
    write(data, "calls", *calls_of("old", 1000), *calls_of("new", 1000), key="a", date="2026-11-10")
    report = compared(data, "previous", "last")
    (finding,) = report.findings
    assert (finding.kind, finding.text) == (Kind.DAMAGED, "the dataset is missing 10 calls of the baseline")
    assert (report.exit_code, report.notices) == (3, [FEW])


@pytest.mark.parametrize("incomplete", ["old", "new"])
def test_limit_is_not_kept_by_what_is_there_while_calls_are_missing(tmp_path: Path, incomplete: str) -> None:
    """Those that could not be fetched may be those that failed."""
    states = {incomplete: {"export_state": "incomplete"}}
    executions = (an_execution(name, **at, **states.get(name, {})) for name, at in (("old", EARLY), ("new", {})))
    data = a_dataset(tmp_path, *executions)
    write(data, "calls", *calls_of("old", 1000), *calls_of("new", 1010), key="a", date="2026-11-10")
    alone = compared(data, "previous", "last")
    kept = compared(data, "previous", "last", latency_mean="50%")
    assert (alone.exit_code, kept.exit_code) == (0, 3)
    assert "calls are missing from 1 incomplete execution" in markdown(kept)
    write(data, "calls", *calls_of("old", 1000), *calls_of("new", 9000), key="a", date="2026-11-10")
    assert compared(data, "previous", "last", latency_mean="50%").exit_code == 10


def evals_of(execution_id: str, name: str) -> list[dict[str, object]]:
    own = {"eval_name": name, "eval_config_id": name, "output_passed": True, "execution_started_at": AT}
    return [
        own | {"execution_id": execution_id, "call_execution_id": call["call_execution_id"]}
        for call in calls_of(execution_id, 1000)
    ]


NO_LATENCY: dict[str, object] = {"status": "failed", "latency_avg_agent_latency_ms": None}
TONE, LATENCY = {"eval_tone_pass_rate": "10pp"}, {"latency_mean": "50%"}


@pytest.mark.parametrize(
    ("of_call", "of_eval", "limits", "told"),
    [
        (NO_LATENCY, "Tone", LATENCY, "latency_mean (all calls of the candidate failed)"),
        ({"scenario_id": "new"}, "Tone", LATENCY, "latency_mean (the two sides have no scenario in common)"),
        ({}, "Tone of voice", TONE, "eval_tone_pass_rate (there are no values in the candidate)"),
        ({}, "Tone of voice", {"eval_tone_of_voice_pass_rate": "10pp"}, "rate (there are no values in the baseline)"),
        ({}, "Tone", {"eval_gone_pass_rate": "9%"} | LATENCY, "gone_pass_rate (there are no values in the baseline"),
        (NO_LATENCY | {"is_everywhere": True}, "Tone", LATENCY, "mean (there are no values in the baseline and the"),
        (
            NO_LATENCY | {"kept": 24},
            "Tone",
            LATENCY,
            "latency_mean (only 24 of 50 calls of the candidate can be compared)",
        ),
        ({"scenario_id": "new", "kept": 24}, "Tone", LATENCY, "latency_mean (only 24 of 50 calls of the candidate can"),
        (NO_LATENCY | {"kept": 25}, "Tone", LATENCY, None),
        ({}, "Tone", {"failure_rate": "10%"}, "failure_rate (the baseline is zero, so give the limit in pp)"),
        ({}, "Tone", {"chat_latency_mean": "9%"}, "chat_latency_mean (the run test does not have this metric)"),
        ({}, "Tone", {"eval_ton_pass_rate": "9%"}, "eval_ton_pass_rate (the run test does not have this metric)"),
        ({}, "Tone", {"eval_ton_pass_rate": "9%", "chat_latency_mean": "9%"} | TONE, None),
    ],
)
def test_limit_without_values_to_compare_is_never_a_pass_wherever_it_was_set(
    tmp_path: Path, of_call: dict[str, object], of_eval: str, limits: dict[str, str], told: str | None
) -> None:
    """But a limit of the settings is for any run test, which need not have the metric."""
    executions = (an_execution("first", started_at=datetime(2026, 11, 1, tzinfo=UTC)), an_execution("old", **EARLY))
    data = a_dataset(tmp_path, *executions, an_execution("new"))
    calls = [call | {"scenario_id": "s"} for name in ("first", "old", "new") for call in calls_of(name, 1000)]
    of_call = dict(of_call)
    lost = ("old", "new") if of_call.pop("is_everywhere", False) else ("new",)
    kept = {f"new-{number}" for number in range(int(str(of_call.pop("kept", 0))))}
    calls = [
        call | of_call if call["execution_id"] in lost and call["call_execution_id"] not in kept else call
        for call in calls
    ]
    write(data, "calls", *calls, key="a", date="2026-11-10")
    evals = [*evals_of("first", "Gone"), *evals_of("old", "Tone"), *evals_of("new", of_eval)]
    write(data, "evals", *evals, key="a", date="2026-11-10")
    reports = [compared(data, "previous", "last", defaults=limits)]
    if told and "does not have" not in told and "gone" not in told:
        given: dict[str, Any] = {**limits}
        reports.append(compared(data, "previous", "last", **given))
    for report in reports:
        assert report.exit_code == (3 if told else 0)
        assert (told or "pass: 1 limit not exceeded") in report.conclusion
        assert (ET.fromstring(junit(report)).get("errors") == "0") == (told is None)


@pytest.mark.parametrize(
    ("estimate", "told"),
    [
        (None, "at least 20 calls are needed on each side"),
        (Estimate(0.05, False, False, 0.1, 1e9, 0.0), "about 108 calls are needed on each side"),
        (Estimate(0.0, False, False, 0.15, 9.0, 0.9), "differ too much, so compare more executions on each side"),
        (Estimate(0.19, False, False, 0.06, 1e9, 0.0), "more calls are needed on each side"),
        (Estimate(0.0, False, False, 0.01, 1e9, 0.0), ""),
    ],
)
def test_limit_that_is_not_judged_says_what_would_help(estimate: Estimate | None, told: str) -> None:
    found = Difference(
        baseline=1.0, candidate=1.0, baseline_calls=50, candidate_calls=50, is_higher_worse=True, estimate=estimate
    )
    row = Row(METRICS["latency_mean"], found, limits_of({"latency_mean": "10%"})["latency_mean"])
    assert row.why_not_judged.endswith(told)
    sure = replace(found, estimate=Estimate(0.9, False, False, 0.01, 1e9, 0.0))
    assert replace(row, found=sure, lacking="too few").outcome is Outcome.EXCEEDED


def test_mean_beyond_what_a_double_holds_is_null_in_json() -> None:
    """JSON knows no infinity, and few of its readers do."""
    huge, metric = Sample.of(np.full(50, 1.7e308)), METRICS["latency_mean"]
    found = difference(huge, huge, metric.statistic, is_higher_worse=True)
    rows = [Row(metric, found)]
    report = ComparisonReport(dataset="data", baseline=SIDE, candidate=SIDE, calls=(0, 0), rows=rows).as_json()
    assert report["metrics"][0]["baseline"] is None
    assert json.loads(json.dumps(report["metrics"], allow_nan=False)) == report["metrics"]


def test_figures_are_those_that_pandas_finds(demo: Path) -> None:
    document = compared(demo, *WEEKS, run_test="Checkout flow", is_paired=False).as_json()
    calls = etl.read_calls(demo, run_tests="Checkout flow", since="2026-10-26", evals="wide")
    calls = calls[calls["execution_status"].isin(["completed", "failed", "cancelled"])]
    is_old = calls["execution_started_at"].dt.date < datetime(2026, 11, 9, tzinfo=UTC).date()
    found = {row["metric"]: row for row in document["metrics"]}
    for side, rows in (("baseline", calls[is_old]), ("candidate", calls[~is_old])):
        latency = rows["latency_avg_agent_latency_ms"].dropna().astype("float64")
        assert document[side]["calls"] == len(rows)
        assert found["latency_p95"][f"{side}_calls"] == len(latency)
        assert found["latency_p50"][side] == pytest.approx(latency.median())
        assert found["latency_p95"][side] == pytest.approx(latency.quantile(0.95))
        assert found["latency_mean"][side] == pytest.approx(latency.mean())
        assert found["cost_mean"][side] == pytest.approx(rows["cost_total_cost_cents"].mean())
        passed = rows["eval_task_completion_passed"].dropna().astype("float64")
        assert found["eval_task_completion_pass_rate"][side] == pytest.approx(passed.mean())
        scores = rows["eval_tone_score_score"].dropna().astype("float64")
        assert found["eval_tone_score_mean"][side] == pytest.approx(scores.mean())
        ended = rows[rows["status"].isin(["completed", "failed"])]
        of_line = ended["status"].eq("failed") & ended["ended_reason"].eq("customer-did-not-answer")
        rates = {"failure_rate": ended["status"][~of_line].eq("failed"), "line_failure_rate": of_line}
        for name, failed in rates.items():
            assert (found[name][side], found[name][f"{side}_calls"]) == (pytest.approx(failed.mean()), len(failed))


@pytest.mark.parametrize("table", ["executions", "calls", "evals"])
def test_nothing_passes_where_rows_were_taken_away(demo: Path, tmp_path: Path, table: str) -> None:
    """What is left would be judged in place of what was asked for."""
    shutil.copytree(demo, tmp_path / "data")
    (key,) = (path.name for path in (tmp_path / "data" / table).iterdir() if path.name.startswith("run_test=support"))
    whole = compared(tmp_path / "data", *WEEKS, run_test="Support triage")
    path = f"{table}/{key}/month=2026-10/part-0.parquet"
    (tmp_path / "data" / path).unlink()
    report = compared(tmp_path / "data", *WEEKS, run_test="Support triage", failure_rate="5pp")
    other = compared(tmp_path / "data", *WEEKS, run_test="Checkout flow")
    assert (whole.exit_code, report.exit_code, other.exit_code) == (0, 3, 0)
    assert path in {each.subject for each in report.findings}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "-"),
        (1310.4, "ms", "1,310 ms"),
        (17.25, "US cents", "17.2 ct"),
        (0.0, "1/min", "0.00 1/min"),
        (0.35, "1/min", "0.35 1/min"),
        (0.0034, "1/min", "0.0034 1/min"),
        (-0.004, "score", "-0.004"),
        (0.93, "share", "93.0%"),
        (1.7e308, "ms", "1.7e+308 ms"),
    ],
)
def test_value_keeps_two_digits_however_small_it_is(value, unit, text):
    assert value_text(value, unit) == text


@pytest.mark.parametrize(("before", "after", "told"), [(0.9486, 0.6934, "-25.6 pp"), (0.5, 0.5, "+0.0 pp")])
def test_difference_of_rates_is_that_of_the_rates_as_they_are_shown(before: float, after: float, told: str) -> None:
    """Of 94.9% and 69.3%, a reader makes 25.6."""
    estimate = Estimate(after - before, False, True, 0.01, 1e9, 0.0)
    sides = {"baseline": before, "candidate": after, "baseline_calls": 50, "candidate_calls": 50}
    found: Any = {**sides, "is_higher_worse": True, "estimate": estimate}
    assert change_texts(METRICS["failure_rate"], Difference(**found))[0] == told
