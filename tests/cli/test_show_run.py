"""What a run says at its end, and a plan before it."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from etl.cli.show_run import print_plan, print_summary
from etl.errors import DestinationError, ExitCode, InterruptedRunError, KeyRefusedError, SourceUnavailableError
from etl.extract.endpoints import Purpose, no_requests
from etl.load.synchronize import LoadResult
from etl.model.findings import Finding, Kind
from etl.pipeline.job import Plan
from etl.pipeline.summary import RunTestSummary, Summary

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)
WHOLE = RunTestSummary("Checkout flow", "checkout", is_complete=True)
LIST = Finding(Kind.LIST_FAILED, "Checkout flow", "HTTP 500")
LETTER = Finding(Kind.DEAD_LETTER, "Refund chat", "1 request failed: HTTP 502")
LOAD = Finding(Kind.NOT_LOADED, "", "2 executions left out")


def printed(capsys: pytest.CaptureFixture[str], *run_tests: RunTestSummary, **changes: Any) -> str:
    print_summary(replace(Summary("run", "0", "data", NOW, NOW, run_tests=list(run_tests)), **changes))
    return capsys.readouterr().out


def test_only_a_complete_run_that_wrote_nothing_was_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, WHOLE)
    assert "written    nothing, because everything is up to date\n" in shown
    assert "written    no new rows, but marks, names or states in 2 files\n" in printed(capsys, WHOLE, files=2)
    for failure in (
        KeyRefusedError("refused"),
        SourceUnavailableError("down"),
        DestinationError("full"),
        InterruptedRunError("stopped", exit_code=ExitCode.SIGTERM),
    ):
        shown = printed(capsys, WHOLE, failure=failure)
        assert "written    nothing\n" in shown
        assert f"problem    {failure}\n" in shown
    assert "up to date" not in printed(capsys, WHOLE, findings=[LIST])


def test_the_first_alarm_of_each_kind_is_told_with_a_count_and_the_next_step_of_the_gravest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    notice = Finding(Kind.DELETED, "Refund chat", "1 execution deleted at the source")
    shown = printed(capsys, WHOLE, findings=[LOAD, LIST, replace(LIST, subject="Refund chat"), notice, LETTER])
    lines = re.findall(r"^(notice|problem|next) +(.+)$", shown, re.MULTILINE)
    assert lines == [
        ("notice", str(notice)),
        ("problem", str(LOAD)),
        ("problem", f"{LIST} (1 more problem like this)"),
        ("problem", str(LETTER)),
        ("next", Kind.DEAD_LETTER.next_step),
    ]


def test_one_is_no_plural(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(
        capsys,
        replace(WHOLE, dead_letters=1, misfits=1, deleted=1),
        rows=dict.fromkeys(["executions", "calls", "evals"], 1),
        retries=1,
        rejections=1,
        requests_by_purpose={Purpose.SWEEP: 1},
    )
    assert "written    1 execution, 1 call, 1 eval (new or changed rows)\n" in shown
    assert "requests   1 request in 0.0 s (1 sent again, 1 refused by the rate limit): sweep 1\n" in shown
    assert re.findall(r"\b1 (?:stored )?\w+s\b", shown) == []


@pytest.mark.parametrize(
    ("fetched", "limit", "requests", "duration"),
    [
        (
            30,
            None,
            "32 requests: list 2, first fetch 30",
            "about 18 s, assuming 100 requests a minute, because the API announces no limit (less without a limit)",
        ),
        (3000, 100, "3,002 requests: list 2, first fetch 3,000", "about 30 min at 100 requests a minute"),
        (0, 100, "2 requests: list 2", "nothing to fetch"),
    ],
)
def test_plan_tells_its_price(
    capsys: pytest.CaptureFixture[str], fetched: int, limit: int | None, requests: str, duration: str
) -> None:
    by_purpose = no_requests() | {Purpose.LIST: 2, Purpose.FIRST_FETCH: fetched}
    print_plan(Plan([], [], by_purpose, 0, limit, seconds=limit and fetched / limit * 60))
    shown = capsys.readouterr().out
    assert f"requests   {requests}" in shown
    assert f"duration   {duration}" in shown


def test_rows_from_lists_are_told_before_the_run_and_after_one_that_ended_early(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first: Any = [object()] * 60
    print_plan(Plan([], [], no_requests(), 0, 100, seconds=960, previews=first, requests_to_use=123, seconds_to_use=60))
    assert "readable   60 new executions from lists after 123 requests, in 60 s or more\n" in capsys.readouterr().out
    shown = printed(capsys, replace(WHOLE, is_complete=False, missed=5, previewed=3))
    assert re.search(r"^Checkout flow .* 5 left, 3 readable *$", shown, re.MULTILINE)
    shown = printed(capsys, replace(WHOLE, is_complete=False), failure=InterruptedRunError("stopped"))
    assert re.search(r"^Checkout flow .* ended early *$", shown, re.MULTILINE)


def test_what_a_load_has_to_say_is_said_at_the_end_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, WHOLE, load=LoadResult("warehouse", notices=["1 value contained U+0000"]))
    assert "notice     1 value contained U+0000\n" in shown
