"""A load into Snowflake, as far as an emulator of it knows: statements, rows and what becomes of a load that dies.

fakesnow runs them in DuckDB. It keeps no comments of columns, and does not end a transaction at DDL; see also ``as_snowflake``.
"""

import re
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlglot

fakesnow = pytest.importorskip("fakesnow", reason="fakesnow is in an environment of its own: see tests/warehouses.in")

import snowflake.connector  # noqa: E402 with the emulator alone
from fakesnow.cursor import FakeSnowflakeCursor  # noqa: E402 as above

from etl.errors import DestinationError  # noqa: E402 as above
from etl.load.warehouse.load import load  # noqa: E402 as above
from etl.load.warehouse.snowflake import _DIALECT, connect  # noqa: E402 as above
from etl.load.warehouse.spool import Spool  # noqa: E402 as above
from etl.load.warehouse.statements import Statements  # noqa: E402 as above
from etl.load.warehouse.tables import ALL_TABLES, columns_of  # noqa: E402 as above
from etl.model import schema  # noqa: E402 as above
from tests.loads import NAMESPACE, differences, first_export, load_once, next_export  # noqa: E402 as above
from tests.warehouses import Died, by_key, contents_of, rows_of_dataset  # noqa: E402 as above

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")]
URL = "snowflake://an-account/metrics"


def fetch_arrow_all(cursor, **_):
    return cursor._arrow_table


@pytest.fixture
def account(monkeypatch):
    """An account with an empty database."""
    execute, marks = FakeSnowflakeCursor.execute, ["''"]

    def as_snowflake(cursor, statement, *args, **kw):
        """What the emulator does in another way: temporary tables, keys that are not enforced, comments of views."""
        statement = re.sub(r",\s+PRIMARY KEY \([^)]*\)", "", statement.replace("TEMPORARY TABLE", "TABLE"))
        if statement.startswith("CREATE OR REPLACE VIEW"):
            marks.append(statement.split("COMMENT = ")[1].split(" AS SELECT")[0])
        if statement.endswith("FROM information_schema.tables WHERE table_schema = UPPER('simulation_metrics')"):
            statement += f" UNION ALL SELECT LOWER(table_name), {marks[-1]} FROM information_schema.views"
        return execute(cursor, statement, *args, **kw)

    monkeypatch.setattr(FakeSnowflakeCursor, "execute", as_snowflake)
    monkeypatch.setattr(FakeSnowflakeCursor, "fetch_arrow_all", fetch_arrow_all, raising=False)
    with fakesnow.patch(nop_regexes=["ALTER SESSION"]):
        yield


@pytest.fixture
def data(tmp_path):
    return first_export(tmp_path / "data")


@pytest.fixture
def loaded(account, data):
    load_once(URL, data)
    return data


def sql(*statements):
    with closing(snowflake.connector.connect(database="metrics", schema=NAMESPACE)) as connection:
        for statement in statements:
            cursor = connection.cursor().execute(statement)
        return cursor.fetchall()


def assert_settled(data):
    for table in schema.TABLES.values():
        with closing(connect(URL, NAMESPACE)) as opened:
            rows = opened._session.query(f"SELECT * FROM {NAMESPACE}.{table.name}").to_pylist()
        expected = rows_of_dataset(data, table)
        assert by_key(table, [utc(row) for row in rows]) == by_key(table, expected), table.name
    assert differences(URL, data) == []
    assert not load_once(URL, data).is_changed


def utc(row):
    return {name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for name, value in row.items()}


def test_first_load_into_snowflake_brings_every_cell(account, data):
    result = load_once(URL, data)

    assert (result.new, result.rows["calls"]) == (6, 6)
    assert_settled(data)


def test_next_load_into_snowflake_replaces_what_changed(loaded):
    next_export(loaded)
    result = load_once(URL, loaded)

    assert (result.new, result.changed, result.altered, result.removed) == (1, 3, 0, 0)
    assert_settled(loaded)


