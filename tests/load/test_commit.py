"""What a commit leaves behind: whole executions, in an order that survives any end, and nothing touched without need."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from etl.errors import DestinationError, SchemaError
from etl.extract.plan import Reason
from etl.model.lifecycle import ExportState
from etl.model.records import METRICS
from tests.bundles import KEY, a_bundle, an_unlisted_bundle, dead_letter
from tests.datasets import (
    FETCHED_AT,
    a_dataset,
    assert_sound,
    contents,
    export_to,
    part,
    published,
    reasons,
    rows,
    stored_in,
    wrong_schemas,
)

SETTLING_AT = datetime(2026, 9, 1, 6, tzinfo=UTC)
TABLES = ["calls", "evals", "errors", "executions"]
COUNTS = dict.fromkeys(("inserted", "replaced", "moved", "marked", "emptied", "verified"), 0)
"""What the receipt counts of a run test."""


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


def test_a_commit_that_changes_nothing_writes_nothing(dataset, tmp_path):
    days = ("2026-08-31", "2026-09-01")
    bundles = [a_bundle("e1", date=days[0]), a_bundle("e2", ["c3"], date=days[1]), a_bundle("e3", [], date=days[0])]
    export_to(dataset, *bundles, fetched_at=SETTLING_AT)
    before = identities(tmp_path)
    written, _ = export_to(dataset, *bundles, run="run-2", fetched_at=SETTLING_AT + timedelta(hours=1))
    assert identities(tmp_path) == before
    assert (written.files, written.size_bytes, written.rows) == (0, 0, {})


def test_final_execution_that_is_fetched_again_unchanged_says_so_and_rewrites_no_data(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    before, later = identities(tmp_path), FETCHED_AT + timedelta(days=1)
    written, _ = export_to(dataset, a_bundle("e1"), run="run-2", fetched_at=later)
    after = identities(tmp_path)
    assert {path for path in after if after[path] != before[path]} == {part("executions")}
    assert rows(tmp_path, "executions", "verified_at", "exported_at", "export_run_id") == [(later, later, "run-2")]
    assert written.rows == {"executions": 0}
    assert dataset.receipt.as_json()["executions"] == {KEY: COUNTS | {"verified": 1}}


def test_execution_that_the_list_cannot_give_keeps_its_aggregates_and_is_incomplete(dataset, tmp_path):
    whole = a_bundle("e1")
    whole.execution.payload["metrics"] = {"calls": {"total": 2}}
    export_to(dataset, whole)
    letters = (dead_letter("e1"),)
    export_to(dataset, msgspec.structs.replace(a_bundle("e1", version=3), dead_letters=letters), run="run-2")
    assert rows(tmp_path, "executions", "total_calls", "calls_total", "export_state") == [(3, 2, "incomplete")]
    assert rows(tmp_path, "errors", "endpoint", "subject_id") == [(METRICS, "e1")]
    export_to(dataset, msgspec.structs.replace(a_bundle("e1", ["c1"], version=3), dead_letters=letters), run="run-3")
    assert len(rows(tmp_path, "calls")) == 1, "the list of its calls is proved all the same"
    export_to(dataset, whole, run="run-4")
    assert rows(tmp_path, "executions", "calls_total", "export_state") == [(2, "settling")]
    assert rows(tmp_path, "errors") == []


def test_only_partitions_that_change_are_written(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"], date="2026-09-02"), a_bundle("e9", ["c9"], key="booking"))
    before = identities(tmp_path)
    written, _ = export_to(
        dataset,
        a_bundle("e1", seconds=2.0),
        a_bundle("e2", ["c3"], date="2026-09-02"),
        a_bundle("e9", ["c9"], key="booking"),
        run="run-2",
    )
    after = identities(tmp_path)
    changed = {path for path in after if after[path] != before[path]}
    assert changed == {part("calls"), part("evals"), part("executions")}
    assert written.files == 3
    assert written.size_bytes == sum(len(after[path][2]) for path in changed)


def test_a_row_that_did_not_change_keeps_its_version_beside_one_that_did(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]))
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"], seconds=2.0), run="run-2")
    assert rows(tmp_path, "calls", "call_execution_id", "duration_seconds", "export_run_id") == [
        ("c1", 1.0, "run-1"),
        ("c2", 1.0, "run-1"),
        ("c3", 2.0, "run-2"),
    ]


def test_executions_that_are_not_in_a_commit_stay_as_they_are(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]))
    alone = contents(tmp_path)
    export_to(dataset, a_bundle("e3", ["c4"]))
    for table in ("executions", "calls", "evals"):
        assert set(alone[table]) < set(contents(tmp_path)[table])


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_commit_that_fails_at_any_table_is_completed_by_the_next(tmp_path, monkeypatch, table, is_first):
    dataset, whole = a_dataset(tmp_path / "data"), a_dataset(tmp_path / "whole")
    old = a_bundle("e1", given_up=["c2"])
    new = a_bundle("e1", ["c2", "c3", "c4"], seconds=2.0, given_up=["c4"], version=2)
    for each in [whole] if is_first else [dataset, whole]:
        export_to(each, old)
    paths = published(monkeypatch, failing=table)
    with pytest.raises(DestinationError, match=table):
        export_to(dataset, new)
    monkeypatch.undo()
    assert paths == [part(each) for each in TABLES[: TABLES.index(table) + 1]]
    assert reasons(dataset, new) == {"e1": Reason.NEW if is_first else Reason.INCOMPLETE}
    export_to(dataset, new)
    export_to(whole, new)
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")


def test_calls_without_their_execution_row_are_noticed_and_fetched_again(dataset, tmp_path, monkeypatch):
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


def test_a_failed_partition_leaves_those_before_it_and_does_not_begin_those_after_it(dataset, tmp_path, monkeypatch):
    publish = dataset.files.publish

    def publish_but_one(path, data):
        if path == part("calls", date="2026-09-02"):
            raise DestinationError(f"{path}: no space left")
        publish(path, data)

    monkeypatch.setattr(dataset.files, "publish", publish_but_one)
    with pytest.raises(DestinationError, match="month=2026-09"):
        export_to(dataset, *(a_bundle(f"e{day}", [f"c{day}"], date=f"2026-{day + 7:02}-0{day}") for day in (1, 2, 3)))
    assert {path.parent.name for path in tmp_path.rglob("*.parquet")} == {"month=2026-08"}
    assert reasons(dataset, a_bundle("e1")) == {"e1": Reason.FINAL}


def test_a_call_whose_new_values_could_not_be_had_keeps_its_old_ones(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    export_to(dataset, a_bundle("e1", seconds=2.0, given_up=["c2"]), run="run-2")
    assert rows(tmp_path, "calls", "call_execution_id", "duration_seconds") == [("c1", 2.0), ("c2", 1.0)]
    assert rows(tmp_path, "executions", "export_state", "listed_calls", "exported_calls") == [("incomplete", 2, 2)]
    assert rows(tmp_path, "errors", "subject_id", "status", "tries") == [("c2", 500, 6)]
    assert stored_in(dataset)["e1"].held.calls_digest == stored_in(dataset)["e1"].calls_digest


def kept(bundle, *call_ids):
    """The bundle without what was fetched of these calls, whose stored rows stay."""
    calls = tuple(call for call in bundle.calls if call.listed.call_execution_id not in call_ids)
    return msgspec.structs.replace(bundle, calls=calls, kept=frozenset(call_ids))


def test_a_kept_call_keeps_its_row_and_takes_its_evals_from_the_list(dataset, tmp_path):
    export_to(dataset, a_bundle(seconds=1.0))
    export_to(dataset, kept(a_bundle(seconds=9.0), "c1"), run="run-2")
    assert rows(tmp_path, "calls", "call_execution_id", "duration_seconds") == [("c1", 1.0), ("c2", 9.0)]
    assert rows(tmp_path, "evals", "call_execution_id", "output_score") == [("c1", 9.0), ("c2", 9.0)]
    assert stored_in(dataset)["e1"].export_state == ExportState.SETTLING, "it was final, and has changed"


def test_call_that_another_execution_keeps_leaves_this_one(dataset, tmp_path):
    """A run ended between the commit of its new place and that of its old one."""
    export_to(dataset, a_bundle("e1", ["c1", "c2"]))
    export_to(dataset, a_bundle("e2", ["c2", "c3"]), run="run-2")
    export_to(dataset, a_bundle("e1", ["c1"]), kept(a_bundle("e2", ["c2", "c3"]), "c2"), run="run-3")
    assert rows(tmp_path, "calls", "execution_id", "call_execution_id") == [("e1", "c1"), ("e2", "c2"), ("e2", "c3")]


def test_execution_of_which_a_kept_row_is_gone_is_incomplete(dataset, tmp_path):
    _, arrived = export_to(dataset, kept(a_bundle(), "c1"))
    assert arrived[KEY].without_rows == 1
    assert stored_in(dataset)["e1"].export_state == ExportState.INCOMPLETE


def test_a_new_call_whose_values_could_not_be_had_has_no_row_but_its_evals(dataset, tmp_path):
    export_to(dataset, a_bundle("e1", ["c1", "c2"], given_up=["c2"]))
    assert rows(tmp_path, "calls", "call_execution_id") == [("c1",)]
    assert rows(tmp_path, "evals", "call_execution_id") == [("c1",), ("c2",)]
    assert rows(tmp_path, "executions", "export_state", "listed_calls", "exported_calls") == [("incomplete", 2, 1)]


def test_a_dead_letter_says_since_when_and_goes_once_the_request_succeeds(dataset, tmp_path):
    later = FETCHED_AT + timedelta(days=1)
    export_to(dataset, a_bundle("e1", given_up=["c2"]), a_bundle("e2", ["c3"], given_up=["c3"]))
    export_to(dataset, a_bundle("e1", given_up=["c2"]), run="run-2", fetched_at=later)
    assert rows(tmp_path, "errors", "subject_id", "first_seen_at") == [("c2", FETCHED_AT), ("c3", FETCHED_AT)]
    export_to(dataset, a_bundle("e1"), run="run-3", fetched_at=later)
    assert rows(tmp_path, "errors", "subject_id") == [("c3",)]
    export_to(dataset, a_bundle("e2", ["c3"]), run="run-4", fetched_at=later)
    assert rows(tmp_path, "errors") == []
    assert reasons(dataset, a_bundle("e1"), a_bundle("e2")) == {"e1": Reason.SETTLING, "e2": Reason.SETTLING}
    assert wrong_schemas(tmp_path) == []


def test_an_execution_whose_calls_cannot_be_listed_keeps_all_its_old_rows(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    before = contents(tmp_path)
    later = FETCHED_AT + timedelta(days=1)
    export_to(dataset, an_unlisted_bundle("e1", is_given_up=True), run="run-2", fetched_at=later)
    after = contents(tmp_path)
    assert (after["calls"], after["evals"]) == (before["calls"], before["evals"])
    assert rows(tmp_path, "executions", "export_state", "listed_calls", "exported_calls", "verified_at") == [
        ("incomplete", 2, 2, FETCHED_AT)
    ]
    assert rows(tmp_path, "errors", "endpoint", "subject_id") == [("/sdk/api/v1/simulation/runs/", "e1")]


def test_a_listing_that_is_not_proved_drops_no_call_that_it_does_not_name(dataset, tmp_path):
    export_to(dataset, a_bundle("e1", ["c1", "c2"]), a_bundle("e2", ["c5"]))
    unproved = a_bundle("e1", ["c2", "c3", "c4"], seconds=2.0, given_up=["c4"], is_proved=False)
    export_to(dataset, unproved, a_bundle("e2", ["c6"]), run="run-2")
    assert rows(tmp_path, "calls", "call_execution_id", "duration_seconds") == [
        ("c1", 1.0),
        ("c2", 2.0),
        ("c3", 2.0),
        ("c6", 1.0),
    ]
    assert rows(tmp_path, "evals", "call_execution_id", "output_score") == [
        ("c1", 1.0),
        ("c2", 2.0),
        ("c3", 2.0),
        ("c4", 2.0),
        ("c6", 1.0),
    ]
    assert reasons(dataset, unproved) == {"e1": Reason.INCOMPLETE}
    assert stored_in(dataset)["e1"].held.calls_digest == stored_in(dataset)["e1"].calls_digest


def test_evals_of_a_call_that_never_had_a_row_stay_while_the_listing_is_not_proved(dataset, tmp_path):
    export_to(dataset, a_bundle("e1", ["c1", "c2"], given_up=["c2"]))
    export_to(dataset, a_bundle("e1", ["c1"], is_proved=False), run="run-2")
    assert rows(tmp_path, "evals", "call_execution_id") == [("c1",), ("c2",)]
    assert stored_in(dataset)["e1"].held.calls_digest == stored_in(dataset)["e1"].calls_digest
    export_to(dataset, a_bundle("e1", ["c1"]), run="run-3")
    assert rows(tmp_path, "evals", "call_execution_id") == [("c1",)]


def test_a_proved_listing_drops_the_calls_that_it_does_not_name(dataset, tmp_path):
    export_to(dataset, a_bundle("e1", ["c1", "c2", "c3"]))
    export_to(dataset, a_bundle("e1", ["c2"]), run="run-2")
    assert rows(tmp_path, "calls", "call_execution_id") == [("c2",)]
    assert rows(tmp_path, "evals", "call_execution_id") == [("c2",)]
    assert rows(tmp_path, "executions", "listed_calls", "exported_calls") == [(1, 1)]


def test_an_eval_that_the_listing_no_longer_has_goes_even_when_the_listing_is_not_proved(dataset, tmp_path):
    export_to(dataset, a_bundle("e1", ["c1"]))
    bare = a_bundle("e1", ["c1"], is_proved=False)
    bare.calls[0].listed.payload["eval_outputs"] = None
    export_to(dataset, bare)
    assert rows(tmp_path, "evals") == []
    assert len(rows(tmp_path, "calls")) == 1


def test_an_execution_that_runs_again_keeps_its_old_calls_until_it_has_finished(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    before = contents(tmp_path)
    export_to(dataset, an_unlisted_bundle("e1", status="running"), run="run-2")
    after = contents(tmp_path)
    assert (after["calls"], after["evals"], after["errors"]) == (before["calls"], before["evals"], [])
    assert rows(tmp_path, "executions", "status", "export_state", "listed_calls", "exported_calls") == [
        ("running", "waiting", 2, 2)
    ]
    assert reasons(dataset, a_bundle("e1")) == {"e1": Reason.CHANGED}


def test_an_execution_that_waits_has_a_row_and_no_other_file(dataset, tmp_path):
    _, arrived = export_to(dataset, an_unlisted_bundle("e1", status="pending"))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet")] == [part("executions")]
    assert rows(tmp_path, "executions", "export_state", "listed_calls", "exported_calls", "verified_at") == [
        (ExportState.WAITING, None, 0, None)
    ]
    assert arrived[KEY].rows == {"executions": 1, "calls": 0, "evals": 0}


def test_an_execution_without_calls_is_exported(dataset, tmp_path):
    export_to(dataset, a_bundle("e1", [], version=0))
    assert rows(tmp_path, "executions", "export_state", "listed_calls", "exported_calls") == [("exported", 0, 0)]
    assert reasons(dataset, a_bundle("e1", [], version=0)) == {"e1": Reason.FINAL}


def test_what_arrived_is_told_by_run_test(dataset):
    _, arrived = export_to(
        dataset,
        a_bundle("e1", given_up=["c2"]),
        a_bundle("e2", ["c3"], date="2026-09-02"),
        a_bundle("e9", ["c9"], key="booking"),
    )
    assert {key: (share.rows, share.dead_letters, share.misfits) for key, share in arrived.items()} == {
        KEY: ({"executions": 2, "calls": 2, "evals": 3}, {"e1": {(METRICS, "c2")}, "e2": set()}, 0),
        "booking": ({"executions": 1, "calls": 1, "evals": 1}, {"e9": set()}, 0),
    }


def test_call_of_two_run_tests_that_failed_is_missing_in_both(dataset, tmp_path):
    mine, other = a_bundle("e1", given_up=["c2"]), a_bundle("e9", ["c2", "c9"], given_up=["c2"], key="booking")
    _, arrived = export_to(dataset, mine, other)
    assert rows(tmp_path, "errors", "execution_id", "subject_id") == [("e9", "c2")]
    assert {key: share.dead_letters for key, share in arrived.items()} == {
        KEY: {"e1": {(METRICS, "c2")}},
        "booking": {"e9": {(METRICS, "c2")}},
    }


@pytest.mark.parametrize(
    ("first", "second", "owner"),
    [((), (), "e2"), (["c1"], (), "e2"), ((), ["c1"], "e1"), (["c1"], ["c1"], "e2")],
    ids=["both fetched", "second fetched", "first fetched", "none fetched"],
)
def test_call_of_two_executions_in_one_commit_is_of_the_last_that_fetched_it(dataset, tmp_path, first, second, owner):
    """It moved after the first of them was fetched, or is listed in both."""
    listed = {"calls": ["c1", "c2"], "given_up": first}, {"calls": ["c1", "c3"], "given_up": second}
    export_to(dataset, a_bundle("e1", **listed[0]), a_bundle("e2", **listed[1]))

    of_calls = [("c1", owner)] if not (first and second) else []
    assert rows(tmp_path, "calls", "call_execution_id", "execution_id") == [*of_calls, ("c2", "e1"), ("c3", "e2")]
    assert rows(tmp_path, "evals", "call_execution_id", "execution_id") == [("c1", owner), ("c2", "e1"), ("c3", "e2")]
    counts = dict(rows(tmp_path, "executions", "execution_id", "listed_calls"))
    assert counts == {"e1": 1 + (owner == "e1"), "e2": 1 + (owner == "e2")}
    assert assert_sound(tmp_path)


def test_call_that_names_another_execution_keeps_its_old_rows_until_it_is_seen_there(dataset, tmp_path):
    """Or, where it never had any, its evals do not stay either."""
    export_to(dataset, a_bundle("e1", ["c1", "c2"]))
    disputed = msgspec.structs.replace(
        a_bundle("e1", ["c1"], version=2), dead_letters=(dead_letter("c2"), dead_letter("c3"))
    )
    export_to(dataset, disputed)
    assert rows(tmp_path, "calls", "call_execution_id") == [("c1",), ("c2",)]
    assert rows(tmp_path, "evals", "call_execution_id") == [("c1",), ("c2",)]
    (tmp_path / part("calls")).unlink()
    export_to(dataset, disputed)
    assert rows(tmp_path, "evals", "call_execution_id") == [("c1",)]


def test_every_file_has_exactly_the_declared_schema_whatever_it_holds(dataset, tmp_path):
    export_to(dataset, a_bundle("e1", given_up=["c2"]), a_bundle("e2", [], date="2026-09-02"))
    export_to(dataset, an_unlisted_bundle("e3", status="running"), an_unlisted_bundle("e4", is_given_up=True))
    export_to(dataset, a_bundle("e1"))
    assert len(list(tmp_path.rglob("*.parquet"))) == 5
    assert wrong_schemas(tmp_path) == []


def test_one_execution_twice_in_a_commit_is_a_bug_that_writes_nothing(dataset, tmp_path):
    twice = a_bundle("e1", [])
    with pytest.raises(SchemaError, match="twice"):
        export_to(dataset, twice, twice)
    assert not list(tmp_path.rglob("*.parquet"))


def written_by(root):
    """Which run wrote each row of e1, by table."""
    return {
        table: {run for execution_id, run in rows(root, table, "execution_id", "export_run_id") if execution_id == "e1"}
        for table in ("calls", "evals", "executions")
    }


@pytest.mark.parametrize("table", ["calls", "evals"])
def test_an_execution_row_is_of_the_run_that_wrote_a_row_of_its_calls_though_it_says_the_same(dataset, tmp_path, table):
    """Whoever follows the execution rows would not see otherwise that a file was lost and its rows were fetched again."""
    bundles = [a_bundle("e1", date="2026-08-31"), a_bundle("e2", ["c3"], date="2026-09-01")]
    export_to(dataset, *bundles, fetched_at=SETTLING_AT)
    before = rows(tmp_path, "executions")
    (tmp_path / part(table, date="2026-08-31")).unlink()
    later = SETTLING_AT + timedelta(hours=1)
    export_to(dataset, *bundles, run="run-2", fetched_at=later)
    other = ({"calls", "evals"} - {table}).pop()
    assert rows(tmp_path, "executions") == before
    assert written_by(tmp_path) == {table: {"run-2"}, other: {"run-1"}, "executions": {"run-2"}}
    assert rows(tmp_path, "executions", "exported_at", "export_run_id") == [(later, "run-2"), (SETTLING_AT, "run-1")]


def test_receipt_counts_what_became_of_executions(dataset):
    export_to(
        dataset, a_bundle("e1"), a_bundle("e2", ["c3"]), a_bundle("e3", ["c4"]), a_bundle("e9", [], key="booking")
    )
    assert dataset.receipt.as_json()["executions"] == {
        KEY: COUNTS | {"inserted": 3},
        "booking": COUNTS | {"inserted": 1},
    }
    again = [a_bundle("e1", [], version=2), a_bundle("e2", ["c3"], seconds=2.0), a_bundle("e3", ["c4"])]
    export_to(dataset, *again, fetched_at=FETCHED_AT + timedelta(days=1))
    assert dataset.receipt.as_json()["executions"] == {KEY: COUNTS | {"replaced": 2, "emptied": 1, "verified": 1}}
