"""``etl.open_table`` gives engines the rows of ``etl.read_table``, and opens no file that a filter leaves out."""

import pickle
import shutil

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import etl
from etl.errors import ConfigurationError, DestinationError
from etl.model import schema
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to
from tests.inspect.test_read_tables import DAYS, TABLES, a_part_a_day, exported
from tests.stores import KEYS, Store, upload

__all__ = ["exported"]


def rows(table):
    """Of a pyarrow table, by its key; a list of dictionaries."""
    return sorted(table.to_pylist(), key=str)


def read(path, table):
    frame = etl.read_table(path, table, deleted="include").drop(columns="date")
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.mark.parametrize("table", TABLES)
def test_dataset_of_a_table_has_its_rows_and_declared_types(exported, table):
    found = etl.open_table(exported, table).to_table()
    declared = schema.TABLES[table].arrow_schema
    assert found.select(declared.names).schema.equals(declared)
    assert {found.schema.field(name).type for name in set(found.column_names) - {*declared.names}} == {pa.string()}
    assert rows(found.drop_columns("month")) == rows(read(exported, table))


def test_filter_opens_only_the_files_that_match(exported, tmp_path):
    data = shutil.copytree(exported, tmp_path / "data")
    table = etl.open_table(data, "executions")
    for path in data.glob("executions/*/*/*.parquet"):
        if "run_test=checkout" not in str(path) or "month=2026-09" not in str(path):
            path.write_bytes(b"PAR1 but nothing else")
    wanted = (ds.field("run_test") == "checkout") & (ds.field("month") == "2026-09")
    found = table.filter(wanted).to_table()
    assert set(found["execution_id"].to_pylist()) == {"checkout-2026-09-01", "checkout-2026-09-02"}
    assert set(found["month"].to_pylist()) == {"2026-09"}


def test_table_without_files_has_all_columns_and_no_rows(tmp_path):
    export_to(a_dataset(tmp_path), a_bundle("e1", ["c1"]))
    found = etl.open_table(tmp_path, "errors")
    assert (found.count_rows(), found.schema.names[-2:]) == (0, ["run_test", "month"])


def test_unknown_table_and_missing_dataset_are_refused(exported, tmp_path):
    with pytest.raises(ConfigurationError, match=r"there is no table 'call'\. Did you mean 'calls'"):
        etl.open_table(exported, "call")
    with pytest.raises(DestinationError, match="there is no dataset at "):
        etl.open_table(tmp_path / "no", "calls")


def test_it_and_its_fragments_can_be_sent_to_workers(tmp_path):
    export_to(a_dataset(tmp_path), *(a_bundle(day, [f"{day}-c"], date=day) for day in DAYS), parts_of=a_part_a_day)
    table = etl.open_table(tmp_path, "calls")
    sent = pickle.loads(pickle.dumps(table))
    assert rows(sent.to_table()) == rows(table.to_table())
    pieces = [pickle.loads(pickle.dumps(each)) for each in table.get_fragments()]
    assert len(pieces) == len(DAYS)
    assert rows(pa.concat_tables(each.to_table(schema=table.schema) for each in pieces)) == rows(table.to_table())


def test_dataset_in_a_bucket_is_read_through_its_store(exported, seaweed_store: Store, keys: None):
    url = f"{seaweed_store.url()}/opened"
    upload(exported, url, seaweed_store.options)
    table = etl.open_table(url, "calls", options=seaweed_store.options)
    sent = pickle.dumps(table)
    assert rows(pickle.loads(sent).to_table()) == rows(etl.open_table(exported, "calls").to_table())
    assert not any(key.encode() in sent for key in KEYS.values()), "keys of the environment stay there"
