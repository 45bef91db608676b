"""What a commit leaves behind: whole executions, in an order that survives any end, and nothing touched without need."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from etl.errors import DestinationError
from etl.extract.plan import Reason
from etl.load.commit import mark_deleted
from etl.load.layout import Part
from etl.load.state import load_state
from etl.model.lifecycle import ExportState
from etl.model.records import METRICS
from etl.transform.frames import ExportStamp
from tests.bundles import DAY, KEY, a_bundle, an_unlisted_bundle, dead_letter
from tests.datasets import (
    FETCHED_AT,
    a_dataset,
    assert_sound,
    contents,
    export_to,
    part,
    place,
    published,
    reasons,
    rows,
    stored_in,
)
from tests.load.killed import finished_after_each_kill, killed_before

SETTLING_AT = datetime(2026, 9, 1, 6, tzinfo=UTC)
TABLES = ["calls", "evals", "errors", "executions"]
NAME = KEY.title()


def counts(**changes):
    """What the receipt counts of a run test."""
    return dict.fromkeys(("inserted", "replaced", "marked", "emptied", "verified"), 0) | changes


def changed(bundle, **changes):
    return msgspec.structs.replace(bundle, **changes)


def identities(root):
    """What changes when a file is written again, be it with the same bytes."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*.parquet")
    }


def test_execution_rows_are_written_after_everything_that_they_vouch_for(dataset, monkeypatch):
    paths = published(monkeypatch)
    export_to(
        dataset,
        a_bundle("e2", ["c3", "c4"], given_up=["c4"], date="2026-09-02"),
        a_bundle("e9", ["c9"], given_up=["c9"], key="booking"),
        a_bundle("e1", ["c1", "c2"], given_up=["c2"]),
    )
    assert paths == [
        *(part(table, "booking") for table in TABLES if table != "calls"),
        *(part(table) for table in TABLES),
        *(part(table, date="2026-09-02") for table in TABLES),
    ]


def test_only_parts_that_change_are_written(dataset, tmp_path):
    days = ("2026-08-31", "2026-09-01")
    bundles = [a_bundle("e1", date=days[0]), a_bundle("e2", ["c3"], date=days[1]), a_bundle("e9", [], key="booking")]
    export_to(dataset, *bundles, fetched_at=SETTLING_AT)
    before = identities(tmp_path)
    later = a_bundle("e1", seconds=2.0, date=days[0])
    written, _ = export_to(dataset, later, *bundles[1:], run="run-2", fetched_at=SETTLING_AT + timedelta(hours=1))
    after = identities(tmp_path)
    paths = {path for path in after if after[path] != before[path]}
    assert paths == {part(table) for table in ("calls", "evals", "executions")}
    assert (written.files, written.size_bytes) == (3, sum(len(after[path][2]) for path in paths))
    assert written.rows == {"calls": 2, "evals": 2, "executions": 1}


