"""What a rehearsal says is so: where it finds nothing, a load works, and what it finds, a load would meet."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from etl.errors import DestinationError
from etl.load.tables import ALL_TABLES
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to
from tests.load.test_postgresql import DROPPING
from tests.loads import assert_settled, rehearsed
from tests.warehouses import Place, holding, load_into, of_role, run_printed_ddl, run_psql

ENCODING = "Create the database with ENCODING 'UTF8'$"


@pytest.fixture
def database(in_postgresql: Place) -> Iterator[Place]:
    """A database of its own, in which the tables are made and granted as docs/warehouses.md says."""
    name = in_postgresql.namespace
    run_psql(in_postgresql, f"CREATE DATABASE {name}")
    run_psql(in_postgresql, f"CREATE ROLE {name}_loader; CREATE ROLE {name}_readers")
    with closing(Place(in_postgresql.url.replace("/postgres", f"/{name}"), name)) as place:
        run_psql(place, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
        run_printed_ddl(place)
        yield place
    run_psql(in_postgresql, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def granted(database: Place) -> Iterator[Place]:
    """The same for a loader that has what it was granted there, and nothing else."""
    with closing(of_role(database, "loader", "GRANT {s}_loader TO {r}")) as place:
        yield place


def refusal(work: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    try:
        work(*arguments, **options)
    except DestinationError as error:
        return str(error)
    return ""


def assert_both_say(words: str, place: Place, data: Path) -> None:
    for told in refusal(rehearsed, place), refusal(load_into, place, data, is_full=True):
        assert re.search(words, told) if words else not told, told


ALLOW = r"permission denied for (table|view|schema) \w+\. See .Permissions. in docs/warehouses.md"
SETUPS = {
    "temporary tables": ("REVOKE TEMPORARY ON DATABASE {s} FROM {s}_loader", "permission denied to create temporary"),
    "schema": ("REVOKE USAGE ON SCHEMA {s} FROM {s}_loader", ALLOW),
    "policies": (
        "ALTER TABLE {s}.evals ENABLE ROW LEVEL SECURITY",
        'policy for table "evals": Give this role BYPASSRLS, or disable row-level security on the table$',
    ),
    "policies, but not for this role": (
        "ALTER TABLE {s}.evals ENABLE ROW LEVEL SECURITY; ALTER ROLE {r} BYPASSRLS",
        "",
    ),
    "read-only role": (
        "ALTER ROLE {r} SET default_transaction_read_only = on",
        r"This role or database is read-only \(default_transaction_read_only\)\. Name a role that may write",
    ),
    "no view": ("DROP VIEW {s}.calls_current", f"cannot create calls_current: .*{ALLOW}"),
    "no table": ("DROP TABLE {s}.runs CASCADE", f"cannot create runs: .*{ALLOW}"),
    "no column": ("ALTER TABLE {s}.runs DROP COLUMN message", r"must be owner of table runs: .*runs\.message$"),
    "trigger": (DROPPING.replace("(NEW.execution_id = 'e2')", "(true)"), "more or fewer rows arrived than were sent"),
    "column of others": (
        "ALTER TABLE {s}.evals ADD team text DEFAULT 'a' NOT NULL; ALTER TABLE {s}.evals ALTER team DROP DEFAULT",
        'null value in column "team"',
    ),
}
QUICK = {"temporary tables", "no view", "trigger"}


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in SETUPS]
)
def test_what_a_load_needs_is_known_before(data: Path, database: Place, granted: Place, name: str) -> None:
    statements, words = SETUPS[name]
    assert_both_say("", granted, data)
    role = granted.namespace.replace("metrics", "loader")
    run_psql(database, statements.replace("{s}", database.namespace).replace("{r}", role))
    granted.close()
    assert_both_say(words, granted, data)


@pytest.mark.slow
def test_each_documented_grant_is_needed_and_no_other(data: Path, database: Place, granted: Place) -> None:
    assert_both_say("", granted, data)
    for table in ALL_TABLES:
        for privilege in ("SELECT", "INSERT", "DELETE"):
            database.edit(f"REVOKE {privilege} ON {{s}}.{table.name} FROM {{s}}_loader")
            assert_both_say(f"permission denied for table {table.name}: see .Permissions.", granted, data)
            database.edit(f"GRANT {privilege} ON {{s}}.{table.name} TO {{s}}_loader")
    assert_settled(database, data)


@pytest.mark.parametrize("encoding", ["LATIN1", pytest.param("SQL_ASCII", marks=pytest.mark.slow)])
def test_database_of_another_encoding_is_refused(data: Path, in_postgresql: Place, encoding: str) -> None:
    name = in_postgresql.namespace
    run_psql(
        in_postgresql, f"CREATE DATABASE {name} ENCODING {encoding} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    with closing(Place(in_postgresql.url.replace("/postgres", f"/{name}"), name)) as place:
        assert re.search(ENCODING, refusal(rehearsed, place))
        export_to(a_dataset(data), a_bundle("日本", ["c0"]))
        if encoding == "LATIN1":
            assert re.search(ENCODING, refusal(load_into, place, data))
    run_psql(in_postgresql, f"DROP DATABASE {name} WITH (FORCE)")


def test_duckdb_file_that_another_process_holds_is_named_with_the_fix(data: Path, in_duckdb: Place) -> None:
    load_into(in_duckdb, data)
    with holding(in_duckdb):
        assert_both_say(r"Conflicting lock is held in .*\. Close the file in that program", in_duckdb, data)
    assert_both_say("", in_duckdb, data)
