"""The exit code of a run, and the one line that says each thing that is missing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from etl.errors import (
    DestinationError,
    ExitCode,
    ExporterError,
    InterruptedRunError,
    KeyRefusedError,
    SourceUnavailableError,
)
from etl.pipeline.run_test_summary import RunTestSummary
from etl.pipeline.summary import Summary

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
WHOLE = RunTestSummary("Checkout", "checkout", is_complete=True)


def summary(*run_tests: RunTestSummary, failure: ExporterError | None = None, **changes: object) -> Summary:
    made = Summary("run", "0", "data", NOW, NOW + timedelta(seconds=90), run_tests=list(run_tests), failure=failure)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_run_in_which_nothing_is_missing_is_complete() -> None:
    done = summary(WHOLE, WHOLE)
    assert (done.exit_code, done.outcome, done.problems, done.seconds) == (0, "complete", [], 90)


@pytest.mark.parametrize(
    ("run_test", "words"),
    [
        (replace(WHOLE, error="not found"), "'Checkout': not found"),
        (replace(WHOLE, is_complete=False), "kept changing"),
        (replace(WHOLE, dead_letters=2), "2 requests given up"),
        (
            replace(WHOLE, dead_letters=2, doubted=2),
            "2 executions with far fewer calls or evals listed than stored or counted",
        ),
    ],
)
def test_anything_missing_is_partial_and_told_in_one_line(run_test: RunTestSummary, words: str) -> None:
    partial = summary(WHOLE, run_test)
    assert (partial.exit_code, partial.outcome) == (3, "partial")
    [problem] = partial.problems
    assert words in problem


def test_file_that_was_set_aside_is_partial() -> None:
    partial = summary(WHOLE, quarantined=["_state/quarantine/x"])
    assert partial.exit_code == 3
    assert "_state/quarantine/x" in partial.problems[0]


@pytest.mark.parametrize(
    ("failure", "rows", "exit_code", "outcome"),
    [
        (SourceUnavailableError("down"), {}, 5, "unavailable"),
        (SourceUnavailableError("down"), {"calls": 1}, 3, "partial"),
        (KeyRefusedError("no"), {"calls": 1}, 4, "refused"),
        (DestinationError("full"), {"calls": 1}, 6, "destination"),
        (InterruptedRunError("stop", exit_code=ExitCode.SIGTERM), {"calls": 1}, 143, "interrupted"),
        (InterruptedRunError("stop", exit_code=ExitCode.SIGINT), {}, 130, "interrupted"),
        (ExporterError("a bug"), {}, 1, "error"),
    ],
)
def test_what_ended_the_run_decides_its_exit_code(
    failure: ExporterError, rows: dict[str, int], exit_code: int, outcome: str
) -> None:
    ended = summary(replace(WHOLE, is_complete=False), failure=failure, rows=rows)
    assert (ended.exit_code, ended.outcome) == (exit_code, outcome)
    assert ended.problems == [str(failure)], "that lists were not read is no news then"


def test_unreachable_source_is_told_once_not_per_run_test() -> None:
    down = summary(
        replace(WHOLE, error="down"), replace(WHOLE, error="down"), failure=SourceUnavailableError("all down")
    )
    assert down.problems == ["all down"]
