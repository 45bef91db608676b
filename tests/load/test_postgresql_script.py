"""What an administrator runs: it can be run again, over what any version made, and takes nothing from anybody."""

import gzip
import re
from contextlib import closing
from pathlib import Path

import pytest

from etl.errors import DestinationError
from etl.load.tables import ALL_TABLES, STATE, VIEWS
from etl.model import schema
from tests.loads import assert_settled, compared, next_export
from tests.warehouses import Place, load_into, of_role, printed_ddl, run_printed_ddl, run_psql

OLDER = Path(__file__).parent / "ddl" / "postgresql-1.0.0rc1.sql.gz"
"""What that version printed."""
FIRST_COLUMNS = """
SELECT CAST(i.indexrelid::regclass AS text) AS name FROM pg_index AS i JOIN pg_index AS longer USING (indrelid)
JOIN pg_class AS c ON c.oid = indrelid WHERE c.relnamespace = '{s}'::regnamespace AND i.indexrelid <> longer.indexrelid
AND position(' ' || CAST(i.indkey AS text) || ' ' IN ' ' || CAST(longer.indkey AS text) || ' ') = 1"""
"""Indexes that another one makes redundant."""


def test_script_keeps_grants_and_what_others_made_of_the_views_of_an_older_version(
    data: Path, in_postgresql: Place
) -> None:
    older = gzip.decompress(OLDER.read_bytes()).decode().replace("simulation_metrics", in_postgresql.namespace)
    run_psql(in_postgresql, older)
    grants = ("GRANT USAGE ON SCHEMA {s} TO {r}", "GRANT SELECT ON {s}.calls_current TO {r}")
    in_postgresql.edit("CREATE VIEW {s}.ours AS SELECT call_execution_id AS id FROM {s}.calls_current")
    with closing(of_role(in_postgresql, "reader", *grants)) as reader:

        def read() -> tuple[int, int]:
            ours = in_postgresql.query("SELECT * FROM {s}.ours")
            return len(ours), len(reader.query("SELECT * FROM {s}.calls_current"))

        run_printed_ddl(in_postgresql)
        run_printed_ddl(in_postgresql)
        load_into(in_postgresql, data)
        assert read() == (7, 7)
        alter_view(in_postgresql)
        assert read() == (0, 0)
        load_into(in_postgresql, data)
        assert read() == (7, 7), "a load restores views in the same way"
    assert_settled(in_postgresql, data)


def alter_view(place: Place) -> None:
    (row,) = place.query("SELECT definition FROM pg_views WHERE schemaname = '{s}' AND viewname = 'calls_current'")
    place.edit(f"CREATE OR REPLACE VIEW {{s}}.calls_current AS {row['definition'].rstrip(';')} LIMIT 0")


def test_view_keeps_the_order_of_its_columns_and_those_that_only_it_has(data: Path, in_postgresql: Place) -> None:
    run_printed_ddl(in_postgresql)
    in_postgresql.edit(
        "ALTER TABLE {s}.evals ADD COLUMN row_hash text",
        "DROP VIEW {s}.evals_current",
        "CREATE VIEW {s}.evals_current AS SELECT t.row_hash, t.status, t.execution_id FROM {s}.evals AS t",
    )
    run_printed_ddl(in_postgresql)
    load_into(in_postgresql, data)
    assert [*in_postgresql.query("SELECT * FROM {s}.evals_current")[0]][:4] == [
        "row_hash", "status", "execution_id", "call_execution_id",
    ]  # fmt: skip
    assert compared(in_postgresql, data).findings == []
    assert not load_into(in_postgresql, data).is_changed


def test_readers_see_everything_but_what_a_load_notes_for_itself(
    data: Path, in_postgresql: Place, prepared: Place
) -> None:
    load_into(prepared, data)
    with closing(of_role(in_postgresql, "reader", "GRANT {s}_readers TO {r}")) as reader:
        for name in [*schema.TABLES, *(view.name for view in VIEWS)]:
            assert reader.query(f"SELECT * FROM {{s}}.{name}"), name
        with pytest.raises(DestinationError, match=f"permission denied for table {STATE}"):
            reader.query(f"SELECT * FROM {{s}}.{STATE}")


def test_foreign_keys_of_the_comments_hold(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    keys = re.findall("^-- (ALTER .*)$", printed_ddl(in_postgresql), re.MULTILINE)
    run_psql(in_postgresql, "\n".join(keys))
    next_export(data)
    load_into(in_postgresql, data)
    load_into(in_postgresql, data, is_full=True)
    assert len(keys) == 2
    assert_settled(in_postgresql, data)
    with pytest.raises(DestinationError, match="foreign key"):
        in_postgresql.delete("executions")


def test_script_has_few_statements_and_no_index_that_another_makes_redundant(in_postgresql: Place) -> None:
    run_printed_ddl(in_postgresql)
    assert in_postgresql.query(FIRST_COLUMNS) == []
    assert printed_ddl(in_postgresql).count(";\n\n") < 7 * len(ALL_TABLES)
