"""Nothing is skipped without proof, and nothing that was listed is forgotten."""

from datetime import UTC, date, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from etl.extract.plan import Policy, Reason, order_by_worth, says_nothing_new
from etl.model.digest import fingerprint
from etl.model.lifecycle import LONG_AGO, TERMINAL_EXECUTION, HeldRows, StoredExecution
from etl.model.records import Execution
from etl.model.values import timestamp_or_none
from tests.bundles import plan_of
from tests.strategies import any_text, json_values, scalars, times
from tests.support import examples

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
statuses = st.sampled_from(["completed", "completed", "failed", "cancelled", "running", "paused"]) | any_text
digests = st.sampled_from(["one", "other"])
counts = st.integers(-1, 9) | scalars
payloads = st.fixed_dictionaries(
    {},
    optional={
        "metrics": st.fixed_dictionaries({"calls": st.fixed_dictionaries({"total": counts}) | scalars}) | json_values,
        "total_calls": counts,
        "note": json_values,
    },
)


def _listed(execution_id, status, payload, started_at):
    fields = {**payload, "execution_id": execution_id, "status": status, "started_at": started_at}
    return Execution(execution_id=execution_id, status=status, payload=fields)


listings = st.lists(
    st.builds(
        _listed,
        st.sampled_from([f"e{number}" for number in range(6)]),
        statuses,
        payloads,
        times | st.sampled_from(["2026-03-01T00:00:00Z", "2026-02-28T23:59:59Z"]) | json_values,
    ),
    max_size=6,
    unique_by=lambda execution: execution.execution_id,
)


@st.composite
def cases(draw):
    """Listed executions, and what the dataset holds of some of them, current or not."""
    listed = draw(listings)
    stored = {}
    for execution in listed:
        if draw(st.booleans()):
            held = HeldRows(
                listed_calls=draw(st.none() | st.integers(0, 9)), exported_calls=1, calls_digest=draw(digests)
            )
            stored[execution.execution_id] = StoredExecution(
                run_test_key=draw(st.sampled_from(["checkout", "elsewhere"])),
                place="month=2026-03/part-0",
                export_state=draw(
                    st.sampled_from(["exported", "exported", "settling", "waiting", "incomplete", "new word"])
                ),
                fingerprint=draw(st.sampled_from([fingerprint(execution.payload), "another"])),
                calls_digest=draw(digests),
                exported_calls=1,
                held=held,
                deleted_at=draw(st.none() | st.none() | st.just(NOW)),
                has_letters=draw(st.booleans()),
                has_newer_rows=draw(st.booleans()),
            )
    return listed, stored


@settings(max_examples=examples(120))
@given(cases(), st.booleans(), st.booleans())
def test_final_is_only_what_is_exported_with_equal_fingerprint_and_equal_digest(case, fetch_unfinished, full_refresh):
    listed, stored = case
    for item in plan_of(listed, stored, fetch_unfinished=fetch_unfinished, full_refresh=full_refresh):
        known = stored.get(item.execution.execution_id)
        is_proved = (
            known is not None
            and known.export_state == "exported"
            and known.deleted_at is None
            and not known.has_letters
            and known.fingerprint == fingerprint(item.execution.unpack().payload)
            and not known.is_damaged
        )
        is_finished = item.execution.status in TERMINAL_EXECUTION
        assert (item.reason is Reason.FINAL) is (is_proved and is_finished and not full_refresh)
        assert item.run_test_key == (known.run_test_key if known else "checkout"), "an execution stays where it is"
        policy = Policy(fetch_unfinished=fetch_unfinished, full_refresh=full_refresh)
        gives_nothing = item.reason is Reason.FINAL or (item.reason is Reason.WAITING and item.is_waiting_row_current)
        assert says_nothing_new(item.execution, known, policy) is gives_nothing, "only then its payload may be dropped"
        assert item.is_fetched is ((is_finished or fetch_unfinished) and item.reason is not Reason.FINAL)


@settings(max_examples=examples(120))
@given(cases(), st.none() | st.dates(max_value=date(2026, 11, 1)) | st.just(date(2026, 3, 1)))
def test_every_listed_execution_since_the_date_is_planned_exactly_once(case, since):
    """And an older one of which something is missing, or that is marked as deleted."""
    listed, stored = case
    in_part = {
        key
        for key, known in stored.items()
        if known.export_state == "incomplete" or known.has_letters or known.is_damaged or known.deleted_at
    }
    expected = [
        execution.execution_id
        for execution in listed
        if since is None
        or (started_at := timestamp_or_none(execution.payload["started_at"])) is None
        or started_at.date() >= since
        or execution.execution_id in in_part
    ]
    planned = plan_of(listed, stored, since=since)
    assert [item.execution.execution_id for item in planned] == expected
    assert sorted(item.execution.execution_id for item in order_by_worth(planned)) == sorted(expected)


@settings(max_examples=examples(120))
@given(cases())
def test_what_is_fetched_stands_before_what_is_not_and_what_settles_after_what_is_new_the_newest_first(case):
    last = [Reason.INCOMPLETE, Reason.SETTLING, Reason.UNFINISHED, Reason.SWEEP, Reason.WAITING, Reason.FINAL]
    ordered = [
        (last.index(item.reason) + 1 if item.reason in last else 0, NOW - (item.execution.started_at or LONG_AGO))
        for item in order_by_worth(plan_of(*case))
    ]
    assert ordered == sorted(ordered)
