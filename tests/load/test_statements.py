"""The statements that a load runs are those that ``schema --ddl`` prints; what they do: ``test_laws.py``."""

from pathlib import Path

from etl.load.tables import STATE, STATE_TABLE
from tests.loads import assert_settled
from tests.warehouses import Place, load_into, run_printed_ddl


def indexes(place: Place) -> list[str]:
    found = place.query("SELECT CAST(indexname AS text) AS name FROM pg_indexes WHERE schemaname = '{s}' ORDER BY 1")
    return [row["name"] for row in found]


def test_printed_ddl_can_be_run_again_and_makes_what_a_load_makes(data: Path, in_postgresql: Place) -> None:
    run_printed_ddl(in_postgresql)
    before = indexes(in_postgresql)
    in_postgresql.edit("ALTER TABLE {s}.calls DROP COLUMN status CASCADE", "DROP INDEX {s}.evals_execution_id_idx")
    in_postgresql.add_column(STATE, "checksum")  # as an older version has left it
    run_printed_ddl(in_postgresql)
    assert {*in_postgresql.rows(STATE_TABLE)[0]} == {*STATE_TABLE.names}
    assert indexes(in_postgresql) == before
    load_into(in_postgresql, data)
    assert_settled(in_postgresql, data)

    in_postgresql.edit("DROP SCHEMA {s} CASCADE")
    load_into(in_postgresql, data)
    assert indexes(in_postgresql) == before
    in_postgresql.edit("DROP INDEX {s}.calls_run_test_execution_started_at_idx")
    in_postgresql.make_older("evals", "deleted_at")
    load_into(in_postgresql, data)
    assert indexes(in_postgresql) == before
    assert {"calls_run_test_execution_started_at_idx", "executions_run_test_started_at_idx"} <= {*before}
