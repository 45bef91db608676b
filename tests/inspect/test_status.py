"""What a status says: whether the dataset is as it should be, in one line, and what to do next."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.dataset.last_run import Attempt
from etl.inspect.status import RunStatus, Status
from etl.inspect.status_run_tests import RunTestStatus
from etl.model.findings import Finding, Kind

NOW = datetime(2026, 11, 25, 7, tzinfo=UTC)  # a Wednesday
NIGHT = NOW - timedelta(hours=5)
MONDAY = NIGHT - timedelta(days=2)
WHOLE = RunTestStatus(
    name="Checkout flow",
    key="checkout",
    **dict.fromkeys(["executions", "exported", "settling", "listed", "waiting", "deleted", "calls"], 1),
    incomplete=0,
    forgotten=0,
    newest_started_at=NIGHT,
    exported_at=NIGHT,
    compared_at=NIGHT,
    complete_at=NIGHT,
    is_configured=True,
    is_complete=True,
)
LAST = RunStatus("run", NIGHT, NIGHT, "complete", 0, 1, 1, 1, 1, 1.0)
REFUSED = "the API refused the key (401). Check FI_API_KEY and FI_SECRET_KEY"
GOOD = Status(
    dataset="data",
    read_at=NOW,
    at_work=None,
    complete_at=NIGHT,
    lost_run=None,
    run_tests=(WHOLE, WHOLE, WHOLE),
    tables=(),
    runs=(LAST,),
    findings=(),
)
LOST = Finding(Kind.LOST_ROWS, "calls/a.parquet", "5 rows missing")
LIST = Finding(Kind.LIST_FAILED, "Refund chat", "HTTP 500")
LOAD = Finding(Kind.NOT_LOADED, "", "the warehouse was never loaded")
DELETED = Finding(Kind.DELETED, "Refund chat", "1 execution deleted at the source")


def told(**changes: Any) -> tuple[str, str]:
    verdict = replace(GOOD, **changes).verdict
    assert verdict.is_good == verdict.text.startswith("Good: ")
    return verdict.text, verdict.next_step


def ended(exit_code: int, message: str | None = None) -> RunStatus:
    return replace(LAST, exit_code=exit_code, outcome="word", message=message)


def test_everything_complete_this_night_is_good() -> None:
    expected = ("Good: the last complete export was 5 h ago", "")
    left_out = replace(WHOLE, is_configured=False, is_complete=False, complete_at=None, incomplete=2)
    for changes in ({}, {"run_tests": (WHOLE, left_out)}, {"findings": (DELETED,)}):
        assert told(**changes) == expected
    assert replace(GOOD, complete_at=MONDAY, max_age_hours=54).verdict.is_good


def test_the_gravest_alarm_is_the_verdict_and_its_next_step_comes_next() -> None:
    for findings, text in (
        ((LIST, LOST), f"{LOST} (1 more problem below)"),
        ((LOAD, LIST), f"{LIST} (1 more problem below)"),
        ((LOAD, DELETED), "the warehouse was never loaded"),
    ):
        shown, next_step = told(findings=findings)
        assert shown == f"Not good: {text}"
        gravest, *others = sorted(findings, key=lambda each: not text.startswith(str(each)))
        assert next_step == gravest.kind.next_step
        problems = [line for label, line in replace(GOOD, findings=findings).lines() if label == "problem"]
        assert problems == [str(each) for each in others if each.is_alarm]


def test_what_ended_the_last_run_is_named_and_not_what_is_incomplete_for_it() -> None:
    behind = replace(WHOLE, is_complete=False)
    for exit_code, next_step in (*((code, CHECK) for code in (2, 4, 5, 6)), (1, RUN), (143, RUN)):
        runs = (ended(exit_code, f"{REFUSED}\nmore"),)
        expected = (f"Not good: {REFUSED}", next_step)
        assert told(run_tests=(behind,), runs=runs, findings=(LIST,)) == expected
    assert told(runs=(ended(3, REFUSED),), findings=(LIST,)) == (f"Not good: {REFUSED}", CHECK), "it ended early"
    assert told(runs=(ended(3, str(LIST)),), findings=(LIST,)) == (f"Not good: {LIST}", LIST.next_step)
    full, gone = "calls: No space left on device", "the key sees none: run once with --accept-deletions"
    assert told(runs=(ended(6, full),)) == (f"Not good: {full}", "make room, then run metrics-etl run")
    assert told(runs=(ended(2, gone),)) == (f"Not good: {gone}", "check the key's workspace")


@pytest.mark.parametrize(
    ("since", "words"), [(MONDAY, "been incomplete since 2026-11-23"), (None, "never been complete")]
)
def test_incomplete_run_tests_are_counted_with_since_when(since: datetime | None, words: str) -> None:
    behind = replace(WHOLE, is_complete=False, complete_at=since)
    found = told(run_tests=(behind, WHOLE, WHOLE), complete_at=since)
    assert found == (f"Not good: 1 of 3 run tests has {words}", "metrics-etl run")


KILLED, REFUSED_RUN = Attempt(started_at=NIGHT), Attempt(started_at=NIGHT, exit_code=2, message="no key")
CRASHED = "the last run was killed or crashed, or the disk was full"
RUN, CHECK = "metrics-etl run", "metrics-etl check, then metrics-etl run"
STALE = "the last complete export was 2 days ago"


@pytest.mark.parametrize(
    ("changes", "text", "command"),
    [
        ({"lost_run": KILLED}, CRASHED, "run"),
        ({"lost_run": KILLED, "complete_at": None}, f"{CRASHED}, and no earlier run was complete", "run"),
        ({"lost_run": REFUSED_RUN}, "the last run could not start: no key", "check, then metrics-etl run"),
        ({"runs": (ended(3),)}, "the last run ended with code 3 (word)", "run"),
        ({"runs": (), "complete_at": None}, "no run has fully exported all configured run tests yet", "run"),
        ({"complete_at": MONDAY}, STALE, "run"),
        ({"max_age_hours": 4}, "the last complete export was 5 h ago", "run"),
        ({"complete_at": MONDAY, "at_work": "pid 1"}, f"{STALE}. An export is running", "status"),
    ],
)
def test_anything_wrong_is_not_good_and_tells_what_to_type(changes: dict[str, Any], text: str, command: str) -> None:
    assert told(**changes) == (f"Not good: {text}", f"metrics-etl {command}")


def test_export_that_would_fail_now_is_not_good_whatever_was_complete() -> None:
    for problem, next_step in (("no key", CHECK), ("No space left on device", "make room, then run metrics-etl run")):
        shown = told(would_fail=True, problems_now=(problem, "more"))
        assert shown == (f"Not good: an export would fail now: {problem}", next_step)
    killed = replace(GOOD, lost_run=KILLED, would_fail=True)
    assert killed.verdict.next_step == CHECK, "another run alone would fail as that one did"
