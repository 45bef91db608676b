"""When an execution is final: late enough after its end, with every call finished and nothing missing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from etl.model.digest import fingerprint
from etl.model.lifecycle import (
    TERMINAL_CALL,
    TERMINAL_EXECUTION,
    Arrival,
    ExportState,
    HeldRows,
    Settlement,
    export_state,
)
from tests.bundles import bundle_of, dead_letter, execution, fetched_call, not_listed, stored_of

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
UNFINISHED = ["pending", "running", "cancelling", "evaluating", "paused", "Completed", ""]
FINISHED = ["completed", "failed", "cancelled"]


def test_only_three_words_mean_that_an_execution_or_a_call_has_finished():
    assert set(FINISHED) == TERMINAL_EXECUTION == TERMINAL_CALL


def state(bundle, settle_hours=24.0, known=None, digest="digest", *, is_late=False, behind=timedelta(0)):
    arrival = Arrival(
        held=HeldRows(listed_calls=2, exported_calls=2, calls_digest=digest),
        call_statuses={call.metrics.status for call in bundle.calls} if bundle.listed is not None else None,
        is_whole=not bundle.dead_letters,
    )
    late = {bundle.execution.execution_id} if is_late else ()
    settlement = Settlement(fetched_at=NOW, now=NOW - behind, settle_hours=settle_hours, late=late)
    return export_state(bundle.execution, known, arrival, settlement)


def finished(hours_ago, total_calls=1, **payload):
    return execution(completed_at=(NOW - timedelta(hours=hours_ago)).isoformat(), total_calls=total_calls, **payload)


@pytest.mark.parametrize(
    ("hours_ago", "settle_hours", "expected"),
    [
        (24, 24, ExportState.EXPORTED),
        (23.999, 24, ExportState.SETTLING),
        (24.001, 24, ExportState.EXPORTED),
        (0, 0, ExportState.EXPORTED),
        (-0.001, 0, ExportState.SETTLING),
        (-1, 24, ExportState.SETTLING),
        (0.5, 0.5, ExportState.EXPORTED),
    ],
)
def test_execution_is_exported_once_it_was_fetched_late_enough_after_its_end(hours_ago, settle_hours, expected):
    assert state(bundle_of(fetched_call(), of=finished(hours_ago)), settle_hours) is expected


@pytest.mark.parametrize("status", UNFINISHED)
def test_execution_that_has_not_finished_is_never_exported(status):
    assert state(bundle_of(fetched_call(), of=finished(48, status=status))) is ExportState.SETTLING


@pytest.mark.parametrize("status", ["pending", "queued", "ongoing", "analyzing", "a new word", ""])
def test_execution_with_a_call_that_has_not_finished_is_never_exported(status):
    bundle = bundle_of(fetched_call("a"), fetched_call("b", status=status), of=finished(48))
    assert state(bundle) is ExportState.SETTLING


def test_times_that_have_not_come_yet_are_unknown():
    stored = stored_of(execution(), verified_at=NOW + timedelta(days=1), exported_at=NOW - timedelta(days=1))
    assert stored.as_of(NOW) == replace(stored, verified_at=None)
    assert stored.as_of(NOW - timedelta(days=2)) == replace(stored, verified_at=None, exported_at=None)
    assert stored.as_of(NOW + timedelta(days=1) - timedelta(minutes=5)) is stored, "two right clocks are never equal"


def test_execution_without_calls_is_exported_all_the_same():
    assert state(bundle_of(of=finished(48, total_calls=0))) is ExportState.EXPORTED


def test_one_dead_letter_makes_it_incomplete():
    assert (
        state(bundle_of(fetched_call("a"), of=finished(48), dead_letters=(dead_letter("b"),))) is ExportState.INCOMPLETE
    )


def test_execution_whose_calls_were_not_asked_for_waits():
    assert state(not_listed(execution(status="running"))) is ExportState.WAITING


def test_execution_whose_calls_could_not_be_listed_is_incomplete():
    assert state(not_listed(finished(48), (dead_letter("execution"),))) is ExportState.INCOMPLETE


@pytest.mark.parametrize("completed_at", [None, "soon", 7])
def test_execution_whose_end_cannot_be_read_settles_from_when_it_changed_last(completed_at):
    """It may have been cancelled just now, however long ago it was started."""
    of = execution(started_at="2026-01-01T00:00:00Z", completed_at=completed_at, total_calls=0)
    for seen_hours_ago, expected in ((21.6, ExportState.EXPORTED), (21.5, ExportState.SETTLING)):
        known = stored_of(of, export_state="settling", verified_at=NOW - timedelta(hours=seen_hours_ago))
        assert state(bundle_of(of=of), known=known) is expected
    assert state(bundle_of(of=of)) is ExportState.SETTLING
    assert state(bundle_of(of=of), settle_hours=0) is ExportState.EXPORTED
    assert (
        state(bundle_of(of=of), known=stored_of(of, export_state="settling", verified_at=None)) is ExportState.SETTLING
    )
    assert state(bundle_of(of=of), known=stored_of(of, exported_at=NOW)) is ExportState.EXPORTED, (
        "it had settled before"
    )
    changed = stored_of(of, fingerprint="another", verified_at=NOW - timedelta(hours=48))
    assert state(bundle_of(of=of), known=changed, digest="another") is ExportState.SETTLING


LONG_AGO = NOW - timedelta(days=9)


@pytest.mark.parametrize(
    ("known", "digest"),
    [
        ({"export_state": "waiting", "fingerprint": "another"}, "digest"),
        ({"export_state": "exported", "fingerprint": "another"}, "another"),
        ({"export_state": "exported", "fingerprint": "another", "verified_at": LONG_AGO}, "digest"),
        ({"export_state": "exported", "verified_at": LONG_AGO}, "another"),
        ({"export_state": "settling", "fingerprint": "another", "verified_at": LONG_AGO}, "digest"),
        (None, "digest"),
        ({"export_state": "incomplete", "verified_at": NOW - timedelta(hours=3)}, "digest"),
        ({"export_state": "incomplete", "verified_at": LONG_AGO}, "digest"),
    ],
    ids=[
        "was waiting",
        "ran again",
        "was final, and counts something that its calls do not show",
        "was final and lacks something",
        "changed while it settled",
        "appeared",
        "appeared and was incomplete",
        "was not believed, and is accepted",
    ],
)
def test_execution_that_was_seen_otherwise_before_settles_from_now_however_long_ago_it_ended(known, digest):
    """A rerun keeps the old end, and an execution may be stored long after it."""
    of = finished(240)
    stored = stored_of(of, **known) if known else None
    seen = state(bundle_of(of=of), known=stored, digest=digest, is_late=True)
    assert seen is ExportState.SETTLING
    without_settling = state(bundle_of(of=of), settle_hours=0, known=stored, digest=digest, is_late=True)
    is_listed_as_before = stored is not None and stored.was_whole and stored.fingerprint == fingerprint(of.payload)
    assert without_settling is (ExportState.SETTLING if is_listed_as_before else ExportState.EXPORTED)


@pytest.mark.parametrize(("hours", "expected"), [(21.5, ExportState.SETTLING), (23.9, ExportState.EXPORTED)])
def test_execution_is_final_once_it_was_compared_late_enough_after_it_was_first_seen_so(hours, expected):
    """A night may begin a little earlier than the one before."""
    of = finished(240)
    known = stored_of(of, export_state="settling", verified_at=NOW - timedelta(hours=hours))
    assert state(bundle_of(of=of), known=known) is expected


@pytest.mark.parametrize("of", [finished(72), finished(2400), execution(), execution(started_at=None)])
def test_execution_is_final_when_a_comparison_finds_no_change(of):
    """Its list may lack something for one night, however old it is and whenever it was seen first."""
    for verified_hours_ago in (65, 47, 24):
        known = stored_of(of, export_state="settling", verified_at=NOW - timedelta(hours=verified_hours_ago))
        assert state(bundle_of(of=of), known=known, digest="another") is ExportState.SETTLING
        assert state(bundle_of(of=of), known=known) is ExportState.EXPORTED


def test_execution_that_has_settled_does_not_begin_anew_when_its_calls_are_the_same():
    of = finished(240)
    assert state(bundle_of(of=of), known=stored_of(of, verified_at=NOW), is_late=True) is ExportState.EXPORTED


def test_execution_settles_by_the_clock_that_is_behind():
    """The source's may be ahead for one run, and ours, too."""
    for of in (finished(30), execution()):
        known = stored_of(of, export_state="settling", verified_at=NOW - timedelta(hours=25))
        for hours, expected in ((0, ExportState.EXPORTED), (28, ExportState.SETTLING)):
            assert state(bundle_of(of=of), known=known, behind=timedelta(hours=hours)) is expected
    assert state(bundle_of(of=finished(30)), behind=timedelta(hours=28)) is ExportState.SETTLING


