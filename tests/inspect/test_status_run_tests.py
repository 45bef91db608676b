"""What the rows say of run tests: by their names, wherever they lie."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from etl.dataset.last_run import LastRun
from etl.dataset.layout import Part
from etl.inspect.status_run_tests import EXECUTION_COLUMNS, execution_rows, missing_of, places_of, run_tests_of
from etl.inspect.stored import StoredFile
from etl.model import schema
from etl.model.findings import Kind
from etl.model.keys import default_key

AT = datetime(2026, 11, 1, 2, tzinfo=UTC)


def row(execution_id, name, state="exported", *, day=0, calls=1, deleted_at=None):
    then = AT + timedelta(days=day)
    return {
        "execution_id": execution_id,
        "run_test_name": name,
        "started_at": then,
        "export_state": state,
        "deleted_at": deleted_at,
        "exported_at": then,
        "exported_calls": calls,
    }


def file(key, *rows):
    fields = [schema.EXECUTIONS.arrow_schema.field(name) for name in EXECUTION_COLUMNS]
    table = pa.Table.from_pylist(list(rows), pa.schema(fields))
    return StoredFile("path", len(rows), 1, table, Part(key, "month=2026-11/part-0"))


ROWS = execution_rows(
    [
        file("a", row("1", "A", calls=2), row("2", "A", "settling"), row("3", "B", "waiting", day=1, calls=0)),
        file("b", row("4", "A", "incomplete", day=2), row("5", "A", deleted_at=AT, calls=0), row("6", "C")),
    ],
    {},
)


def letter(execution_id, name="A", message="no answer"):
    return {"execution_id": execution_id, "run_test_name": name, "message": message}


def test_a_run_test_owns_the_rows_of_its_name_under_all_keys():
    last_run = LastRun(last_complete_at={"key-of-a": AT, "new": None}, incomplete=("new",))
    found = {each.name: each for each in run_tests_of(ROWS, {"A": "key-of-a", "New": "new"}, last_run)}
    counts = {name: (each.executions, each.calls, each.key) for name, each in found.items()}
    assert counts == {"A": (4, 4, "key-of-a"), "B": (1, 0, "a"), "C": (1, 1, "b"), "New": (0, 0, "new")}
    a = found["A"]
    assert (a.exported, a.settling, a.waiting, a.incomplete, a.deleted) == (1, 1, 0, 1, 1)
    assert (a.newest_started_at, a.exported_at) == (AT + timedelta(days=2), AT + timedelta(days=2))
    complete = {name: (each.is_configured, each.is_complete, each.complete_at) for name, each in found.items()}
    assert complete["A"] == (True, True, AT)
    assert complete["New"] == (True, False, None)
    assert complete["B"] == complete["C"] == (False, False, None)


def test_run_test_without_a_key_in_the_settings_has_that_of_its_rows():
    """A renamed one keeps its folder, and a clone under the old name has another one: do not remove the wrong one."""
    configured = {name: default_key(name) for name in ("A", "New")}
    keys = {each.name: each.key for each in run_tests_of(ROWS, configured, LastRun())}
    assert (keys["A"], keys["New"]) == ("b", default_key("New"))


def test_what_a_key_is_called_last_is_what_its_newest_row_says():
    assert {key: name for _, key, name in places_of(ROWS)} == {"a": "B", "b": "A"}


def test_what_is_missing_of_configured_run_tests_is_told_by_its_dead_letters_or_counted():
    letters = [letter("4", message="b"), letter("4", message="a"), letter("6", "C"), letter("unknown", message="c")]
    (found,) = missing_of(ROWS, letters, {"A": "a"})
    assert (found.kind, found.subject, found.text) == (Kind.DEAD_LETTER, "A", "3 requests failed: a")
    (found,) = missing_of(ROWS, [], {"A": "a"})
    assert (found.kind, found.text) == (Kind.NOT_FETCHED, "1 execution could not be fully exported")


def test_what_failed_of_a_waiting_or_deleted_execution_is_of_no_account():
    assert missing_of(ROWS, [letter("3", "B"), letter("5")], {"B": "a"}) == []
