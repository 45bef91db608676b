"""The exit code of a run, what it says, and what the next run and ``status`` are told of completeness."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from etl.dataset.last_run import LastRun
from etl.errors import (
    DestinationError,
    ExitCode,
    ExporterError,
    InterruptedRunError,
    KeyRefusedError,
    SourceUnavailableError,
)
from etl.model.findings import Finding, Kind
from etl.pipeline.summary import RunTestSummary, Summary
from etl.settings import Settings

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
END = NOW + timedelta(seconds=90)
WHOLE = RunTestSummary("Checkout", "checkout", is_complete=True)
OTHER = RunTestSummary("Support", "support", is_complete=True)


def summary(*run_tests: RunTestSummary, failure: ExporterError | None = None, **changes: object) -> Summary:
    made = Summary("run", "0", "data", NOW, END, run_tests=list(run_tests), failure=failure)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_run_in_which_nothing_is_missing_is_complete() -> None:
    done = summary(WHOLE, findings=[Finding(Kind.DELETED, "Checkout", "1 execution deleted at the source")])
    assert (done.exit_code, done.outcome, done.problems, done.seconds) == (0, "complete", [], 90)
    assert done.notices == ["'Checkout': 1 execution deleted at the source"]


def test_alarm_is_partial_and_told_in_one_line_and_a_notice_changes_no_exit_code() -> None:
    for kind in Kind:
        finding = Finding(kind, "Checkout", "why")
        told = summary(WHOLE, findings=[finding])
        assert told.exit_code == (3 if finding.is_alarm else 0)
        assert told.problems == ["'Checkout': why"] * finding.is_alarm
        assert told.notices == ["'Checkout': why"] * (not finding.is_alarm)


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
    assert (ended.exit_code, ended.outcome, ended.problems) == (exit_code, outcome, [str(failure)])


def test_unreachable_source_is_told_once_not_per_run_test() -> None:
    findings = [Finding(Kind.LIST_FAILED, name, "down") for name in ("Checkout", "Support")]
    assert summary(WHOLE, findings=findings, failure=SourceUnavailableError("all down")).problems == ["all down"]


class TestCompleteness:
    """Two run tests are configured, and were complete yesterday."""

    settings = Settings.model_validate(
        {"run_tests": [{"name": "Checkout", "key": "checkout"}, {"name": "Support", "key": "support"}]}
    )
    yesterday = NOW - timedelta(days=1)

    def before(self, **changes: object) -> LastRun:
        known: dict[str, object] = {
            "scope": self.settings.scope,
            "complete_at": self.yesterday,
            "last_complete_at": {"checkout": self.yesterday, "support": self.yesterday},
        }
        return LastRun(**(known | changes))  # type: ignore[arg-type]

    def after(self, ended: Summary, before: LastRun | None = None, settings: Settings | None = None) -> LastRun:
        ended.carry_on(before or self.before(), settings or self.settings)
        return ended.completeness

    def test_complete_run_over_all_makes_all_complete_now(self) -> None:
        now = self.after(summary(WHOLE, OTHER))
        assert (now.complete_at, now.incomplete) == (END, ())
        assert now.last_complete_at == {"checkout": END, "support": END}

    def test_run_test_of_which_something_is_missing_stays_complete_as_of_before(self) -> None:
        alarm = [Finding(Kind.LIST_FAILED, "Support", "down")]
        now = self.after(summary(WHOLE, replace(OTHER, is_complete=False), findings=alarm))
        assert (now.complete_at, now.incomplete) == (self.yesterday, ("support",))
        assert now.last_complete_at == {"checkout": END, "support": self.yesterday}

    def test_narrowed_run_completes_its_run_test_and_never_all(self) -> None:
        before = self.before(incomplete=("checkout", "support"))
        now = self.after(summary(WHOLE), before, self.settings.only(["Checkout"]))
        assert (now.complete_at, now.incomplete) == (self.yesterday, ("support",))
        assert now.last_complete_at == {"checkout": END, "support": self.yesterday}

    def test_run_since_a_day_completes_nothing(self) -> None:
        now = self.after(summary(WHOLE, OTHER), settings=self.settings.only(since=NOW.date()))
        assert (now.complete_at, now.last_complete_at["checkout"]) == (self.yesterday, self.yesterday)

    def test_run_that_failed_completes_nothing_and_leaves_all_that_it_tried_incomplete(self) -> None:
        now = self.after(summary(WHOLE, replace(OTHER, is_complete=False), failure=KeyRefusedError("no")))
        assert (now.complete_at, now.incomplete) == (self.yesterday, ("checkout", "support"))

    def test_settings_that_say_something_else_were_never_complete(self) -> None:
        settings = Settings.model_validate({"run_tests": [{"name": "Checkout", "key": "checkout"}]})
        assert self.before().of(settings.scope).complete_at is None
        now = self.after(summary(WHOLE), settings=settings)
        assert (now.complete_at, now.last_complete_at) == (END, {"checkout": END})

    def test_of_all_run_tests_a_list_that_may_be_short_leaves_the_others_as_they_were(self) -> None:
        everything = Settings.model_validate({"run_tests": "all"})
        before = self.before(scope="all")
        short = summary(WHOLE, findings=[Finding(Kind.RUN_TESTS_UNKNOWN, "", "it kept changing")])
        now = self.after(short, before, everything)
        assert (now.complete_at, now.incomplete) == (self.yesterday, ("all",))
        assert now.last_complete_at == {"checkout": END, "support": self.yesterday}
        assert self.after(summary(WHOLE), now, everything).incomplete == ()