def test_execution_of_a_first_export_settles_from_its_end_alone():
    assert state(bundle_of(fetched_call(), of=finished(240))) is ExportState.EXPORTED


@pytest.mark.parametrize("total_calls", [3, None])
def test_execution_that_counts_more_calls_than_a_first_export_saw_or_none_is_looked_at_once_more(total_calls):
    """A list may lack some for a night; deleted ones are counted for ever."""
    of = finished(240, total_calls=total_calls)
    for settle_hours in (0, 24):
        assert state(bundle_of(of=of), settle_hours=settle_hours) is ExportState.SETTLING
    known = stored_of(of, export_state="settling", verified_at=NOW - timedelta(hours=24))
    assert state(bundle_of(of=of), known=known) is ExportState.EXPORTED


def test_end_that_has_not_come_yet_is_unknown():
    of = finished(-1_000_000)
    assert state(bundle_of(of=of)) is ExportState.SETTLING
    known = stored_of(of, export_state="settling", verified_at=NOW - timedelta(hours=24))
    assert state(bundle_of(of=of), known=known) is ExportState.EXPORTED
    just_now = finished(-0.08)
    known = stored_of(just_now, export_state="settling", verified_at=NOW - timedelta(hours=24))
    assert state(bundle_of(of=just_now), known=known) is ExportState.SETTLING, "two right clocks are never equal"


