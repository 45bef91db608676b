"""What a load promises, whatever the target: it makes the warehouse equal to the dataset, and touches nothing else.

Tried on DuckDB, PostgreSQL and Delta here; ``test_snowflake.py`` and ``test_bigquery.py`` try the same on emulators.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from etl.dataset.last_run import update_last_run
from etl.errors import DestinationError
from etl.files.names import INDEX
from etl.files.open import open_files
from etl.load.tables import CURRENT_VIEWS, STATE, STATE_TABLE, VIEWS, arrow_schema_of
from etl.model import schema
from tests.bundles import a_bundle, dead_letter
from tests.datasets import a_dataset, export_to
from tests.loads import NOW, assert_settled, compared, first_export, next_export, rehearsed
from tests.support import IS_FULL
from tests.warehouses import Row, assert_equals_dataset, load_into, loadable_rows

OF_EXECUTIONS = ("executions", "calls", "evals")
VALUES: dict[str, Callable[[Any], None]] = {
    "a cell": lambda target: target.update("calls", "duration_seconds", "99.5", "call_execution_id = 'c3'"),
    "a value less": lambda target: target.update("executions", "status", "NULL"),
}
"""What somebody does to values by hand, which an engine that counts rows does not notice."""
EDITS: dict[str, Callable[[Any], None]] = {
    "rows less": lambda target: target.delete("evals", "execution_id = 'e4'"),
    "no executions": lambda target: target.delete("executions"),
    "no runs": lambda target: target.delete("runs"),
    "a row more": lambda target: target.copy("evals", "call_execution_id = 'c3'", eval_config_id="another"),
    "rows of nobody": lambda target: target.copy(
        "calls", "call_execution_id = 'c3'", call_execution_id="nobody", execution_id="nobody", run_test="Odd / 100%"
    ),
    "a letter of nobody": lambda target: target.copy("errors", subject_id="nobody", run_test="nobody"),
}
"""What somebody does to rows by hand."""


def exchange(target: Any) -> None:
    """One row less and one more, in two tables of one execution."""
    target.delete("calls", "call_execution_id = 'c6'")
    target.copy("evals", "call_execution_id = 'c6'", eval_config_id="another")


EDITS["a row for another"] = exchange
DISASTERS: dict[str, Callable[[Any], None]] = {
    "nothing was loaded": lambda target: target.delete(STATE),
    "no dataset was loaded": lambda target: target.delete(STATE, "kind = 'dataset'"),
    "an item was not loaded": lambda target: target.delete(STATE, "item = 'e1'"),
    **{f"no {name}": methodcaller("remove", name) for name in ("evals", "errors", "runs")},
    "no column": lambda target: target.drop_column("evals", "reason"),
}


def contents(target: Any) -> dict[str, list[Row]]:
    return {name: target.rows(table) for name, table in schema.TABLES.items()}


def moments() -> Iterator[int]:
    """When a load dies: at its first steps, and at some of the later ones."""
    nth = 0
    while True:
        yield nth
        nth += 1 if IS_FULL else 1 + nth // 2


def test_first_load_equals_the_dataset(empty: Any, data: Path) -> None:
    result = load_into(empty, data)

    assert (result.new, result.changed, result.altered, result.removed) == (7, 0, 0, 0)
    assert {name: result.rows[name] for name in OF_EXECUTIONS} == {"executions": 7, "calls": 7, "evals": 8}
    assert result.problems == []
    assert_settled(empty, data)


def test_where_nothing_changed_nothing_is_written(target: Any, data: Path) -> None:
    """And an engine that bills each query is asked two."""
    assert target.asked_by(data) in ([], ["query", "query"])


def test_changed_execution_is_replaced_as_a_whole_and_others_are_left_alone(target: Any, data: Path) -> None:
    next_export(data)
    result = load_into(target, data)

    assert (result.new, result.changed, result.altered, result.removed) == (1, 5, 0, 0)
    assert result.rows["calls"] == 8, "all but the one of e4"
    assert_settled(target, data)


def test_full_load_brings_everything_anew(target: Any, data: Path) -> None:
    """Values that somebody has edited, too, as ``verify`` advises."""
    for edit in VALUES.values():
        edit(target)
        found = compared(target, data).findings
        assert {each.kind.next_step for each in found} == {"metrics-etl load --full"}
        result = load_into(target, data, is_full=True)
        assert (result.changed + result.altered, result.rows["calls"]) == (7, 7)
        assert_equals_dataset(target, data)
    assert_settled(target, data)


def test_dry_run_says_what_differs_and_changes_nothing(target: Any, data: Path) -> None:
    before = contents(target)
    next_export(data)
    result = load_into(target, data, is_dry_run=True)

    assert (result.new, result.changed) == (1, 5)
    assert contents(target) == before


def test_rehearsal_leaves_everything_as_it_was(empty: Any, data: Path, tmp_path: Path) -> None:
    """Before the first load, and after it."""
    before = {*tmp_path.rglob("*")}
    assert rehearsed(empty) == empty.can_rehearse
    assert {*tmp_path.rglob("*")} == before
    assert load_into(empty, data).new == 7
    rows = contents(empty)
    empty.close()
    before = {*tmp_path.rglob("*")}
    assert rehearsed(empty) == empty.can_rehearse
    assert {*tmp_path.rglob("*")} == before
    assert contents(empty) == rows
    assert not load_into(empty, data).is_changed


# deaths


def test_load_that_dies_leaves_nothing_behind_and_the_next_one_makes_it_equal(target: Any, data: Path) -> None:
    before, backup = contents(target), target.dump()
    next_export(data)
    after = {name: loadable_rows(data, table) for name, table in schema.TABLES.items()}

    for nth in moments():
        if not target.die(data, nth=nth):
            break
        if target.is_atomic:
            assert contents(target) in (before, after)
            continue
        assert all(rows in (before[name], after[name]) for name, rows in contents(target).items())
        load_into(target, data)
        assert_equals_dataset(target, data)
        target.restore(backup)
    assert nth > 4
    assert_settled(target, data)


def test_first_load_that_dies_is_made_up_for(empty: Any, data: Path) -> None:
    for nth in moments():
        if not empty.die(data, nth=nth):
            break

    assert nth > 6
    assert_settled(empty, data)


# what somebody does by hand


def test_edits_by_hand_are_found_and_repaired(target: Any, data: Path) -> None:
    """Where the engine counts rows, an edit costs the edited execution alone."""
    for name, edit in EDITS.items():
        edit(target)
        assert compared(target, data).findings, name
        result = load_into(target, data)
        assert result.is_changed, name
        if name in ("rows less", "a row for another") and target.counts_rows:
            assert (result.new, result.changed, result.altered) == (0, 0, 1)
            assert result.rows == {"calls": 1, "evals": 1, "executions": 1}
        assert_equals_dataset(target, data)
    assert_settled(target, data)


def test_row_that_stands_twice_is_repaired(target: Any, data: Path) -> None:
    if target.has_keys:
        with pytest.raises(DestinationError):
            target.copy("calls")
    else:
        target.copy("calls")
        assert compared(target, data).loaded_rows["calls"] == 14
        load_into(target, data)
    assert_settled(target, data)


def test_tables_that_are_removed_or_forgotten_are_loaded_again(target: Any, data: Path) -> None:
    for name, disaster in DISASTERS.items():
        disaster(target)
        assert load_into(target, data).is_changed, name
        assert_equals_dataset(target, data)
    assert_settled(target, data)


def test_older_copy_of_the_tables_is_brought_up_to_date(target: Any, data: Path) -> None:
    backup = target.dump()
    next_export(data)
    load_into(target, data)
    target.restore(backup)
    load_into(target, data)

    assert_settled(target, data)


def test_row_that_belongs_to_nothing_cannot_be_inserted(target: Any, data: Path) -> None:
    """No load could ever find it again."""
    for name in ("execution_id", "run_test"):
        with pytest.raises(Exception, match=r"(?i)null|validation"):
            target.copy("evals", "execution_id = 'e4'", **{"eval_config_id": "another", name: None})

    assert_settled(target, data)


def test_verify_names_each_difference_and_nothing_else(target: Any, data: Path) -> None:
    for name in ("a cell", "rows less", "a row more", "rows of nobody"):
        (EDITS | VALUES)[name](target)
    target.update("runs", "export_run_id", "'another'")
    report = compared(target, data)

    assert {each.subject: each.text for each in report.findings} == {
        "execution e2": "evals: 1 row too many; calls: 1 row with different values in duration_seconds",
        "execution e4": "evals: 1 row missing",
        "execution nobody": "calls: 1 row too many",
        "run another": "runs: 1 row too many",
        "run run-1": "runs: 1 row missing",
    }
    assert (report.rows["calls"], report.loaded_rows["calls"]) == (7, 8)


# whose tables these are


def test_another_dataset_is_refused(target: Any, data: Path, tmp_path: Path) -> None:
    other = first_export(tmp_path / "other")
    for is_full in (False, True):
        with pytest.raises(DestinationError, match=r"holds the dataset .*\. Name another \[warehouse\]"):
            load_into(target, other, is_full=is_full)
    load_into(target, data)
    assert_settled(target, data)


def test_tables_are_refused_where_nothing_tells_that_they_are_ours(target: Any, data: Path) -> None:
    target.remove(STATE)
    refusal = rf"table \w+ exists, but {STATE} does not.*\. Name another .*, or drop the table"
    for is_dry_run in (True, False):
        with pytest.raises(DestinationError, match=refusal):
            load_into(target, data, is_dry_run=is_dry_run)


# columns


def test_columns_of_a_newer_version_are_added_and_nothing_is_loaded_again(target: Any, data: Path) -> None:
    """The files of the dataset have null there, too."""
    for table in ("calls", "evals"):
        target.make_older(table, "deleted_at")
    result = load_into(target, data)
    assert (result.is_changed, result.altered, dict(result.rows)) == (True, 0, {})
    assert_settled(target, data)
    next_export(data)
    load_into(target, data)

    assert_settled(target, data)


def test_what_a_version_loaded_that_did_not_count_is_loaded_again_and_nothing_is_lost(target: Any, data: Path) -> None:
    shutil.rmtree(data / "calls" / "run_test=refund")
    for name in ("executions", "evals"):
        shutil.rmtree(data / name / "run_test=refund")
    target.make_older(STATE, "row_counts")
    for _ in range(2):
        result = load_into(target, data)
        assert (result.removed, result.missing) == (0, ("e4", "e7", "e9"))
    assert {row["execution_id"] for row in target.rows(schema.EXECUTIONS)} == {"e1", "e2", "e3", "e4", "e5", "e7", "e9"}


def test_state_table_has_after_a_load_the_columns_of_this_version_and_no_others(target: Any, data: Path) -> None:
    """The rows stay: whose tables these are stands in one of them."""
    target.make_older(STATE, "row_counts")
    target.add_column(STATE, "checksum")
    assert load_into(target, data).is_changed

    assert [*target.rows(STATE_TABLE)[0]] == arrow_schema_of(STATE_TABLE).names
    assert_settled(target, data)


def test_columns_that_the_exporter_does_not_have_do_no_harm(target: Any, data: Path) -> None:
    """Those of an older version, and of others; what they hold stays with rows that are not replaced."""
    for table, name in (("executions", "unlisted_calls"), ("calls", "ours")):
        target.add_column(table, name)
    target.update("calls", "ours", "'7'")
    load_into(target, data)
    next_export(data)
    load_into(target, data)

    ours = {row["call_execution_id"]: row["ours"] for row in target.rows(schema.CALLS)}
    assert (ours["c6"], ours["c7"]) == ("7" if target.counts_rows else None, None)
    assert compared(target, data).findings == []


def test_column_of_another_type_is_refused(target: Any, data: Path) -> None:
    target.make_texts("calls", "duration_seconds")

    with pytest.raises(DestinationError, match=r"(?i)calls\.duration_seconds has the type \S+.* instead of "):
        load_into(target, data)


def test_verify_of_tables_that_are_not_there_or_of_an_older_version_names_the_fix(empty: Any, data: Path) -> None:
    with pytest.raises(DestinationError, match=r"has no table executions\. Run metrics-etl load$"):
        compared(empty, data)
    if empty.has_views:  # elsewhere a column that is not there is one of nulls
        load_into(empty, data)
        empty.make_older("evals", "deleted_at")
        with pytest.raises(DestinationError, match=r"evals has no column deleted_at\. Run metrics-etl load$"):
            compared(empty, data)


# what the dataset does not have


@pytest.mark.parametrize("is_indexed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_missing_from_the_dataset_stays_and_is_told_until_a_full_load(
    target: Any, data: Path, *, is_indexed: bool
) -> None:
    """A deletion at the source is a mark in the dataset: rows that are gone are none, even where others were edited."""
    before = contents(target)
    EDITS["a row more"](target)
    if not is_indexed:
        (data / INDEX).unlink(missing_ok=True)
    for name in OF_EXECUTIONS:
        shutil.rmtree(data / name / "run_test=refund")
    for _ in range(2):
        kept = load_into(target, data)
        assert (kept.removed, kept.as_json()["executions"]["missing"]) == (0, 3)
        told = "the warehouse has 3 executions that the dataset does not have: e4, e7 and 1 more"
        assert kept.problems == [f"{told}. To remove what is not in the dataset, run metrics-etl load --full"]
        assert contents(target) == before

    result = load_into(target, data, is_full=True)
    assert (result.removed, result.problems) == (3, [])
    assert_settled(target, data)


def test_damaged_executions_are_held_back(target: Any, data: Path, tmp_path: Path) -> None:
    """What somebody has removed of them meanwhile is loaded later."""
    target.delete("calls", "call_execution_id = 'c6'")
    before = target.rows(schema.CALLS)
    damaged = data / "calls" / "run_test=refund"
    damaged.rename(tmp_path / "calls")
    for is_full in (False, True):
        result = load_into(target, data, is_full=is_full)
        assert (result.damaged, result.removed, result.missing) == (3, 0, ())
        assert result.problems[0].startswith("3 executions could not be loaded, because rows in the dataset are")
        assert target.rows(schema.CALLS) == before
    (tmp_path / "calls").rename(damaged)
    load_into(target, data)

    assert_settled(target, data)


def test_altered_rows_that_are_held_back_are_not_believed_when_a_column_is_added(
    target: Any, data: Path, tmp_path: Path
) -> None:
    target.make_older("calls", "deleted_at")
    target.delete("calls", "call_execution_id = 'c6'")
    damaged = data / "calls" / "run_test=refund"
    damaged.rename(tmp_path / "calls")
    assert load_into(target, data).damaged == 3
    (tmp_path / "calls").rename(damaged)
    load_into(target, data)

    assert_settled(target, data)


def test_file_that_cannot_be_read_is_told_with_the_fix_and_nothing_is_changed(target: Any, data: Path) -> None:
    before = contents(target)
    next_export(data)
    for name in ("runs", "executions"):
        max((data / name).rglob("*.parquet")).write_bytes(b"PAR1 and nothing else")
        with pytest.raises(DestinationError, match="metrics-etl run, which moves the file to _state/quarantine"):
            load_into(target, data)
        assert contents(target) == before or not target.is_atomic


def test_dead_letters_of_one_call_in_two_executions_are_two_rows(empty: Any, data: Path) -> None:
    """Both list the call, and it cannot be had."""
    other = a_bundle("e8", ["c8"], key="checkout", date="2026-09-07")
    export_to(a_dataset(data), replace(other, dead_letters=(dead_letter("c5"),)))
    load_into(empty, data)

    assert len(empty.rows(schema.ERRORS)) == 2
    assert_settled(empty, data)
    empty.delete("errors", "execution_id = 'e8'")
    assert [each.text for each in compared(empty, data).findings] == ["errors: 1 row missing"]


# views


@pytest.fixture
def viewed(target: Any) -> Any:
    """A target that has views."""
    if not target.has_views:
        pytest.skip("it has no views")
    return target


def test_views_show_what_the_source_has(viewed: Any, data: Path) -> None:
    next_export(data)
    load_into(viewed, data)
    assert_settled(viewed, data)

    shown = {view.name: viewed.query(f"SELECT * FROM {{s}}.{view.name}") for view in CURRENT_VIEWS}
    assert {row["execution_id"] for row in shown["executions_current"]} == {"e1", "e2", "e3", "e4", "e5", "e6"}
    assert {row["call_execution_id"] for row in shown["calls_current"]} == {"c1", "c4", "c5", "c6", "c7", "c8"}
    assert {row["call_execution_id"] for row in shown["evals_current"]} == {"c1", "c5", "c6", "c7", "c8"}
    assert {row["execution_status"] for row in shown["calls_current"]} == {"completed"}
    assert [*shown["evals_current"][0]] == arrow_schema_of(schema.EVALS).names


def test_one_row_says_how_fresh_the_tables_are(viewed: Any, data: Path) -> None:
    def last_load() -> Row:
        row: Row
        (row,) = viewed.query("SELECT * FROM {s}.last_load")
        return row

    before = last_load()
    assert before["complete_at"] is None
    update_last_run(open_files(str(data)), {"complete_at": NOW})
    load_into(viewed, data)
    assert last_load() == before, "nothing was loaded"
    next_export(data)
    load_into(viewed, data)
    after = last_load()
    assert before["loaded_at"] < after["loaded_at"] <= datetime.now(UTC)
    assert after["complete_at"] == NOW
    assert after["rows"] == sum(map(len, contents(viewed).values()))
    assert [*after] == ["loaded_at", "complete_at", "rows"]


def test_dollars_keep_their_cents(viewed: Any) -> None:
    viewed.update("calls", "cost_total_cost_cents", "1234567", "call_execution_id = 'c3'")
    viewed.update("calls", "cost_total_cost_cents", "NULL", "call_execution_id = 'c4'")
    found = viewed.query("SELECT call_execution_id AS id, cost_total_dollars FROM {s}.calls_current")
    dollars = {row["id"]: row["cost_total_dollars"] for row in found}
    assert (dollars["c3"], dollars["c4"]) == (12345.67, None)


def test_view_that_is_not_there_is_made_again(viewed: Any, data: Path) -> None:
    for view in VIEWS:
        viewed.edit(f"DROP VIEW {{s}}.{view.name}")
        result = load_into(viewed, data)
        assert (result.is_changed, dict(result.rows)) == (True, {})
    assert_settled(viewed, data)


@pytest.mark.parametrize("is_full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_view_that_somebody_changed_is_found_and_made_again(viewed: Any, data: Path, *, is_full: bool) -> None:
    if not viewed.tells_views:
        return
    for view in VIEWS:
        with closing(viewed.open()) as opened:
            (make, *_) = opened._sql.create_view(view, ())
        viewed.edit(f"{make} AND false")
    assert sorted(str(each) for each in compared(viewed, data).findings) == sorted(
        f"'view {view.name}': somebody has changed the definition of this view" for view in VIEWS
    )
    assert load_into(viewed, data, is_full=is_full).is_changed
    assert_settled(viewed, data)


def test_view_of_which_nothing_was_noted_is_not_called_changed(viewed: Any, data: Path) -> None:
    """As after an upgrade from a version that noted no definitions."""
    viewed.make_older(STATE, "row_counts")
    viewed.delete(STATE, "kind = 'view'")

    assert compared(viewed, data).findings == []
    assert load_into(viewed, data).is_changed
    assert_settled(viewed, data)


def test_columns_of_a_view_keep_their_order_when_new_ones_come(viewed: Any, data: Path) -> None:
    """So that grants stay."""
    viewed.make_older("calls", "deleted_at")
    with closing(viewed.open()) as opened:
        (make, *_) = opened._sql.create_view(CURRENT_VIEWS[1], ())
    select, older = make[make.index(" AS SELECT ") :], " AS SELECT call_execution_id"
    make_older = make.replace(select, f"{older} FROM {{s}}.calls").replace("COPY GRANTS ", "")
    viewed.edit("DROP VIEW IF EXISTS {s}.calls_current", make_older)
    load_into(viewed, data)

    names = [*viewed.query("SELECT * FROM {s}.calls_current")[0]]
    assert (names[0], names[-1]) == ("call_execution_id", "cost_total_dollars")
    assert "deleted_at" in names
    assert_settled(viewed, data)
