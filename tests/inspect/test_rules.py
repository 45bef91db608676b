"""Faults of one file that the exporter's own writer would refuse to write."""

import pyarrow as pa
import pytest

from etl.inspect.rules import Fault, Finding, KeyedHashes, Kind, damage, row_faults, schema_fault
from etl.load.merge import with_column
from etl.model import schema
from etl.model.digest import rows_digest
from etl.transform.frames import hash_rows
from tests.bundles import KEY, a_bundle
from tests.datasets import a_dataset, export_to
from tests.datasets import part as part_of


@pytest.fixture
def calls(tmp_path):
    dataset = a_dataset(tmp_path)
    export_to(dataset, a_bundle())
    return dataset.read(schema.CALLS, part_of("calls"), list(schema.CALLS.names))


def test_rows_as_they_were_exported_have_no_faults(calls):
    assert list(row_faults(schema.CALLS, calls)) == []


def test_null_keys_are_counted(calls):
    loose = calls.cast(pa.schema([field.with_nullable(True) for field in calls.schema]))
    faults = list(row_faults(schema.CALLS, with_column(loose, "call_execution_id", [None, "c2"])))
    assert faults[0] == Fault(Kind.NULL_KEY, "1 row without call_execution_id")


def test_a_row_without_a_hash_is_left_to_the_digest(calls):
    assert list(row_faults(schema.CALLS, with_column(calls, "row_hash", [None, calls["row_hash"][1].as_py()]))) == []


@pytest.mark.parametrize("position", [0, 4_999, 5_000])
def test_an_altered_row_is_found_wherever_it_stands(calls, position):
    ids = [f"c{row}" for row in range(5_001)]
    many = with_column(calls.take([0] * len(ids)), "call_execution_id", ids)
    many = with_column(many, "row_hash", hash_rows(schema.CALLS, many))
    names = many["scenario_name"].to_pylist()
    names[position] = "another"
    assert list(row_faults(schema.CALLS, with_column(many, "scenario_name", names))) == [
        Fault(Kind.ALTERED, f"1 row with other values than were exported: call_execution_id c{position}")
    ]


def test_a_table_without_its_key_is_none_of_ours():
    fields = [field for field in schema.EVALS.arrow_schema if field.name != "eval_config_id"]
    fault = schema_fault(schema.EVALS, pa.schema(fields))
    assert fault == Fault(Kind.SCHEMA, "is missing the column eval_config_id, a part of its key")


def test_rows_that_lie_elsewhere_do_not_replace_those_that_lie_here():
    here, elsewhere = (
        KeyedHashes({"calls": {("c1",): "a"}}),
        KeyedHashes({"calls": {("c1",): "b", ("c2",): "c"}, "evals": {("e",): "d"}}),
    )
    assert (here | elsewhere).hashes == {"calls": {("c1",): "a", ("c2",): "c"}, "evals": {("e",): "d"}}


def test_an_execution_that_claims_to_be_whole_holds_all_calls_that_were_listed():
    row = {"export_state": "exported", "listed_calls": 2, "exported_calls": 1, "calls_digest": rows_digest(["a"])}
    held = KeyedHashes({"calls": {("c1",): "a"}}).held(2)
    assert damage(row, held) == "exported, but 2 calls were listed and 1 exported"
    assert damage(row | {"export_state": "incomplete"}, held) is None


def test_a_finding_is_one_line_whatever_a_file_is_called():
    line = str(Finding(Kind.STRAY_FILE, f"calls/{KEY}\n\x1b[2J", "is not a file of this dataset"))
    assert line.isprintable()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.UNREADABLE, "metrics-etl run fetches its rows again"),
        (Kind.SCHEMA, "metrics-etl run fetches its rows again"),
        (Kind.MISPLACED, "metrics-etl run drops what belongs elsewhere"),
    ],
)
def test_no_run_is_said_to_mend_a_file_of_runs(kind, words):
    run, part = (
        Finding(kind, place, "").fix for place in ("runs/month=2026-11/a.parquet", "calls/run_test=a/b.parquet")
    )
    assert run.endswith("move the file out of the dataset: at most the row of that one run is lost")
    assert part.endswith(words)
