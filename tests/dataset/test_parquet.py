"""Parquet files are written exactly as declared, and read in one way, whichever version wrote them."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import etl
from etl.dataset import parquet
from etl.dataset.parquet import OpenPart, UnreadableError, encode, read_size
from etl.errors import DestinationError, FileMissingError, SchemaError
from etl.model import schema
from etl.transform.frames import table_of
from tests.damages import DAMAGES
from tests.datasets import FETCHED_AT, part

PATH = part("calls")


def some_calls(count=3, **columns):
    rows = [{"call_execution_id": f"c{number}", "duration_seconds": float(number)} | columns for number in range(count)]
    return table_of(schema.CALLS, rows)


def publish(files, rows):
    """The rows as another program or version would write them."""
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    files.publish(PATH, sink.getvalue())


COUNT_THREADS = """
import os, sys
from pathlib import Path
from etl.files.local import LocalFiles
from etl.dataset import parquet
from etl.dataset.parquet import OpenPart
from etl.model import schema
threads = lambda: len(os.listdir("/proc/self/task"))
part = OpenPart(LocalFiles(Path(sys.argv[1])), schema.CALLS, sys.argv[2])
before = threads()
part.read_thoroughly(), part.read(schema.CALLS.names)
sys.exit(threads() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux does")
def test_file_is_decoded_in_no_other_thread(files, tmp_path):
    """A thread that held bytes while the interpreter ended made a verify without findings die of SIGABRT."""
    publish(files, some_calls())
    command = [sys.executable, "-c", COUNT_THREADS, tmp_path / "data", PATH]
    assert subprocess.run(command, check=False).returncode == 0


def test_no_other_module_knows_parquet():
    package = Path(etl.__file__).parent
    imports = re.compile(r"^\s*(import|from) pyarrow\.parquet", re.MULTILINE)
    modules = [path for path in package.rglob("*.py") if imports.search(path.read_text(encoding="utf-8"))]
    known = {path.relative_to(package).as_posix() for path in modules}
    of_warehouses = {"load/drivers.py", "load/delta_log.py"}  # files of theirs, not of the dataset
    assert known - of_warehouses == {"dataset/parquet.py"}


def test_the_columns_that_are_asked_for_are_read_in_their_order(files):
    files.publish(PATH, encode(schema.CALLS, some_calls(), "zstd"))
    rows = OpenPart(files, schema.CALLS, PATH).read(["duration_seconds", "call_execution_id"])
    assert rows.to_pydict() == {"duration_seconds": [0.0, 1.0, 2.0], "call_execution_id": ["c0", "c1", "c2"]}
    assert rows.schema.field(1).equals(schema.CALLS.arrow_schema.field("call_execution_id"), check_metadata=True)


def test_rows_come_back_as_they_were_written(files):
    given = some_calls()
    files.publish(PATH, encode(schema.CALLS, given, "zstd"))
    part = OpenPart(files, schema.CALLS, PATH)
    for rows in (part.read(schema.CALLS.names), part.read_thoroughly()):
        assert rows.equals(given, check_metadata=True)
    assert not part.is_outdated


def test_a_footer_tells_rows_and_size(files):
    data = encode(schema.CALLS, some_calls(7), "zstd")
    files.publish(PATH, data)
    opened = OpenPart(files, schema.CALLS, PATH)
    assert read_size(files, PATH) == (opened.rows, opened.size_bytes) == (7, len(data))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_in_one_line(files, damage):
    files.publish(PATH, damage(bytes(encode(schema.CALLS, some_calls(execution_id="e"), "zstd"))))
    for attempt in (OpenPart, lambda files, _table, path: read_size(files, path)):
        with pytest.raises(UnreadableError) as caught:
            attempt(files, schema.CALLS, PATH)
        assert str(caught.value) == f"{files.where(PATH)} cannot be read: {caught.value.reason}"
        assert "\n" not in str(caught.value)


def test_a_damaged_page_is_noticed_when_its_column_is_read(files):
    """Without compression nothing else than the pages' checksums could tell."""
    data = bytes(encode(schema.CALLS, some_calls(scenario_name="Refund", extra="marked"), "none"))
    files.publish(PATH, data.replace(b"marked", b"parked"))
    part = OpenPart(files, schema.CALLS, PATH)
    assert part.rows == 3
    assert part.read(["scenario_name"])["scenario_name"].to_pylist() == ["Refund"] * 3
    for attempt in (lambda: part.read(["extra"]), part.read_thoroughly):
        with pytest.raises(UnreadableError, match="CRC"):
            attempt()


def test_a_file_that_is_not_there_is_missing_and_not_damaged(files):
    for attempt in (OpenPart, lambda files, _table, path: read_size(files, path)):
        with pytest.raises(FileMissingError, match="No such file or directory"):
            attempt(files, schema.CALLS, PATH)


def test_a_column_that_an_older_version_did_not_have_is_null_and_has_its_type(files):
    publish(files, some_calls().drop_columns(["scenario_name", "cost_total_cost_cents"]))
    part = OpenPart(files, schema.CALLS, PATH)
    assert part.is_outdated
    for rows in (part.read(["cost_total_cost_cents", "scenario_name"]), part.read_thoroughly()):
        assert rows["scenario_name"].to_pylist() == [None] * 3
        assert rows.schema.field("cost_total_cost_cents").type == pa.int64()
    assert part.read_thoroughly().schema.equals(schema.CALLS.arrow_schema, check_metadata=True)


def test_a_column_of_a_newer_version_is_refused_unless_it_may_be_there(files):
    publish(files, some_calls().append_column("mood", pa.array(["calm"] * 3)))
    part = OpenPart(files, schema.CALLS, PATH)
    with pytest.raises(DestinationError) as caught:
        part.read(["duration_seconds"])
    assert not isinstance(caught.value, UnreadableError)
    fix = "if a newer version wrote the file; otherwise, move the file out of the dataset"
    assert str(caught.value).endswith(f"has unknown columns: mood. Upgrade metrics-etl {fix}")
    assert part.read(["duration_seconds"], may_be_newer=True).column_names == ["duration_seconds"]


@pytest.mark.parametrize(
    ("values", "is_refused"), [(pa.array(["a", "b", "c"]), True), (pa.array([1, 2, 3], pa.int8()), False)]
)
def test_another_type_is_converted_where_nothing_is_lost_and_else_refused(files, values, is_refused):
    rows = some_calls()
    index = rows.schema.get_field_index("duration_seconds")
    publish(files, rows.set_column(index, "duration_seconds", values))
    part = OpenPart(files, schema.CALLS, PATH)
    assert part.is_outdated
    if is_refused:
        message = r"part-0\.parquet has column types that cannot be converted: "
        with pytest.raises(DestinationError, match=message) as e:
            part.read(["duration_seconds"])
        assert not isinstance(e.value, UnreadableError)
    else:
        assert part.read(["duration_seconds"])["duration_seconds"].to_pylist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("table", "compression"), [*zip(schema.TABLES.values(), ["zstd", "snappy", "gzip", "none", "zstd"], strict=True)]
)
def test_an_encoded_file_holds_the_rows_the_declared_schema_and_the_compression(table, compression):
    given = table_of(table, [{name: f"{name}-{number}" for name in table.key} for number in range(3)])
    file = pq.ParquetFile(pa.BufferReader(encode(table, given, compression)))
    assert file.read().equals(given, check_metadata=True)
    expected = {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
    assert {file.metadata.row_group(0).column(index).compression for index in range(len(table.names))} == {expected}


WRONG = {
    "a missing column": lambda rows: rows.drop_columns(["status"]),
    "another order": lambda rows: rows.select(rows.column_names[::-1]),
    "another type": lambda rows: rows.set_column(
        7, rows.schema.field(7).with_type(pa.float32()), rows[7].cast("float32")
    ),
    "a local time": lambda rows: rows.cast(rows.schema.set(3, rows.schema.field(3).with_type(pa.timestamp("us")))),
    "metadata of a column": lambda rows: rows.cast(rows.schema.set(7, rows.schema.field(7).with_metadata({"a": "b"}))),
    "a key that is null": lambda rows: rows.set_column(0, rows.schema.field(0), pa.nulls(1, pa.string())),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_rows_that_are_not_exactly_as_declared_are_not_encoded(wrong):
    row = {"call_execution_id": "c1", "execution_started_at": FETCHED_AT, "duration_seconds": 1.5}
    right = table_of(schema.CALLS, [row])
    encode(schema.CALLS, right, "zstd")
    with pytest.raises(SchemaError, match="calls"):
        encode(schema.CALLS, wrong(right), "zstd")


def test_encoded_file_that_lacks_a_row_is_noticed(monkeypatch):
    write = pq.write_table
    monkeypatch.setattr(pq, "write_table", lambda rows, *others, **options: write(rows.slice(1), *others, **options))
    rows = pa.Table.from_pylist([dict.fromkeys(schema.CALLS.key, key) for key in "ab"], schema.CALLS.arrow_schema)
    with pytest.raises(SchemaError, match="new file of calls does not match its rows or schema"):
        encode(schema.CALLS, rows, "zstd")


def test_writer_refuses_what_the_reader_would(files, monkeypatch):
    """Otherwise a dataset could grow until no run can read it any more."""
    files.publish(PATH, encode(schema.CALLS, some_calls(), "zstd"))
    monkeypatch.setattr(parquet, "MOST_BYTES", 1000)
    with pytest.raises(UnreadableError, match=r"takes 0\.0 GiB of memory, but at most"):
        OpenPart(files, schema.CALLS, PATH)
    with pytest.raises(DestinationError, match=r"^the new file of calls takes 0\.0 GiB of memory"):
        encode(schema.CALLS, some_calls(), "zstd")


def test_file_that_does_not_fit_into_memory_is_not_called_damaged(files, monkeypatch):
    """It would be set aside and fetched again, for nothing."""

    def read(*_arguments, **_options):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    files.publish(PATH, encode(schema.CALLS, some_calls(), "zstd"))
    monkeypatch.setattr(pq.ParquetFile, "read", read)
    with pytest.raises(DestinationError, match="not enough memory to read ") as raised:
        OpenPart(files, schema.CALLS, PATH).read(["status"])
    assert not isinstance(raised.value, UnreadableError)


def test_text_that_is_not_utf8_is_noticed_by_a_thorough_read(files):
    rows = some_calls(1)
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0])), pa.py_buffer(b"\xff\xfe"))
    index = rows.schema.get_field_index("scenario_name")
    publish(files, rows.set_column(index, rows.schema.field(index), broken))
    part = OpenPart(files, schema.CALLS, PATH)
    assert len(part.read(["scenario_name"])) == 1
    with pytest.raises(UnreadableError, match="UTF8"):
        part.read_thoroughly()