@pytest.mark.parametrize(
    ("hours_since_the_last_change", "digest", "expected"),
    [
        (24, "digest", ExportState.EXPORTED),
        (23.9, "digest", ExportState.SETTLING),
        (48, "another", ExportState.SETTLING),
    ],
)
def test_calls_that_never_end_count_as_ended_when_nothing_has_changed_for_long(
    hours_since_the_last_change, digest, expected
):
    cancelled = finished(100, status="cancelled")
    known = stored_of(
        cancelled,
        export_state="settling",
        exported_at=NOW - timedelta(hours=hours_since_the_last_change),
        verified_at=NOW - timedelta(hours=hours_since_the_last_change),
    )
    bundle = bundle_of(fetched_call("a"), fetched_call("b", status="pending"), of=cancelled)
    assert state(bundle, known=known, digest=digest) is expected
    assert state(bundle, known=known, digest=digest, behind=timedelta(hours=30)) is ExportState.SETTLING


def test_calls_that_ended_without_an_end_have_ended_however_young_their_row_is():
    """A scrub that finds nothing new makes it younger each night."""
    cancelled = finished(100, status="cancelled")
    known = stored_of(cancelled, export_state="exported", exported_at=NOW - timedelta(hours=1))
    bundle = bundle_of(fetched_call("a"), fetched_call("b", status="pending"), of=cancelled)
    assert state(bundle, known=known) is ExportState.EXPORTED
    assert state(bundle, known=known, digest="other") is ExportState.SETTLING


def test_calls_without_an_end_of_an_execution_that_changed_have_not_ended():
    known = stored_of(execution(status="cancelled"), export_state="settling", exported_at=NOW - timedelta(hours=48))
    bundle = bundle_of(fetched_call(status="pending"), of=finished(100, status="cancelled"))
    assert state(bundle, known=known) is ExportState.SETTLING
