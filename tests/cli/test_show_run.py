"""What a run says at its end."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from etl.cli.show_run import print_summary
from etl.errors import (
    DestinationError,
    ExitCode,
    ExporterError,
    InterruptedRunError,
    KeyRefusedError,
    SourceUnavailableError,
    TimeLimitError,
)
from etl.extract.purpose import Purpose
from etl.pipeline.run_test_summary import RunTestSummary
from etl.pipeline.summary import Summary

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)
WHOLE = RunTestSummary("Checkout flow", "checkout", is_complete=True)


def printed(capsys: pytest.CaptureFixture[str], *run_tests: RunTestSummary, **changes: Any) -> str:
    print_summary(replace(Summary("run", "0", "data", NOW, NOW, run_tests=list(run_tests)), **changes))
    return capsys.readouterr().out


def test_only_a_complete_run_that_wrote_nothing_was_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, WHOLE)
    assert "written    nothing: everything that was asked for is up to date\n" in shown


@pytest.mark.parametrize(
    "failure",
    [
        KeyRefusedError("refused"),
        SourceUnavailableError("down"),
        DestinationError("full"),
        InterruptedRunError("stopped", exit_code=ExitCode.SIGTERM),
        TimeLimitError("late"),
        ExporterError("a bug"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_run_that_failed_says_nothing_of_being_up_to_date(
    capsys: pytest.CaptureFixture[str], failure: ExporterError
) -> None:
    shown = printed(capsys, WHOLE, failure=failure)
    assert "written    nothing\n" in shown
    assert "up to date" not in shown


@pytest.mark.parametrize("change", [{"error": "unknown"}, {"is_complete": False}, {"dead_letters": 1}])
def test_run_in_which_something_is_missing_says_nothing_of_being_up_to_date(
    capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    assert "up to date" not in printed(capsys, replace(WHOLE, **change))


def test_run_that_moved_or_marked_rows_did_write(capsys: pytest.CaptureFixture[str]) -> None:
    assert "written    2 files, with no new or changed rows\n" in printed(capsys, WHOLE, files=2)


def test_one_is_no_plural(capsys: pytest.CaptureFixture[str]) -> None:
    one = replace(
        WHOLE, dead_letters=1, misfits=1, deleted=1, not_listed=2, not_answered=1, moved=1, unreadable=["row"]
    )
    one.unfinished = 1
    one.unknown_statuses["archived"] = 1
    counts = dict.fromkeys(["retries", "rejections", "redactions", "completed_files"], 1)
    counts |= dict.fromkeys(["forgotten", "accepted"], 1)
    rows = dict.fromkeys(["executions", "calls", "evals"], 1)
    lost: dict[str, Any] = {name: {"key": ("Key", 1)} for name in ("lost", "damaged")}

    shown = printed(
        capsys, one, rows=rows, left_behind={"key": 1}, **lost, requests_by_purpose={Purpose.SCRUB: 1}, **counts
    )

    assert "written    1 execution, 1 call, 1 eval (new or changed rows)\n" in shown
    assert "requests   1 request in 0.0 s (1 sent again, 1 refused by the rate limit): scrub 1\n" in shown
    assert re.findall(r"\b1 (?:stored )?\w+s\b", shown) == []
