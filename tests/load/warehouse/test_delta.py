"""Delta tables are equal to the dataset after a load, whatever happened to them, and are never changed in more than one step."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, TableFeatures, write_deltalake
from deltalake.exceptions import DeltaError

from etl.errors import DestinationError
from etl.load.warehouse import delta_table
from etl.load.warehouse.contents import Contents
from etl.load.warehouse.delta import connect
from etl.load.warehouse.delta_table import OneTable
from etl.load.warehouse.tables import ALL_TABLES, STATE, arrow_schema_of
from etl.load.warehouse.target import LoadStep
from etl.model import schema
from tests.loads import NAMESPACE, differences, first_export, load_once, next_export
from tests.stores import KEYS
from tests.support import IS_FULL
from tests.warehouses import Died, by_key, rows_of_dataset

ROOT = Path(__file__).parents[3]
DATA_TABLES = list(schema.TABLES.values())


class Lake:
    """Delta tables in a folder, and the dataset that they are loaded from."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.url = f"delta://{folder}"

    def open(self, table: str = "calls") -> DeltaTable:
        return DeltaTable(self.folder / table)

    def load(self, **options):
        return load_once(self.url, self.data, **options)

    def export_again(self) -> None:
        """Let the dataset go on as a copy: others have it, too."""
        self.data = shutil.copytree(self.data, self.folder.with_name("data"))
        next_export(self.data)

    def versions(self) -> dict[str, int]:
        return {table.name: self.open(table.name).version() for table in ALL_TABLES}

    def assert_equal(self) -> None:
        """Every cell is that of the dataset, as somebody else reads the tables."""
        for table in DATA_TABLES:
            rows = self.open(table.name).to_pyarrow_table()
            assert by_key(table, rows.to_pylist()) == rows_of_dataset(self.data, table), table.name

    def assert_settled(self) -> None:
        """All is equal, and there is nothing left to do."""
        self.assert_equal()
        before = self.versions()
        assert not self.load().is_changed
        assert self.versions() == before


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The first export, loaded."""
    root = tmp_path_factory.mktemp("lake")
    load_once(f"delta://{root}/lake", first_export(root / "data"))
    return root


@pytest.fixture
def lake(loaded, tmp_path):
    """A copy of the tables, to do with as one likes."""
    return Lake(shutil.copytree(loaded / "lake", tmp_path / "lake"), loaded / "data")


def test_first_load_makes_a_delta_table_of_each_table(tmp_path):
    lake = Lake(tmp_path / "lake", first_export(tmp_path / "data"))
    result = lake.load()

    assert (result.new, result.rows["calls"], result.rows["evals"]) == (6, 6, 7)
    lake.assert_settled()
    assert lake.open("calls").metadata().partition_columns == ["run_test", "month"]
    assert lake.open("runs").metadata().partition_columns == ["month"]


def test_next_load_replaces_executions_by_one_commit_a_table(lake):
    before = lake.versions()
    lake.export_again()
    result = lake.load()

    assert (result.new, result.changed, result.altered, result.removed) == (1, 3, 0, 0)
    assert lake.versions() == {name: version + 1 for name, version in before.items()}
    lake.assert_settled()


def test_files_without_a_changed_execution_stay_as_they_are(lake):
    before = {*lake.open("calls").file_uris()}
    lake.export_again()
    lake.load()
    kept = before & {*lake.open("calls").file_uris()}

    assert {path.split("calls/")[1].rpartition("/")[0] for path in kept} == {"run_test=refund/month=2026-10"}


def test_rows_of_a_night_join_the_file_of_their_month(lake):
    lake.export_again()
    lake.load()

    assert len(lake.open("executions").file_uris()) == len(lake.open("executions").partitions())


@pytest.mark.parametrize("name", ["execution_id", "run_test", "month", "eval_config_id"])
def test_row_that_belongs_to_nothing_cannot_be_appended(lake, name):
    """No load could ever find it again."""
    rows = lake.open("evals").to_pyarrow_table()
    number = rows.schema.get_field_index(name)
    without = rows.set_column(number, name, pa.nulls(len(rows), rows.schema.field(name).type))
    with pytest.raises(DeltaError, match=r"validation check|null"):
        write_deltalake(lake.folder / "evals", without, mode="append")

    lake.assert_settled()


def test_full_file_takes_no_more_rows(lake, monkeypatch):
    monkeypatch.setattr(delta_table, "_FULL_BYTES", 1)
    before = {path for path in lake.open().file_uris() if "refund" in path}
    lake.export_again()
    lake.load()

    assert before < {*lake.open().file_uris()}
    lake.assert_settled()


def test_where_nothing_differs_nothing_is_committed_and_no_row_read(lake, monkeypatch):
    read = OneTable._rows_of

    def read_state_alone(table, file):
        assert table._table.name == STATE
        return read(table, file)

    monkeypatch.setattr(OneTable, "_rows_of", read_state_alone)
    before = lake.versions()

    assert not lake.load().is_changed
    assert lake.versions() == before


def test_full_load_replaces_everything_by_one_commit_a_table(lake):
    before = lake.versions()
    result = lake.load(is_full=True)

    assert (result.changed, result.rows["calls"]) == (6, 6)
    assert lake.versions() == {name: version + 1 for name, version in before.items()}
    lake.assert_settled()


def delete_calls(lake):
    lake.open().delete("call_execution_id = 'c1'")


def delete_executions(lake):
    lake.open("executions").delete()


def delete_runs(lake):
    lake.open("runs").delete()


def update_a_cell(lake):
    lake.open().update(updates={"duration_seconds": "99.5"}, predicate="call_execution_id = 'c3'")


def update_to_null(lake):
    lake.open("evals").update(updates={"reason": "NULL"}, predicate="execution_id = 'e4'")


def double_the_rows(lake):
    table = lake.open()
    write_deltalake(table, table.to_pyarrow_table(), mode="append")


def add_rows_of_nobody(lake):
    table = lake.open("evals")
    row = table.to_pyarrow_table().slice(0, 1)
    for name, value in {"execution_id": "nobody knows", "run_test": "Odd name / 100%"}.items():
        row = row.set_column(row.column_names.index(name), name, pa.array([value]))
    write_deltalake(table, row, mode="append")


def add_calls_of_nobody(lake):
    row = lake.open().to_pyarrow_table().slice(0, 1)
    for name in ("call_execution_id", "execution_id"):
        row = row.set_column(row.column_names.index(name), name, pa.array(["nobody knows"]))
    write_deltalake(lake.open(), row, mode="append")


def forget_what_was_loaded(lake):
    lake.open(STATE).delete()


def forget_an_execution(lake):
    lake.open(STATE).delete("item = 'e1'")


def remove_the_state(lake):
    shutil.rmtree(lake.folder / STATE)


def remove_a_table(lake):
    shutil.rmtree(lake.folder / "evals")


def remove_a_table_after_maintenance(lake):
    lake.export_again()
    lake.load()
    lake.open(STATE).vacuum(0, dry_run=False, enforce_retention_duration=False)
    shutil.rmtree(lake.folder / "runs")


EDITS = [
    delete_calls, delete_executions, delete_runs, update_a_cell, update_to_null, double_the_rows, add_rows_of_nobody,
    forget_what_was_loaded, forget_an_execution, remove_the_state, remove_a_table,
    remove_a_table_after_maintenance,
]  # fmt: skip


ALIKE = {delete_executions, delete_runs, update_to_null, forget_an_execution, remove_a_table}


@pytest.mark.parametrize(
    "edit",
    [pytest.param(edit, marks=pytest.mark.slow if edit in ALIKE else (), id=edit.__name__) for edit in EDITS],
)
def test_what_was_edited_by_hand_in_delta_is_made_equal_again(lake, edit):
    edit(lake)
    assert lake.load().is_changed
    lake.assert_settled()


@pytest.mark.slow
@pytest.mark.parametrize("tables", [["runs"], ["errors"], ["executions", "calls", "evals"]], ids="-".join)
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_tables_that_are_removed_after_an_edit_are_loaded_again(lake, edit, tables):
    edit(lake)
    for name in tables:
        shutil.rmtree(lake.folder / name, ignore_errors=True)
    lake.load()
    lake.assert_settled()


def test_edit_costs_the_edited_execution_alone(lake):
    update_a_cell(lake)
    result = lake.load()

    assert (result.new, result.changed, result.altered) == (0, 0, 1)
    assert result.rows == {"calls": 1, "evals": 1, "executions": 1}


@pytest.mark.parametrize("name", ["calls", "errors", STATE])
def test_table_that_was_restored_to_an_older_version_is_made_equal_again(lake, name):
    lake.export_again()
    lake.load()
    table = lake.open(name)
    table.restore(table.version() - 1)
    lake.load()

    lake.assert_settled()


def test_older_copy_of_all_tables_is_brought_up_to_date(lake, tmp_path):
    shutil.copytree(lake.folder, tmp_path / "backup")
    lake.export_again()
    lake.load()
    shutil.rmtree(lake.folder)
    shutil.copytree(tmp_path / "backup", lake.folder)
    lake.load()

    lake.assert_settled()


def test_older_copy_of_one_table_with_as_many_commits_is_noticed(lake, tmp_path):
    shutil.copytree(lake.folder / "calls", tmp_path / "backup")
    lake.export_again()
    lake.load()
    shutil.rmtree(lake.folder / "calls")
    shutil.copytree(tmp_path / "backup", lake.folder / "calls")
    lake.open().delete("call_execution_id = 'c6'")
    lake.load()

    lake.assert_settled()


def test_compaction_of_the_tables_loads_nothing_again(lake, monkeypatch):
    monkeypatch.setattr(delta_table, "_FULL_BYTES", 1)
    lake.export_again()
    lake.load()
    for table in ALL_TABLES:
        lake.open(table.name).optimize.compact()
        lake.open(table.name).vacuum(0, dry_run=False, enforce_retention_duration=False)

    lake.assert_settled()


def test_execution_that_was_altered_while_it_is_held_back_is_replaced_later(lake, tmp_path):
    lake.open().update(updates={"duration_seconds": "99.5"}, predicate="call_execution_id = 'c6'")
    lake.export_again()
    lost = lake.data / "calls" / "run_test=refund"
    shutil.move(lost, tmp_path / "calls")
    assert lake.load().damaged == 3
    shutil.move(tmp_path / "calls", lost)
    lake.load()

    lake.assert_settled()


def dies(lake, monkeypatch, *also, until):
    """Let a load die when it has written so many files and commits; whether it got so far."""
    done = 0

    def dying(work):
        def step(*arguments, **options):
            nonlocal done
            done += 1
            if done > until:
                raise Died
            return work(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("_commit", "overwrite", *also):
            patch.setattr(OneTable, name, dying(getattr(OneTable, name)))
        patch.setattr("etl.load.warehouse.delta.create", dying(delta_table.create))
        try:
            lake.load()
        except Died:
            return True
    return False


def test_delta_load_that_dies_at_any_step_is_made_up_for_by_the_next(lake, tmp_path, monkeypatch):
    lake.export_again()
    until = 0
    while True:
        again = Lake(shutil.copytree(lake.folder, tmp_path / f"lake-{until}"), lake.data)
        if not dies(again, monkeypatch, until=until):
            break
        assert not halves(again)
        again.load()
        again.assert_equal()
        until += 1 if IS_FULL else 2
    assert until == 6


def halves(lake):
    """Executions of which the calls are neither the old nor the new ones."""
    expected = [{"e1": 2, "e2": 1, "e3": 1, "e4": 1, "e7": 1}, {"e1": 1, "e3": 2, "e4": 1, "e6": 2, "e7": 1}]
    counts = pc.value_counts(lake.open().to_pyarrow_table()["execution_id"]).to_pylist()
    found = {each["values"]: each["counts"] for each in counts}
    return [] if found in expected else found


def test_first_load_that_dies_at_any_step_of_delta_is_made_up_for(lake, tmp_path, monkeypatch):
    again = Lake(tmp_path / "new", lake.data)
    until = 0
    while dies(again, monkeypatch, "_written", until=until):
        until += 1 if IS_FULL else 3

    assert until > 15
    again.assert_settled()


@pytest.mark.parametrize("edit", [delete_calls, add_calls_of_nobody], ids=lambda edit: edit.__name__)
def test_commit_of_somebody_else_meanwhile_ends_the_load_and_the_next_heals(lake, monkeypatch, edit):
    lake.export_again()
    commit = OneTable._commit

    def late(table, *actions):
        if table._table is schema.CALLS:
            edit(lake)
        commit(table, *actions)

    with monkeypatch.context() as patch:
        patch.setattr(OneTable, "_commit", late)
        with pytest.raises(DestinationError, match="someone else wrote at the same time: load again"):
            lake.load()
    lake.load()
    lake.assert_settled()


def test_table_that_somebody_made_need_what_nothing_here_can_write_is_told(lake):
    lake.open().alter.add_feature(TableFeatures.RowTracking, allow_protocol_versions_increase=True)
    lake.export_again()
    with pytest.raises(DestinationError, match=r"remove the table, and load again.*RowTracking"):
        lake.load()

    shutil.rmtree(lake.folder / "calls")
    lake.load()
    lake.assert_equal()


def test_rows_that_somebody_else_changes_while_a_column_is_added_end_the_load(lake, monkeypatch):
    without_column(lake, "calls", "raw")
    add_columns = OneTable.add_columns

    def slow(table):
        add_columns(table)
        delete_calls(lake)

    with monkeypatch.context() as patch:
        patch.setattr(OneTable, "add_columns", slow)
        with pytest.raises(DestinationError, match="lake/calls was written by someone else meanwhile: load again"):
            lake.load()
    lake.load()
    lake.assert_settled()


def test_piece_may_hold_rows_of_several_places(lake, monkeypatch):
    pieces = Contents.rows
    monkeypatch.setattr(Contents, "rows", lambda *arguments: iter([pa.concat_tables(pieces(*arguments))]))
    load_once(f"{lake.url}-2", lake.data)

    Lake(lake.folder.with_name("lake-2"), lake.data).assert_equal()


def test_tables_of_several_datasets_are_refused(lake, tmp_path):
    load_once(f"delta://{tmp_path}/other", first_export(tmp_path / "of another"))
    shutil.rmtree(lake.folder / "evals")
    shutil.copytree(tmp_path / "other" / "evals", lake.folder / "evals")
    with pytest.raises(DestinationError, match="lake holds tables of several datasets: name another"):
        lake.load()


def test_another_dataset_is_refused_by_its_id_in_delta(lake, tmp_path):
    first_export(tmp_path / "other")
    before = lake.versions()
    with pytest.raises(DestinationError, match=r"holds another dataset .*: name another \[warehouse\]"):
        load_once(lake.url, tmp_path / "other")
    with pytest.raises(DestinationError, match="holds another dataset"):
        connect(lake.url, NAMESPACE).replace(LoadStep("of another", {}, {}, lambda _table: iter(())))
    assert lake.versions() == before


def test_delta_table_of_somebody_else_is_refused(lake):
    shutil.rmtree(lake.folder / "evals")
    write_deltalake(lake.folder / "evals", pa.table({"a": [1]}))
    with pytest.raises(
        DestinationError, match=r"lake/evals was not made by metrics-etl: name another \[warehouse\] url"
    ):
        lake.load()


def test_folder_that_holds_other_files_is_refused(lake):
    with pytest.raises(DestinationError, match="data/calls holds files that are not a Delta table"):
        load_once(f"delta://{lake.data}", lake.data)
    assert not (lake.data / "calls" / "_delta_log").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "place", ["_delta_log/_last_checkpoint", "_delta_log/00000000000000000099.json", "part.parquet"]
)
def test_pipe_in_a_delta_table_hangs_nobody(lake, place):
    os.mkfifo(lake.folder / "calls" / place)
    with pytest.raises(DestinationError, match=f"{place}: is not a regular file: remove it$"):
        lake.load()


@pytest.mark.parametrize("odd", "%[]^|\\\t")
def test_folder_whose_name_delta_does_not_take_is_refused(tmp_path, odd):
    with pytest.raises(DestinationError, match=r"Delta takes no path with .+: name another folder"):
        connect(f"delta://{tmp_path}/la{odd}41ke", NAMESPACE)
    assert not any(tmp_path.iterdir())


def test_folder_may_have_any_other_name(tmp_path):
    folder = tmp_path / "!\"#$&'()*+,:;<=>?@`{}~ é"
    lake = connect(f"delta://{folder}", NAMESPACE)
    lake.replace(LoadStep("id", {}, {}, lambda _table: iter(())))

    assert (folder / "calls" / "_delta_log").is_dir()
    assert lake.loaded().dataset_id == "id"


@pytest.mark.parametrize("name", ["evals", STATE])
def test_table_that_lost_a_file_is_refused_and_made_anew_once_it_is_removed(lake, name):
    (lake.folder / lake.open(name).file_uris()[0]).unlink()

    with pytest.raises(DestinationError, match=rf"{name} has lost 1 file .*: remove the table, and load again$"):
        lake.load()
    shutil.rmtree(lake.folder / name)
    lake.load()
    lake.assert_settled()


def test_column_of_another_type_in_delta_is_refused(lake):
    table = lake.open()
    rows = table.to_pyarrow_table()
    texts = rows.set_column(
        rows.column_names.index("duration_seconds"), "duration_seconds", rows["duration_seconds"].cast("string")
    )
    write_deltalake(table, texts, mode="overwrite", schema_mode="overwrite")
    with pytest.raises(
        DestinationError, match=r"calls\.duration_seconds is string, expected double: give it that type"
    ):
        lake.load()


def without_column(lake, table, column):
    """As an older version left the table, which did not have the column yet."""
    opened = lake.open(table)
    configuration, rows = opened.metadata().configuration, opened.to_pyarrow_table().drop_columns([column])
    partitions = opened.metadata().partition_columns
    shutil.rmtree(lake.folder / table)
    write_deltalake(lake.folder / table, rows, partition_by=partitions)
    lake.open(table).alter.set_table_properties(configuration, raise_if_not_exists=False)


def test_column_that_a_newer_version_has_is_added_to_delta(lake):
    without_column(lake, "calls", "scenario_name")
    lake.load()

    lake.assert_settled()
    assert lake.open().to_pyarrow_table()["scenario_name"].null_count == 0
    (field,) = (field for field in lake.open().schema().fields if field.name == "scenario_name")
    assert field.metadata["comment"]


def test_new_column_without_values_loads_nothing_again(lake):
    without_column(lake, "calls", "raw")
    result = lake.load()

    assert (result.is_changed, result.altered, dict(result.rows)) == (True, 0, {})
    lake.assert_settled()


def test_column_that_others_added_to_delta_stays(lake):
    rows = lake.open().to_pyarrow_table()
    write_deltalake(
        lake.open(), rows.append_column("ours", pa.array(range(len(rows)))), mode="overwrite", schema_mode="merge"
    )
    lake.export_again()
    lake.load()

    kept = {row["call_execution_id"]: row["ours"] for row in lake.open().to_pyarrow_table().to_pylist()}
    assert kept["c6"] is not None
    assert kept["c7"] is None
    assert differences(lake.url, lake.data) == []


def test_tables_and_columns_say_what_they_are(lake):
    table = lake.open()
    comments = {field.name: field.metadata["comment"] for field in table.schema().fields}

    assert table.metadata().description == "One row per call."
    assert comments["duration_seconds"] == "Length of the call. Unit: s."
    assert all(comments.values())
    assert [field.name for field in table.schema().fields] == arrow_schema_of(schema.CALLS).names
    assert not next(field for field in table.schema().fields if field.name == "call_execution_id").nullable


def test_bounds_in_the_log_are_those_of_the_files(lake):
    actions = pa.table(lake.open("executions").get_add_actions(flatten=True)).to_pylist()
    for action in actions:
        rows = pq.read_table(lake.folder / "executions" / action["path"], partitioning=None)
        for name in ("execution_id", "started_at", "exported_at"):
            assert action[f"min.{name}"] == pc.min(rows[name]).as_py()
            assert action[f"max.{name}"] == pc.max(rows[name]).as_py()
            assert action[f"null_count.{name}"] == rows[name].null_count
        assert action["num_records"] == len(rows)
    assert len(actions) == 4


def test_polars_and_duckdb_read_the_same_rows(lake):
    lake.export_again()
    lake.load()
    for table in DATA_TABLES:
        expected = rows_of_dataset(lake.data, table)
        assert by_key(table, pl.read_delta(str(lake.folder / table.name)).to_dicts()) == expected
        rows = lake.open(table.name).to_pyarrow_dataset()  # noqa: F841 DuckDB finds it by its name
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            assert by_key(table, connection.sql("SELECT * FROM rows").to_arrow_table().to_pylist()) == expected


def test_readers_in_a_loop_never_see_half_of_an_execution(lake):
    """Each version of the table is what some reader saw."""
    lake.export_again()
    lake.load()
    lake.load(is_full=True)
    versions = [DeltaTable(lake.folder / "calls", version=each) for each in range(lake.open().version() + 1)]
    counts = [len(each.to_pyarrow_table()) for each in versions]

    assert counts == [0, 6, 7, 7]


@pytest.fixture
def bucket(seaweed_store, keys, monkeypatch):
    """The URL of a place in a bucket where nothing is."""
    for name, value in {
        "AWS_ENDPOINT_URL": seaweed_store.endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return f"delta+{seaweed_store.url()}"


def test_bucket_is_loaded_changed_and_healed(lake, bucket):
    assert load_once(bucket, lake.data).new == 6
    assert differences(bucket, lake.data) == []
    lake.export_again()
    DeltaTable(f"{bucket.removeprefix('delta+')}/calls").delete("call_execution_id = 'c6'")
    result = load_once(bucket, lake.data)

    assert (result.new, result.changed, result.altered) == (1, 3, 1)
    assert differences(bucket, lake.data) == []
    assert not load_once(bucket, lake.data).is_changed


RACE = """
import sys
from etl.errors import DestinationError
from tests.loads import NAMESPACE, contents_of
from etl.load.warehouse.load import load
from etl.load.warehouse.target import open_warehouse

