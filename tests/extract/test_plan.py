"""Which executions a run fetches, and why: one rule, one reason."""

from datetime import UTC, datetime

import pytest

from etl.extract.plan import Reason, Route
from etl.model.lifecycle import HeldRows
from tests.bundles import dead_letter, execution, plan_of, stored_of

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)


def plan(listed, stored=None, **options):
    return plan_of([listed], {listed.execution_id: stored} if stored else {}, **options)


def reason(listed, stored=None, **options):
    return plan(listed, stored, **options)[0].reason


DAMAGED = HeldRows(listed_calls=2, exported_calls=1, calls_digest="another digest")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Reason.FINAL),
        ({"fingerprint": "another"}, Reason.CHANGED),
        ({"held": DAMAGED}, Reason.DAMAGED),
        ({"calls_digest": "another digest"}, Reason.DAMAGED),
        ({"has_newer_rows": True}, Reason.DAMAGED),
        ({"export_state": "settling"}, Reason.SETTLING),
        ({"export_state": "a state of a later version"}, Reason.SETTLING),
        ({"export_state": "incomplete"}, Reason.INCOMPLETE),
        ({"export_state": "forgotten", "fingerprint": ""}, Reason.FORGOTTEN),
        ({"has_letters": True}, Reason.INCOMPLETE),
        ({"export_state": "waiting"}, Reason.CHANGED),
        ({"export_state": "incomplete", "fingerprint": "another"}, Reason.INCOMPLETE),
        ({"export_state": "settling", "fingerprint": "another"}, Reason.CHANGED),
        ({"export_state": "settling", "held": DAMAGED}, Reason.DAMAGED),
        ({"fingerprint": "another", "held": DAMAGED}, Reason.CHANGED),
        ({"fingerprint": ""}, Reason.CHANGED),
        ({"verified_at": None}, Reason.FINAL),
        ({"deleted_at": NOW}, Reason.CHANGED),
    ],
)
def test_finished_execution_is_fetched_unless_it_is_exported_and_unchanged(changes, expected):
    listed = execution()
    [item] = plan(listed, stored_of(listed, **changes))
    assert item.reason is expected
    assert item.is_fetched is (expected not in (Reason.FINAL, Reason.FORGOTTEN))


def test_final_execution_is_swept_when_its_turn_has_come_and_compared_if_it_is_intact():
    listed = execution()
    swept = {"swept": {"execution": ""}, "settle_by_detail": True}
    [item] = plan(listed, stored_of(listed), **swept)
    assert (item.reason, item.route, item.may_wait, item.requests(16)) == (Reason.SWEEP, Route.COMPARE, True, 2)
    empty = stored_of(listed, held=HeldRows(0, 0, "digest"))
    assert plan(listed, empty, **swept)[0].route is Route.WHOLE
    assert plan(listed, stored_of(listed), swept={"execution": ""})[0].route is Route.BARE
    assert plan(listed, stored_of(listed), **swept, detail_suffices=True)[0].route is Route.LISTS_COMPARED
    assert reason(listed, stored_of(listed, export_state="settling"), **swept) is Reason.SETTLING
    assert reason(listed, stored_of(listed), **swept, full_refresh=True) is Reason.REQUESTED


@pytest.mark.parametrize(
    ("changes", "by_detail", "by_refetch"),
    [
        ({"export_state": "incomplete"}, Route.RESUME_COMPARED, Route.RESUME),
        ({"export_state": "incomplete", "fingerprint": "another"}, Route.COMPARE, Route.BARE),
        ({"export_state": "settling"}, Route.COMPARE, Route.BARE),
        ({"export_state": "settling", "has_letters": True}, Route.COMPARE, Route.BARE),
        ({"fingerprint": "another"}, Route.COMPARE, Route.BARE),
        ({}, Route.BARE, Route.BARE),
        ({"export_state": "waiting"}, Route.WHOLE, Route.BARE),
        ({"export_state": "incomplete", "calls_digest": "another digest"}, Route.WHOLE, Route.BARE),
        ({"export_state": "incomplete", "deleted_at": NOW}, Route.WHOLE, Route.BARE),
        ({"export_state": "incomplete", "held": HeldRows(2, 0, "digest")}, Route.WHOLE, Route.BARE),
        ({"held": HeldRows(2, 2, "digest", detail_calls=1)}, Route.COMPARE, Route.BARE),
        ({"export_state": "listed"}, Route.RESUME_COMPARED, Route.RESUME),
    ],
)
def test_stored_calls_stay_where_they_are_as_they_were_exported(changes, by_detail, by_refetch):
    """Those of an execution that was left incomplete, and is listed as it was then, without a comparison."""
    listed = execution()
    stored = stored_of(listed, **changes)
    assert plan(listed, stored, settle_by_detail=True)[0].route is by_detail
    assert plan(listed, stored)[0].route is by_refetch
    assert plan(listed, stored, settle_by_detail=True, full_refresh=True)[0].route is Route.WHOLE
    assert plan(listed, stored, full_refresh=True)[0].route is Route.BARE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"export_state": "settling"}, Route.LISTS_COMPARED),
        ({"fingerprint": "another"}, Route.LISTS_COMPARED),
        ({"export_state": "incomplete"}, Route.LISTS_COMPARED),
        ({"calls_digest": "another digest"}, Route.LISTS),
        ({"export_state": "waiting"}, Route.LISTS),
    ],
)
def test_rows_are_made_of_lists_where_these_suffice(changes, expected):
    listed = execution()
    stored = stored_of(listed, **changes)
    assert plan(listed, stored, settle_by_detail=True, detail_suffices=True)[0].route is expected
    assert plan(listed, detail_suffices=True)[0].route is Route.LISTS
    assert plan(listed, stored, detail_suffices=True, full_refresh=True)[0].route is Route.WHOLE


@pytest.mark.parametrize(
    ("payload", "listed_calls", "expected"),
    [
        ({"metrics": {"calls": {"total": 7}}, "total_calls": 5}, 3, 7),
        ({"metrics": {"calls": {"total": 0}}, "total_calls": 5}, 3, 0),
        ({"metrics": {"calls": {"total": None}}, "total_calls": 5}, 3, 5),
        ({"metrics": {"calls": {"total": -1}}, "total_calls": True}, 3, 3),
        ({"metrics": {"calls": []}, "total_calls": "5"}, 3, 5),
        ({"metrics": {"calls": []}, "total_calls": "many"}, 3, 3),
        ({"metrics": [], "total_calls": 2.5}, None, 0),
        ({}, 3, 3),
        ({}, None, 0),
    ],
)
def test_calls_are_estimated_from_the_freshest_number(payload, listed_calls, expected):
    listed = execution(**payload)
    stored = stored_of(listed, held=HeldRows(listed_calls=listed_calls, exported_calls=0, calls_digest="digest"))
    assert plan(listed, stored)[0].estimated_calls == expected


LETTER = dead_letter("execution")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Reason.INCOMPLETE),
        ({"export_state": "settling"}, Reason.INCOMPLETE),
        ({"fingerprint": "another"}, Reason.INCOMPLETE),
        ({"held": DAMAGED}, Reason.DAMAGED),
    ],
)
def test_execution_of_which_only_the_head_is_known_is_never_taken_for_final(changes, expected):
    listed = execution()
    [item] = plan(listed, stored_of(listed, **changes), heads={"execution": LETTER})
    assert (item.reason, item.unreadable) == (expected, LETTER)
    assert plan(listed, heads={"execution": LETTER})[0].reason is Reason.NEW
    assert plan(execution(status="running"), heads={"execution": LETTER})[0].reason is Reason.WAITING