def test_final_execution_that_is_fetched_again_unchanged_says_so_and_rewrites_no_data(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    before, later = identities(tmp_path), FETCHED_AT + timedelta(days=1)
    written, _ = export_to(dataset, a_bundle("e1"), run="run-2", fetched_at=later)
    after = identities(tmp_path)
    assert {path for path in after if after[path] != before[path]} == {part("executions")}
    assert rows(tmp_path, "executions", "verified_at", "exported_at", "export_run_id") == [(later, later, "run-2")]
    assert not any(written.rows.values())
    assert dataset.receipt.as_json()["executions"] == {KEY: counts(verified=1)}


def test_execution_that_the_list_cannot_give_keeps_its_aggregates_and_is_incomplete(dataset, tmp_path):
    whole = a_bundle("e1")
    whole.execution.payload["metrics"] = {"calls": {"total": 2}}
    export_to(dataset, whole)
    export_to(dataset, changed(a_bundle("e1", version=3), dead_letters=(dead_letter("e1"),)), run="run-2")
    assert rows(tmp_path, "executions", "total_calls", "calls_total", "export_state") == [(3, 2, "incomplete")]
    assert rows(tmp_path, "errors", "endpoint", "subject_id") == [(METRICS, "e1")]
    export_to(dataset, whole, run="run-3")
    assert rows(tmp_path, "executions", "calls_total", "export_state") == [(2, "settling")]
    assert rows(tmp_path, "errors") == []


def test_calls_without_their_execution_row_are_noticed_and_settle_once_more(dataset, tmp_path, monkeypatch):
    export_to(dataset, a_bundle("e1"))
    published(monkeypatch, failing="executions")
    with pytest.raises(DestinationError):
        export_to(dataset, a_bundle("e1", seconds=2.0))
    monkeypatch.undo()
    assert rows(tmp_path, "calls", "duration_seconds") == [(2.0,), (2.0,)]
    assert reasons(dataset, a_bundle("e1")) == {"e1": Reason.DAMAGED}
    export_to(dataset, a_bundle("e1", seconds=2.0))
    assert reasons(dataset, a_bundle("e1")) == {"e1": Reason.SETTLING}, "it is not what the row vouched for"
    export_to(dataset, a_bundle("e1", seconds=2.0), fetched_at=FETCHED_AT + timedelta(days=1))
    assert reasons(dataset, a_bundle("e1")) == {"e1": Reason.FINAL}


def test_execution_of_which_a_kept_row_is_gone_is_incomplete(dataset):
    bundle = a_bundle()
    _, arrived = export_to(dataset, changed(bundle, calls=bundle.calls[1:], kept=frozenset(["c1"])))
    assert arrived[NAME].without_rows == {"e1"}
    assert stored_in(dataset)["e1"].export_state == ExportState.INCOMPLETE


def test_execution_whose_calls_were_not_listed_keeps_all_its_old_rows(dataset, tmp_path):
    """What is kept of an incomplete one was fetched since its list failed, so the rows of before it do not count."""
    later = FETCHED_AT + timedelta(days=1)
    for bundle, state, verified_at, letters in (
        (an_unlisted_bundle("e1", is_given_up=True), "incomplete", later, [("/sdk/api/v1/simulation/runs/", "e1")]),
        (an_unlisted_bundle("e1", status="running"), "waiting", FETCHED_AT, []),
    ):
        export_to(dataset, a_bundle("e1"))
        before = contents(tmp_path)
        export_to(dataset, bundle, run="run-2", fetched_at=later)
        after = contents(tmp_path)
        assert (after["calls"], after["evals"]) == (before["calls"], before["evals"])
        assert rows(tmp_path, "executions", "export_state", "listed_calls", "exported_calls", "verified_at") == [
            (state, 2, 2, verified_at)
        ]
        assert rows(tmp_path, "errors", "endpoint", "subject_id") == letters


def test_what_arrived_is_told_by_run_test(dataset):
    mine, other = a_bundle("e1", given_up=["c2"]), a_bundle("e9", ["c2", "c9"], given_up=["c2"], key="booking")
    _, arrived = export_to(dataset, mine, a_bundle("e2", ["c3"], date="2026-09-02"), other)
    assert {name: (share.rows, share.dead_letters, share.misfits) for name, share in arrived.items()} == {
        NAME: ({"executions": 2, "calls": 2, "evals": 3}, {"e1": mine.dead_letters, "e2": ()}, 0),
        "Booking": ({"executions": 1, "calls": 1, "evals": 2}, {"e9": other.dead_letters}, 0),
    }


@pytest.mark.parametrize("table", ["calls", "evals"])
def test_execution_row_is_of_the_run_that_wrote_a_row_of_its_calls_though_it_says_the_same(dataset, tmp_path, table):
    """Whoever follows the execution rows would not see otherwise that a file was lost and its rows were fetched again."""
    bundles = [a_bundle("e1", date="2026-08-31"), a_bundle("e2", ["c3"], date="2026-09-01")]
    export_to(dataset, *bundles, fetched_at=SETTLING_AT)
    before = rows(tmp_path, "executions")
    (tmp_path / part(table, date="2026-08-31")).unlink()
    export_to(dataset, *bundles, run="run-2", fetched_at=SETTLING_AT + timedelta(hours=1))
    assert rows(tmp_path, "executions") == before
    assert rows(tmp_path, "executions", "export_run_id") == [("run-2",), ("run-1",)]
    assert {*rows(tmp_path, table, "export_run_id")[:2]} == {("run-2",)}
    other = ({"calls", "evals"} - {table}).pop()
    assert {*rows(tmp_path, other, "export_run_id")} == {("run-1",)}


LATER = "2026-09-02"
DELETED = {"e1": Part(KEY, place()), "e3": Part(KEY, place(LATER))}
STAMP = ExportStamp("run-2", FETCHED_AT + timedelta(days=1))


@pytest.fixture
def two_months(tmp_path):
    """Two executions in each of two months, with a dead letter each."""
    dataset = a_dataset(tmp_path / "data")
    for number, date in enumerate([DAY, DAY, LATER, LATER], 1):
        calls = [f"c{number}", f"d{number}"]
        export_to(dataset, a_bundle(f"e{number}", calls, given_up=calls[1:], date=date))
    return dataset


def test_deleted_executions_are_marked_with_calls_and_evals_and_vouch_for_that(two_months, monkeypatch):
    before, paths = assert_sound(two_months.files.root), published(monkeypatch)
    assert mark_deleted(two_months, DELETED, STAMP) == 2
    assert paths == [part(table, date=date) for date in (DAY, LATER) for table in TABLES]
    now = assert_sound(two_months.files.root)
    for table in ("executions", "calls", "evals"):
        for key, row in before[table].items():
            mark = STAMP.columns | {"deleted_at": STAMP.exported_at} if row["execution_id"] in DELETED else {}
            told = {"calls_digest", "exported_calls"} if mark else set()
            assert {name: value for name, value in now[table][key].items() if name not in told} == {
                name: value for name, value in (row | mark).items() if name not in told
            }
    assert now["errors"] == {key: row for key, row in before["errors"].items() if row["execution_id"] not in DELETED}
    assert {row["exported_calls"] for (key,), row in now["executions"].items() if key in DELETED} == {0}
    assert not any(each.is_damaged for each in stored_in(two_months).values())
    assert +two_months.written.marked == {"calls": 2, "evals": 4}
    assert two_months.receipt.as_json()["executions"][KEY]["marked"] == 2
    paths.clear()
    assert mark_deleted(two_months, DELETED, ExportStamp("run-3", FETCHED_AT + timedelta(days=2))) == 0
    assert paths == []


def test_whenever_marking_is_killed_the_next_run_completes_it(two_months, tmp_path):
    found = []
    root = two_months.files.root
    for each in finished_after_each_kill(root, tmp_path, lambda each: mark_deleted(each, DELETED, STAMP)):
        found.append(assert_sound(Path(each.files.where())))
        state = load_state(each, set_aside=False)
        assert not any(stored.is_damaged or not stored.has_row for stored in state.executions.values())
        assert state.half_deleted == set()
    assert all(rows_of == found[-1] for rows_of in found), "the last one was not killed"


def test_rows_without_an_execution_are_marked_until_no_look_up_is_due(two_months):
    """A run was killed before the execution row, and the source deleted it since."""
    with killed_before(3):
        export_to(two_months, a_bundle("e5", ["c5", "d5"], given_up=["d5"]))
    assert stored_in(two_months)["e5"].deleted_at is None
    assert mark_deleted(two_months, {"e5": Part(KEY, place())}, STAMP) == 0
    assert stored_in(two_months)["e5"].deleted_at == STAMP.exported_at


def test_damaged_execution_vouches_for_what_is_left_of_it_once_it_is_marked(two_months):
    """Nobody can fetch again what the source has no more."""
    (two_months.files.root / part("calls")).unlink()
    assert stored_in(two_months)["e1"].is_damaged
    mark_deleted(two_months, DELETED, STAMP)
    stored = stored_in(two_months)
    assert (stored["e1"].is_damaged, stored["e2"].is_damaged) == (False, True)
