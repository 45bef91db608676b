"""What one part holds is what its files say, and is remembered only where their versions can be trusted."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.dataset.part_index import versions_of
from etl.extract.plan import Reason
from etl.files.interface import Entry
from tests.bundles import a_bundle
from tests.datasets import FETCHED_AT, contents, export_to, part, reasons


@pytest.mark.parametrize("table", ["executions", "calls", "evals"])
def test_rows_that_somebody_doubled_are_fetched_again_and_stand_once(dataset, tmp_path, table):
    bundles = [a_bundle("e1"), a_bundle("e2", ["c3"])]
    export_to(dataset, *bundles)
    before = contents(tmp_path)
    rows = pq.ParquetFile(tmp_path / part(table)).read()
    pq.write_table(pa.concat_tables([rows, rows]), tmp_path / part(table))
    assert reasons(dataset, *bundles) == {"e1": Reason.DAMAGED, "e2": Reason.DAMAGED}
    for days in (1, 2):
        export_to(dataset, *bundles, fetched_at=FETCHED_AT + timedelta(days=days))
    assert contents(tmp_path) == before


def test_versions_are_those_of_each_table_and_unknown_if_one_may_change_unseen():
    entries = {"calls": Entry("a", version="1"), "evals": Entry("b", version="2")}
    assert sorted(versions_of(entries) or ()) == ["", "", "1", "2"]
    assert versions_of(entries | {"errors": Entry("c", version="3", is_fresh=True)}) is None
    assert versions_of(entries | {"errors": Entry("c")}) is None, "the storage does not say"
