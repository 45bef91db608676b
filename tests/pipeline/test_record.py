"""What the commits of a run say of a run test, as one sum."""

from collections import Counter
from datetime import UTC, datetime

from etl.dataset.commit import Arrived
from etl.errors import SourceError
from etl.model.findings import Kind
from etl.model.records import METRICS, DeadLetter
from etl.pipeline.record import Record
from etl.settings import RunTest


def test_all_commits_of_a_run_test_add_up_and_a_dead_letter_that_two_of_them_tell_counts_once() -> None:
    letter = DeadLetter.of(METRICS, "call", SourceError("gone"))
    first = Arrived(rows=Counter(executions=1, calls=2), misfits=1, dead_letters={"e1": (letter,)}, without_rows={"e2"})
    second = Arrived(Counter(calls=1), 2, {"e1": (letter,)}, unknown_statuses=Counter(paused=1))
    record = Record((RunTest.model_validate("Checkout"),))
    for arrived in (first, second):
        record.note_arrival({"Checkout": arrived})
    (summary,) = record.run_test_summaries(is_cut_short=False, settled_before=datetime(2026, 1, 1, tzinfo=UTC))

    assert (summary.executions, summary.calls, summary.misfits, summary.dead_letters) == (1, 3, 3, 1)
    assert [each.kind for each in record.findings] == [Kind.DEAD_LETTER, Kind.NOT_FETCHED, Kind.NEW_STATUS]


def test_no_run_test_counts_as_complete_in_a_run_that_ended_early() -> None:
    record = Record((RunTest.model_validate("Checkout"),))
    record.planned["Checkout"] = []
    for is_early in (False, True):
        (summary,) = record.run_test_summaries(is_cut_short=is_early, settled_before=datetime(2026, 1, 1, tzinfo=UTC))
        assert summary.is_complete is not is_early