warehouse = open_warehouse(sys.argv[1], NAMESPACE)
loaded = warehouse.loaded()
warehouse.loaded = lambda **_: loaded
print("ready", flush=True)
sys.stdin.readline()
try:
    load(contents_of(sys.argv[2]), warehouse)
    print("won")
except DestinationError as exc:
    print("lost" if "someone else wrote" in str(exc) else exc)
"""


def test_of_loads_that_begin_at_once_in_a_bucket_one_wins(lake, bucket):
    load_once(bucket, lake.data)
    lake.export_again()
    command = [sys.executable, "-c", RACE, bucket, str(lake.data)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    racers: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()

    assert sorted(racer.communicate()[0] for racer in racers) == ["lost\n", "won\n"]
    assert differences(bucket, lake.data) == []
    assert not load_once(bucket, lake.data).is_changed


def test_bucket_that_refuses_the_key_is_one_line(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(DestinationError) as refused:
        connect(bucket, NAMESPACE).loaded()

    assert "403" in str(refused.value)
    assert str(refused.value).isprintable()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(refused.value)


def test_url_says_where_the_tables_are():
    assert connect("delta:///srv/lake/", NAMESPACE).where == "/srv/lake"
    assert connect("delta+s3://bucket/prefix", NAMESPACE).where == "s3://bucket/prefix"