def test_analysts_need_no_quotes(loaded):
    found = sql(
        f"SELECT duration_seconds, run_test, month FROM metrics.{NAMESPACE}.calls WHERE call_execution_id = 'c3'"
    )

    assert found == [(1.0, "checkout", "2026-08")]
    assert sql("SELECT COUNT(*) FROM calls_current") == [(6,)]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE calls SET duration_seconds = 99.5 WHERE call_execution_id = 'c3'",
        "UPDATE executions SET status = NULL",
        "DELETE FROM evals WHERE execution_id = 'e4'",
        "DELETE FROM executions",
        "DELETE FROM runs",
        "INSERT INTO calls SELECT * FROM calls",
        "DELETE FROM metrics_etl_state",
        "DELETE FROM metrics_etl_state WHERE kind = 'dataset'",
        "DROP TABLE metrics_etl_state",
        "DROP TABLE evals",
        "DROP TABLE runs",
        "DROP VIEW calls_current",
        "ALTER TABLE evals DROP COLUMN reason",
    ],
)
def test_what_was_edited_by_hand_in_snowflake_is_made_equal_again(loaded, edit):
    sql(edit)
    assert load_once(URL, loaded).is_changed
    assert_settled(loaded)


def test_older_copy_of_snowflake_tables_is_brought_up_to_date(loaded):
    names = [table.name for table in ALL_TABLES]
    sql(*(f"CREATE TABLE {name}_before AS SELECT * FROM {name}" for name in names))
    next_export(loaded)
    load_once(URL, loaded)
    sql(
        *(each for name in names for each in (f"DELETE FROM {name}", f"INSERT INTO {name} SELECT * FROM {name}_before"))
    )
    load_once(URL, loaded)

    assert_settled(loaded)


def test_another_dataset_in_snowflake_is_refused(loaded, tmp_path):
    with pytest.raises(DestinationError, match=r"holds another dataset .*: name another \[warehouse\] schema or url"):
        load_once(URL, first_export(tmp_path / "other"))


def test_snowflake_table_of_somebody_else_is_refused(account, data):
    with closing(snowflake.connector.connect(database="metrics")) as connection:
        connection.cursor().execute(f"CREATE SCHEMA {NAMESPACE}")
    sql("CREATE TABLE evals (a NUMBER)")
    with pytest.raises(DestinationError, match="evals was not made by metrics-etl: name another"):
        load_once(URL, data)


def test_column_of_another_type_in_snowflake_is_refused(loaded):
    sql("DROP VIEW calls_current", "ALTER TABLE calls ALTER COLUMN duration_seconds SET DATA TYPE TEXT")
    with pytest.raises(DestinationError, match=r"calls\.duration_seconds is TEXT, expected FLOAT"):
        load_once(URL, loaded)


def test_column_that_others_added_to_snowflake_stays(loaded):
    sql("ALTER TABLE calls ADD COLUMN ours NUMBER", "UPDATE calls SET ours = 7")
    assert not load_once(URL, loaded).is_changed
    next_export(loaded)
    load_once(URL, loaded)

    assert sql("SELECT ours FROM calls WHERE call_execution_id IN ('c6', 'c7') ORDER BY call_execution_id") == [
        (7,),
        (None,),
    ]
    assert differences(URL, loaded) == []


def recorded(monkeypatch):
    """The statements from now on."""
    asked: list[str] = []
    execute = FakeSnowflakeCursor.execute

    def record(cursor, statement, *args, **kw):
        asked.append(statement)
        return execute(cursor, statement, *args, **kw)

    monkeypatch.setattr(FakeSnowflakeCursor, "execute", record)
    return asked


def test_where_nothing_differs_snowflake_is_asked_one_query(loaded, monkeypatch):
    asked = recorded(monkeypatch)
    load_once(URL, loaded)

    assert [each.split()[0] for each in asked] == ["ALTER", "SELECT", "ROLLBACK"]


