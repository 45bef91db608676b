"""Faults of one file that the exporter's own writer would refuse to write."""

import pyarrow as pa
import pytest

from etl.dataset.index import list_parts
from etl.dataset.part_index import held_rows
from etl.inspect.rules import Placement, damage, doubled_rows
from etl.model import schema
from etl.model.arrow import with_column
from etl.model.findings import Kind
from etl.model.lifecycle import HeldRows
from tests.bundles import EXPORT, a_bundle
from tests.datasets import a_dataset, export_to
from tests.datasets import part as part_of
from tests.support import paths_in


@pytest.fixture
def calls(tmp_path):
    dataset = a_dataset(tmp_path)
    export_to(dataset, a_bundle())
    return dataset.read(schema.CALLS, part_of("calls"), list(schema.CALLS.names))


def faults(calls):
    found = list(doubled_rows(schema.CALLS, "path", calls))
    assert {(each.kind, each.subject) for each in found} <= {(Kind.MISPLACED, "path")}
    return [each.text for each in found]


def test_a_call_stands_twice_only_if_all_but_one_of_its_rows_are_marked_in_other_executions(calls):
    first = calls.slice(0, 1)
    marked = with_column(with_column(first, "deleted_at", [EXPORT.exported_at]), "execution_id", ["other"])
    twice = "holds 1 duplicate key (first: call_execution_id c1)"
    assert faults(pa.concat_tables([calls, marked])) == []
    assert faults(pa.concat_tables([calls, marked, marked])) == [twice]
    assert faults(pa.concat_tables([calls, first])) == [twice]


@pytest.mark.parametrize("position", [0, 4_999, 5_000])
def test_an_altered_row_changes_the_digest_wherever_it_stands(calls, position):
    ids = [f"c{row}" for row in range(5_001)]
    many = with_column(calls.take([0] * len(ids)), "call_execution_id", ids)
    names = many["scenario_name"].to_pylist()
    names[position] = "another"
    altered = with_column(many, "scenario_name", names)
    before, after = (held_rows({"e1": None}, rows, schema.EVALS.no_rows)["e1"] for rows in (many, altered))
    assert before.exported_calls == len(ids)
    assert before.calls_digest != after.calls_digest


def test_an_execution_that_claims_to_be_whole_holds_all_calls_that_were_listed():
    held = HeldRows(listed_calls=None, exported_calls=1, calls_digest="digest")
    row = {"listed_calls": 2, "exported_calls": 1, "calls_digest": held.calls_digest, "deleted_at": None}
    whole = row | {"export_state": "exported"}
    assert damage(whole, held) == "it is exported, but has 1 of 2 listed calls"
    for fine in (row | {"export_state": "incomplete"}, whole | {"deleted_at": EXPORT.exported_at}):
        assert damage(fine, held) is None


def test_calls_and_evals_are_those_that_the_execution_vouches_for_with_their_marks():
    held = HeldRows(listed_calls=1, exported_calls=1, calls_digest="digest")
    row = {"listed_calls": 1, "exported_calls": 1, "export_state": "exported", "deleted_at": None}
    assert damage(row | {"calls_digest": held.calls_digest}, held) is None
    assert damage(row | {"calls_digest": "other"}, held) == "its calls or evals differ from what was exported"
    assert damage(row | {"exported_calls": 2}, held) == "the dataset has 1 of the 2 calls that were exported"


def test_a_call_of_two_executions_is_one_finding_though_both_vouch_for_it(tmp_path):
    dataset = a_dataset(tmp_path)
    export_to(dataset, a_bundle("e1", ["c1"]))
    export_to(dataset, a_bundle("e2", ["c1", "c2"], date="2026-10-03"))
    placement, tables = Placement(), (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
    for part in list_parts(dataset.files):
        placement.add(part, {table.name: dataset.rows(table, part) for table in tables})

    (finding,) = placement.findings()

    paths = sorted(paths_in(dataset.files, "calls"))
    assert (finding.kind, finding.subject) == (Kind.MISPLACED, paths[0])
    assert finding.text == f"has 1 call (c1) in common with {paths[1]}"
