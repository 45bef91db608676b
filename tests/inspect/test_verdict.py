"""The one line that says whether the dataset is as it should be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.inspect.status import RunStatus, RunTestStatus, Status
from etl.inspect.verdict import judge
from etl.load.attempt import Attempt
from etl.load.warehouse.load import Result

NOW = datetime(2026, 11, 25, 7, tzinfo=UTC)  # a Wednesday
NIGHT = NOW - timedelta(hours=5)
MONDAY = NIGHT - timedelta(days=2)
WHOLE = RunTestStatus(
    name="Checkout flow",
    key="checkout",
    newest_started_at=NIGHT,
    exported_at=NIGHT,
    export_run_id="run",
    **dict.fromkeys(["executions", "exported", "settling", "waiting", "deleted", "calls", "evals"], 1),
    incomplete=0,
    dead_letters=0,
    missing_calls=0,
    stray_calls=0,
    complete_at=NIGHT,
    is_configured=True,
    is_complete=True,
    error=None,
)
PART = "calls/run_test=checkout/month=2026-11/part-0.parquet"
LAST = RunStatus("run", NIGHT, NIGHT, "complete", 0, 1, 1, 1, 1, 1.0)
NEVER = "no run over everything that is configured was ever complete"
GOOD = Status(
    dataset="data",
    read_at=NOW,
    at_work=None,
    complete_at=NIGHT,
    future_run_at=None,
    lost_run=None,
    ignored=(),
    set_aside=0,
    missing_executions=0,
    missing_calls=0,
    missing_evals=0,
    lost_executions=0,
    damaged_executions=0,
    doubled_executions=0,
    surplus_rows=0,
    run_tests=(WHOLE, WHOLE, WHOLE),
    tables=(),
    runs=(LAST,),
    problems=(),
    dead_letters=(),
    unreadable=(),
)


def told(**changes: Any) -> tuple[str, str]:
    verdict = judge(replace(GOOD, **changes))
    assert verdict.is_good == verdict.text.startswith("Good: ")
    return verdict.text, verdict.next_step


def ended(exit_code: int) -> RunStatus:
    return replace(LAST, exit_code=exit_code, outcome="word")


def test_everything_complete_this_night_is_good() -> None:
    assert told() == ("Good: everything complete 5 h ago", "metrics-etl verify")


def test_run_test_that_is_not_configured_spoils_nothing() -> None:
    gone = replace(WHOLE, is_configured=False, is_complete=False, complete_at=None)
    assert told(run_tests=(WHOLE, gone))[0] == "Good: everything complete 5 h ago"


@pytest.mark.parametrize(
    ("since", "words"),
    [
        (NIGHT, "since today"),
        (MONDAY, "since Monday"),
        (NIGHT - timedelta(days=9), "since 2026-11-16"),
        (None, "never complete"),
    ],
)
def test_incomplete_run_tests_are_counted_with_since_when(since: datetime | None, words: str) -> None:
    behind = replace(WHOLE, is_complete=False, complete_at=since)
    text, next_step = told(run_tests=(behind, WHOLE, WHOLE), complete_at=since, runs=(ended(3),))
    assert text.startswith("Not good: 1 of 3 run tests ")
    assert text.endswith(words)
    assert next_step == "metrics-etl run"


def test_rows_that_are_gone_are_not_good() -> None:
    gone = replace(WHOLE, missing_calls=1200)
    assert told(run_tests=(WHOLE, gone)) == (
        "Not good: 1,200 calls of 'Checkout flow' that were exported are not there",
        "metrics-etl run",
    )
    assert told(run_tests=(replace(gone, is_configured=False),))[0].startswith("Good")
    assert told(missing_calls=2) == ("Not good: 2 calls gone since the last run", "metrics-etl run")
    assert "of 'Checkout flow'" in told(run_tests=(WHOLE, gone), missing_calls=1200)[0], "told once"
    assert told(missing_evals=2) == ("Not good: 2 evals gone since the last run", "metrics-etl run")
    assert told(lost_executions=6) == (
        "Not good: 6 executions gone before the last run, and not exported again",
        "metrics-etl run",
    )
    assert told(doubled_executions=2) == (
        "Not good: rows of 2 executions stand twice: a move was interrupted, or files were copied",
        "metrics-etl run",
    )
    assert told(surplus_rows=1200) == ("Not good: 1,200 rows more than the last run left", "metrics-etl run")
    assert told(damaged_executions=1) == (
        "Not good: rows of 1 execution gone before the last run, and not exported again",
        "metrics-etl run",
    )
    assert told(missing_executions=1) == ("Not good: 1 execution gone since the last run", "metrics-etl run")
    assert told(run_tests=(replace(WHOLE, stray_calls=7),)) == (
        "Not good: the executions of 7 calls of 'Checkout flow' are not there",
        "metrics-etl run",
    )


def test_file_that_no_run_sets_aside_is_not_left_to_a_run() -> None:
    assert told(unreadable=("calls/notes.parquet",)) == ("Not good: 1 damaged or foreign file", "metrics-etl verify")
    assert told(unreadable=("calls/notes.parquet", PART)) == ("Not good: 2 damaged or foreign files", "metrics-etl run")


def test_what_a_configured_run_test_lacks_is_not_good_whatever_the_last_run_said() -> None:
    lacking = replace(WHOLE, incomplete=2, dead_letters=1)
    other = replace(lacking, name="Refund chat")
    assert told(run_tests=(WHOLE, lacking, other)) == (
        "Not good: 4 incomplete executions in 'Checkout flow', 'Refund chat'",
        "metrics-etl run",
    )
    assert told(run_tests=(replace(WHOLE, dead_letters=1),))[0] == "Not good: 1 dead letter in 'Checkout flow'"
    assert told(run_tests=(WHOLE, replace(lacking, is_configured=False)))[0].startswith("Good")


@pytest.mark.parametrize(
    ("exit_code", "next_step"), [(2, "check"), (4, "check"), (5, "check"), (6, "check"), (143, "run")]
)
def test_what_ended_the_last_run_decides_what_to_type(exit_code: int, next_step: str) -> None:
    behind = replace(WHOLE, is_complete=False)
    assert told(run_tests=(behind,), runs=(ended(exit_code),))[1] == f"metrics-etl {next_step}"


DAMAGED, LOST = Result("w", damaged=1).problems[0], Result("w", lost=1).problems[0]


@pytest.mark.parametrize(
    ("changes", "text", "next_step"),
    [
        ({"warehouse_lacks": "never loaded"}, "never loaded", "load"),
        ({"warehouse_lacks": DAMAGED}, DAMAGED, "run"),
        (
            {"warehouse_lacks": LOST, "lost_executions": 1},
            "1 execution gone before the last run, and not exported again",
            "run",
        ),
        (
            {"lost_run": Attempt(started_at=NIGHT, exit_code=2, message="no key")},
            "the last run could not start",
            "check",
        ),
        ({"lost_run": Attempt(started_at=NIGHT)}, "the last run was killed or crashed", "run"),
        ({"runs": (ended(3),)}, "the last run ended with exit 3 (word)", "run"),
        ({"runs": (), "run_tests": (), "complete_at": None}, NEVER, "run"),
        ({"complete_at": MONDAY}, "everything was complete 2 days ago, and not since", "run"),
        (
            {"complete_at": None, "future_run_at": NOW + timedelta(days=400)},
            "a run ended at 2027-12-30 07:00, which is in the future: a clock is wrong",
            "run",
        ),
        ({"unreadable": (PART,)}, "1 damaged or foreign file", "run"),
        (
            {"unreadable": ("runs/month=2026-11/a.parquet",), "warehouse_lacks": "behind"},
            "1 damaged or foreign file",
            "verify",
        ),
        (
            {"complete_at": MONDAY, "at_work": "pid 1"},
            "everything was complete 2 days ago, and not since; an export is running",
            "status",
        ),
    ],
)
def test_anything_wrong_is_not_good_and_tells_what_to_type(changes: dict[str, Any], text: str, next_step: str) -> None:
    assert told(**changes) == (f"Not good: {text}", f"metrics-etl {next_step}")


def test_how_old_is_too_old_can_be_said() -> None:
    assert judge(replace(GOOD, complete_at=MONDAY), max_age_hours=54).is_good
    assert not judge(GOOD, max_age_hours=4).is_good


def test_export_that_would_fail_now_is_not_good_whatever_was_complete() -> None:
    verdict = judge(GOOD, would_fail=True)
    assert (verdict.text, verdict.next_step) == ("Not good: an export would fail now", "metrics-etl check")
    assert not verdict.is_good


def test_run_test_that_could_not_be_listed_is_checked_and_not_run_again() -> None:
    mistyped = replace(WHOLE, is_complete=False, complete_at=None, error="the API knows no run test of this name")
    assert told(run_tests=(WHOLE, mistyped), runs=(ended(3),))[1] == "metrics-etl check"