def test_schema_that_is_there_in_snowflake_is_not_made(account, data, monkeypatch):
    """Who owns one may not be allowed to make one."""
    with closing(connect(URL, NAMESPACE)) as opened:
        opened._session.execute(f"CREATE SCHEMA {NAMESPACE}")
    asked = recorded(monkeypatch)
    load_once(URL, data)

    assert not [each for each in asked if each.startswith("CREATE SCHEMA")]


def die(monkeypatch, data, *, until):
    """A load whose connection is lost at its nth statement; whether it got so far. What was not committed is undone."""
    asked = []
    execute = FakeSnowflakeCursor.execute

    def lossy(cursor, statement, *args, **kw):
        asked.append(statement)
        if len(asked) > until:
            raise Died
        return execute(cursor, statement, *args, **kw)

    with closing(connect(URL, NAMESPACE)) as opened, monkeypatch.context() as patch:
        session: Any = opened._session
        patch.setattr(FakeSnowflakeCursor, "execute", lossy)
        try:
            load(contents_of(data), opened)
        except Died:
            execute(session._cursor, "ROLLBACK")
            return True
    return False


def test_snowflake_load_that_dies_at_any_statement_is_made_up_for(loaded, monkeypatch):
    next_export(loaded)
    before, until = sql("SELECT call_execution_id FROM calls ORDER BY 1"), 0
    while die(monkeypatch, loaded, until=until):
        assert sql("SELECT call_execution_id FROM calls ORDER BY 1") in (before, [(each,) for each in AFTER])
        until += 6

    assert until > 20
    assert_settled(loaded)


AFTER = ["c1", "c4", "c5", "c6", "c7", "c8", "c9"]


def test_first_snowflake_load_that_dies_at_any_statement_is_made_up_for(account, data, monkeypatch):
    until = 0
    while die(monkeypatch, data, until=until):
        until += 6

    assert until > 20
    assert_settled(data)


def test_nothing_is_made_once_the_transaction_has_begun(loaded, monkeypatch):
    """DDL would end it."""
    next_export(loaded)
    sql("DROP TABLE evals")
    asked = recorded(monkeypatch)
    load_once(URL, loaded)
    began = asked.index("BEGIN")

    assert {each.split()[0] for each in asked[began : asked.index("COMMIT", began)]} == {
        "BEGIN",
        "PUT",
        "COPY",
        "DELETE",
        "INSERT",
    }
    for copy in (each for each in asked if each.startswith("COPY")):
        assert "(TYPE = PARQUET USE_LOGICAL_TYPE = TRUE NULL_IF = ())" in copy
        assert copy.endswith("MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE FORCE = TRUE")
    changing = [each for each in asked[:began] if re.match("(?i)(delete|insert|update|copy|put)", each)]
    assert changing == []


def test_copy_that_brings_too_few_rows_ends_the_load_and_changes_nothing(loaded, monkeypatch):
    next_export(loaded)
    take = Spool.take

    def taken(spool):
        for file in take(spool):
            file.rows += 1
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "take", taken)
        with pytest.raises(DestinationError, match=r"metrics_etl_gone took 4 of 5 rows"):
            load_once(URL, loaded)
    load_once(URL, loaded)
    assert_settled(loaded)


def test_every_table_has_its_comments_key_and_mark_in_the_statement_that_makes_it():
    statements = [*Statements(_DIALECT, NAMESPACE).create_all(ALL_TABLES, "a" * 32)]

    assert len(statements) == len(ALL_TABLES) + 2
    for table, statement in zip(ALL_TABLES, statements[1:-1], strict=True):
        (parsed,) = sqlglot.parse(statement, dialect="snowflake")
        assert statement.count(" COMMENT ") == len(columns_of(table)) + 1
        assert "Loaded by metrics-etl from dataset aaaa" in statement
        assert f"PRIMARY KEY ({', '.join(name.upper() for name in table.unique)})" in statement.replace('"', "")
        assert parsed is not None
        assert parsed.find(sqlglot.exp.PrimaryKey)
    assert "COPY GRANTS COMMENT = 'Calls of executions that are not deleted" in statements[-1]
