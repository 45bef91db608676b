"""What is particular to Delta: commits, files, maintenance, other writers, folders and buckets."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from etl.errors import DestinationError
from etl.files.objects import Objects
from etl.load import delta
from etl.load.delta import connect
from etl.load.synchronize import synchronize
from etl.load.tables import ALL_TABLES, arrow_schema_of
from etl.model import schema
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to
from tests.e2e.warm import fork_server
from tests.loads import NAMESPACE, assert_settled, compared, next_export, rehearsed
from tests.stores import KEYS, Refused
from tests.warehouses import Place, by_key, contents_of, load_into, rows_of_dataset

ROOT = Path(__file__).parents[2]


def test_next_load_replaces_executions_by_one_commit_a_table(lake, data):
    """Months of which nothing changed stay as they are, and a month is one file, so that files do not add up."""
    before, files = lake.versions(), {*lake.table().file_uris()}
    next_export(data)
    load_into(lake, data)

    assert lake.versions() == {name: version + 1 for name, version in before.items()}
    assert not files & {*lake.table().file_uris()}, "each month has an execution that changed"
    assert len(lake.table("executions").file_uris()) == len(lake.table("executions").partitions())
    export_to(a_dataset(data), a_bundle("e10", ["c11"], key="refund", date="2026-12-01"))
    files = {*lake.table().file_uris()}
    load_into(lake, data)
    assert files < {*lake.table().file_uris()}
    assert_settled(lake, data)


def test_older_copy_of_one_table_with_as_many_commits_is_noticed(lake, data, tmp_path):
    shutil.copytree(lake.folder / "calls", tmp_path / "backup")
    next_export(data)
    load_into(lake, data)
    shutil.rmtree(lake.folder / "calls")
    shutil.copytree(tmp_path / "backup", lake.folder / "calls")
    lake.table().delete("call_execution_id = 'c6'")
    load_into(lake, data)

    assert_settled(lake, data)


def test_compaction_of_the_tables_loads_nothing_again(lake, data):
    for table in ALL_TABLES:
        lake.table(table.name).optimize.z_order([table.key[0]])
        lake.table(table.name).vacuum(0, dry_run=False, enforce_retention_duration=False)

    assert_settled(lake, data)


def test_commit_of_somebody_else_meanwhile_ends_the_load_and_the_next_heals(lake, data):
    next_export(data)
    with closing(lake.open()) as warehouse:
        loaded = warehouse.loaded()
        nobody = dict.fromkeys(["call_execution_id", "execution_id", "run_test"], "nobody")
        lake.copy("calls", "call_execution_id = 'c3'", **nobody)
        warehouse.loaded = lambda: loaded
        with pytest.raises(DestinationError, match=r"someone else wrote at the same time .*\. Load again"):
            synchronize(contents_of(data), warehouse)
    load_into(lake, data)
    assert_settled(lake, data)


def test_append_only_table_is_told_with_the_property_to_change(lake, data):
    lake.table().alter.set_table_properties({"delta.appendOnly": "true"})
    next_export(data)
    before = lake.versions()
    fix = r"Set delta\.appendOnly to false .*, then run metrics-etl load"
    with pytest.raises(DestinationError, match=rf"calls at .* is append-only\. {fix}"):
        load_into(lake, data)
    assert lake.versions() == before


def test_rows_that_are_being_read_are_read_to_the_end_if_a_write_fails(lake, data, monkeypatch):
    """A process that ends while Arrow reads ahead may hang."""
    open_dataset, is_read = DeltaTable.to_pyarrow_dataset, []

    def opened(handle):
        dataset = open_dataset(handle)

        def batches(**options):
            yield from dataset.scanner(**options).to_batches()
            is_read.append(True)

        scanner = lambda **options: SimpleNamespace(to_batches=lambda: batches(**options))  # noqa: E731 as it is called
        return SimpleNamespace(to_table=dataset.to_table, scanner=scanner)

    def fail(*_arguments, **_options):
        raise OSError("no space left")

    monkeypatch.setattr(DeltaTable, "to_pyarrow_dataset", opened)
    monkeypatch.setattr(delta, "write_deltalake", fail)
    with pytest.raises(DestinationError, match="no space left"):
        load_into(lake, data, is_full=True)
    assert is_read == [True]


@pytest.mark.slow
def test_load_that_is_killed_inside_a_write_is_made_up_for(lake, data):
    """When it has written so many files more, of which no commit may tell yet."""
    next_export(data)
    backup = lake.dump()
    code = "import sys, pathlib, tests.warehouses as w; w.load_into(w.Place(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    for more in count(1, 3):
        lake.restore(backup)
        enough = lake.files() + more
        process = subprocess.Popen([sys.executable, "-c", code, lake.url, str(data)], cwd=ROOT)
        while process.poll() is None and lake.files() < enough:
            pass
        process.kill()
        if process.wait() == 0:
            break
        load_into(lake, data)
        assert_settled(lake, data)
    assert more > len(ALL_TABLES)


def test_folder_that_holds_other_files_is_refused(lake, data):
    with pytest.raises(DestinationError, match="data/calls holds files that are not a Delta table"):
        load_into(Place(f"delta://{data}"), data)
    assert not (data / "calls" / "_delta_log").exists()


def test_delta_log_that_is_gone_is_told_with_the_fix(lake, data):
    shutil.rmtree(lake.folder / "evals" / "_delta_log")
    with pytest.raises(DestinationError, match=r"Delta log of .*evals is gone\. Remove the table, and run"):
        load_into(lake, data)
    shutil.rmtree(lake.folder / "evals")
    load_into(lake, data)

    assert_settled(lake, data)


def test_deletion_vectors_of_another_writer_are_told_with_the_fix(lake, data):
    """As Databricks notes them: the library here cannot write any."""
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    noted = json.dumps({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}})
    (lake.folder / "calls" / "_delta_log" / f"{lake.table().version() + 1:020}.json").write_text(f"{noted}\n")
    with pytest.raises(DestinationError, match=r"deletion vectors, .* for .*calls\. .* ALTER TABLE calls DROP FEATURE"):
        load_into(lake, data)


def test_tables_and_columns_say_what_they_are(lake, data):
    table = lake.table()
    comments = {field.name: field.metadata["comment"] for field in table.schema().fields}

    assert table.metadata().description == "One row per call."
    assert table.metadata().partition_columns == ["run_test", "month"]
    assert comments["duration_seconds"] == "Length of the call. Unit: s."
    assert all(comments.values())
    assert [field.name for field in table.schema().fields] == arrow_schema_of(schema.CALLS).names
    assert not next(field for field in table.schema().fields if field.name == "call_execution_id").nullable


def test_polars_and_duckdb_read_the_same_rows(lake, data):
    next_export(data)
    load_into(lake, data)
    for table in schema.TABLES.values():
        expected = rows_of_dataset(data, table)
        assert by_key(table, pl.read_delta(str(lake.folder / table.name)).to_dicts()) == expected
        rows = lake.table(table.name).to_pyarrow_dataset()  # noqa: F841 DuckDB finds it by its name
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            assert by_key(table, connection.sql("SELECT * FROM rows").to_arrow_table().to_pylist()) == expected


@pytest.fixture
def bucket(seaweed_store, keys, monkeypatch):
    """A place in a bucket where nothing is."""
    for name, value in {
        "AWS_ENDPOINT_URL": seaweed_store.endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return Place(f"delta+{seaweed_store.url()}")


def elsewhere(proxy):
    """A process beside this one, which the library may hold while it waits for the proxy: no thread could answer."""
    return ProcessPoolExecutor(1, fork_server(), take, ({**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint},))


def take(environment):
    os.environ.update(environment)


def test_bucket_is_loaded_changed_and_healed(data, bucket):
    assert load_into(bucket, data).new == 7
    assert compared(bucket, data).findings == []
    next_export(data)
    DeltaTable(f"{bucket.url.removeprefix('delta+')}/calls").delete("call_execution_id = 'c6'")
    result = load_into(bucket, data)

    assert (result.new, result.changed) == (1, 7)
    assert compared(bucket, data).findings == []
    assert not load_into(bucket, data).is_changed


def test_quiet_load_asks_a_bucket_little_and_no_more_after_each_night(data, bucket, proxy):
    """For each table: which commits there are, and the newest one; and the rows of what was loaded."""
    asked = []
    with elsewhere(proxy) as process:
        for number in range(2):
            load_into(bucket, data)
            proxy.requests.clear()
            assert not process.submit(load_into, Place(bucket.url), data).result().is_changed
            asked.append([each.method for each in proxy.requests])
            export_to(a_dataset(data), a_bundle(f"n{number}", [f"n{number}"], key="refund", date="2026-12-01"))

    assert asked == [["GET"] * (2 * len(ALL_TABLES) + 1)] * 2


@pytest.mark.parametrize("where", ["in_delta", pytest.param("bucket", marks=pytest.mark.slow)])
def test_of_loads_that_begin_at_once_one_wins(request, data, where):
    place = request.getfixturevalue(where)
    load_into(place, data)
    next_export(data)
    racers = [place.open() for _ in range(2)]
    for racer in racers:
        loaded = racer.loaded()
        racer.loaded = lambda loaded=loaded: loaded
    synchronize(contents_of(data), racers[0])
    with pytest.raises(DestinationError, match=r"someone else wrote at the same time .*\. Load again"):
        synchronize(contents_of(data), racers[1])

    assert compared(place, data).findings == []
    assert not load_into(place, data).is_changed


def test_bucket_that_refuses_the_key_is_one_line(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(DestinationError) as refused:
        bucket.open().loaded()

    assert str(refused.value).endswith(": the secret key does not match the access key. Check the credentials")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(refused.value)


def test_bucket_that_refuses_something_is_told_by_a_rehearsal(bucket, data, proxy):

    def paths():
        return {each.path for each in Objects(bucket.url.removeprefix("delta+"), proxy.options).list("")}

    with elsewhere(proxy) as process:

        def rehearse():
            return process.submit(rehearsed, Place(bucket.url)).result()

        assert (rehearse(), paths()) == (True, set())
        load_into(bucket, data)
        before = paths()
        assert (rehearse(), paths()) == (True, before)
        for words in (["GET"], ["PUT"], ["DELETE", "POST"]):  # many are deleted by one POST
            proxy.judge = lambda told, words=words: Refused(403, "AccessDenied") if told.method in words else None
            with pytest.raises(DestinationError, match=r": there is no permission\. Allow reading, writing"):
                rehearse()
        proxy.judge = lambda _: Refused(403, "RequestTimeTooSkewed")
        with pytest.raises(DestinationError, match=r": this machine's clock is wrong\. Correct the clock"):
            rehearse()


def test_url_says_where_the_tables_are():
    assert connect("delta:///srv/lake/", NAMESPACE).where == "/srv/lake"
    assert connect("delta+s3://bucket/prefix", NAMESPACE).where == "s3://bucket/prefix"
