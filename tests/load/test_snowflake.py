"""The laws of loads on an emulator of Snowflake, and what is particular to it: statements, and DDL in transactions.

fakesnow runs them in DuckDB. It keeps no comments of columns, and does not end a transaction at DDL; see also
``as_snowflake``.
"""

import re
from contextlib import closing
from datetime import UTC, datetime

import pytest
import sqlglot

fakesnow = pytest.importorskip("fakesnow", reason="fakesnow is in an environment of its own: see tests/snowflake.in")

from fakesnow.cursor import FakeSnowflakeCursor  # noqa: E402 with the emulator alone

from etl.errors import DestinationError  # noqa: E402 as above
from etl.load import snowflake  # noqa: E402 as above
from etl.load.snowflake import _DIALECT  # noqa: E402 as above
from etl.load.tables import ALL_TABLES, VIEWS, columns_of  # noqa: E402 as above
from tests.load.test_laws import *  # noqa: E402, F403 the laws, with the place of this module
from tests.loads import assert_settled, made_by, next_export, spooled_with_one_more  # noqa: E402 as above
from tests.warehouses import Place, load_into  # noqa: E402 as above

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")]


class Account(Place):
    """Its times have no zone."""

    is_emulated = True
    can_rehearse = False

    def query(self, sql):
        return [
            {name: each.replace(tzinfo=UTC) if isinstance(each, datetime) else each for name, each in row.items()}
            for row in super().query(sql)
        ]


def fetch_arrow_all(cursor, **_):
    return cursor._arrow_table


@pytest.fixture
def empty(monkeypatch):
    """An account with an empty database."""
    execute = FakeSnowflakeCursor.execute

    def as_snowflake(cursor, statement, *args, **kw):
        """What the emulator does in another way: temporary tables, keys that are not enforced."""
        statement = re.sub(r",\s+PRIMARY KEY \([^)]*\)", "", statement.replace("TEMPORARY TABLE", "TABLE"))
        return execute(cursor, statement, *args, **kw)

    monkeypatch.setattr(FakeSnowflakeCursor, "execute", as_snowflake)
    monkeypatch.setattr(FakeSnowflakeCursor, "fetch_arrow_all", fetch_arrow_all, raising=False)
    with fakesnow.patch(nop_regexes=["ALTER SESSION"]), closing(Account("snowflake://an-account/metrics")) as account:
        yield account


def test_analysts_need_no_quotes(target):
    found = target.query("SELECT duration_seconds, run_test, month FROM {s}.calls WHERE call_execution_id = 'c3'")

    assert found == [{"duration_seconds": 1.0, "run_test": "checkout", "month": "2026-08"}]


def recorded(monkeypatch):
    """The statements from now on."""
    asked: list[str] = []
    execute = FakeSnowflakeCursor.execute

    def record(cursor, statement, *args, **kw):
        asked.append(statement)
        return execute(cursor, statement, *args, **kw)

    monkeypatch.setattr(FakeSnowflakeCursor, "execute", record)
    return asked


def test_schema_that_is_there_in_snowflake_is_not_made(empty, data, monkeypatch):
    """Who owns one may not be allowed to make one."""
    empty.edit("CREATE SCHEMA {s}")
    asked = recorded(monkeypatch)
    load_into(empty, data)

    assert not [each for each in asked if each.startswith("CREATE SCHEMA")]


def test_nothing_is_made_once_the_transaction_has_begun(target, data, monkeypatch):
    """DDL would end it."""
    next_export(data)
    target.remove("evals")
    asked = recorded(monkeypatch)
    load_into(target, data)
    began = asked.index("BEGIN")

    kinds = {each.split()[0] for each in asked[began : asked.index("COMMIT", began)]}
    assert kinds == {"BEGIN", "PUT", "COPY", "SELECT", "DELETE", "INSERT"}
    for copy in (each for each in asked if each.startswith("COPY")):
        assert "(TYPE = PARQUET USE_LOGICAL_TYPE = TRUE NULL_IF = ())" in copy
        assert copy.endswith("MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE FORCE = TRUE")
    changing = [each for each in asked[:began] if re.match("(?i)(delete|insert|update|copy|put)", each)]
    assert changing == []


def test_copy_that_brings_too_few_rows_ends_the_load_and_changes_nothing(target, data, monkeypatch):
    next_export(data)

    with monkeypatch.context() as patch:
        patch.setattr(snowflake, "spooled", spooled_with_one_more)
        with pytest.raises(DestinationError, match=r"metrics_etl_gone accepted 6 of 7 rows"):
            load_into(target, data)
    load_into(target, data)
    assert_settled(target, data)


def test_every_table_has_its_comments_key_and_mark_in_the_statement_that_makes_it():
    statements = made_by(_DIALECT)

    for table, statement in zip(ALL_TABLES, statements, strict=False):
        (parsed,) = sqlglot.parse(statement, dialect="snowflake")
        assert statement.count(" COMMENT ") == len(columns_of(table)) + 1
        assert f"PRIMARY KEY ({', '.join(name.upper() for name in table.key)})" in statement.replace('"', "")
        assert parsed is not None
        assert parsed.find(sqlglot.exp.PrimaryKey)
    for view, statement in zip(VIEWS, statements[-len(VIEWS) :], strict=True):
        assert f"COPY GRANTS COMMENT = '{view.meaning}'" in statement
