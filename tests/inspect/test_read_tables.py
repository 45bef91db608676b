"""What ``etl.read_table`` and ``etl.describe`` promise, on real files."""

import shutil
from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import etl
from etl.dataset.commit import mark_deleted
from etl.dataset.index import read_index, update_index, write_index
from etl.dataset.layout import Part
from etl.files import local
from etl.files.local import LocalFiles
from etl.inspect.read_tables import moment
from etl.model import schema
from etl.model.arrow import with_column
from etl.transform.frames import ExportStamp, table_of
from tests.bundles import a_bundle
from tests.datasets import FETCHED_AT, a_dataset, export_to, first_parts_of_the_months, part, place
from tests.support import paths_in

TABLES = list(schema.TABLES)
DAYS = ("2026-08-31", "2026-09-01", "2026-09-02", "2026-10-03")
GARBAGE = b"PAR1 but nothing else"
BOTH_RATIOS = "'latency_customer_talk_ratio' or 'conversation_talk_ratio'"
A_DAY = "must be a date such as 2026-11-01, yesterday, or 7d for seven days ago"
A_MOMENT = "must be a timestamp such as 2026-11-01T02:00:00Z"


def a_part_a_day(bundles):
    return [Part(each.run_test_key, f"month={each.started_at:%Y-%m}/part-{each.started_at.day}") for each in bundles]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two run tests, each with a call a day on four days, and a dead letter.

    They are called Checkout and Refund like their keys. Checkout has a part a month, Refund one a day.
    """
    root = tmp_path_factory.mktemp("exported")
    dataset = a_dataset(root)
    for key, parts_of in (("checkout", first_parts_of_the_months), ("refund", a_part_a_day)):
        bundles = [a_bundle(f"{key}-{day}", [f"{key}-{day}-c"], key=key, date=day) for day in DAYS]
        export_to(dataset, *bundles, parts_of=parts_of)
    export_to(dataset, a_bundle("lost", ["kept", "lost"], key="refund", given_up=["lost"]))
    row = {"export_run_id": "run-1", "started_at": datetime(2026, 11, 1, tzinfo=UTC), "exit_code": 3}
    dataset.record_run(date(2026, 11, 1), "run-1", table_of(schema.RUNS_TABLE, [row]))
    return root


@pytest.fixture
def data(exported, tmp_path):
    """A copy of it, to do with as one likes."""
    return shutil.copytree(exported, tmp_path / "data")


def executions_of(frame):
    return sorted(frame["execution_id"].to_list())


def spoil(data, *, but):
    """Make every file unreadable whose path does not hold one of the texts; returns how many."""
    spoiled = [path for path in data.rglob("*.parquet") if not any(text in path.as_posix() for text in but)]
    for path in spoiled:
        path.write_bytes(GARBAGE)
    return len(spoiled)


def declared_types(table):
    return {column.name: column.type for column in (*table.columns, *table.added_columns)}


def types(frame):
    return {name: dtype.pyarrow_dtype for name, dtype in frame.dtypes.items()}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_rows_has_all_columns(tmp_path, name):
    a_dataset(tmp_path / "data")
    frame = etl.read_table(tmp_path / "data", name)
    assert len(frame) == 0
    assert types(frame) == declared_types(schema.TABLES[name])


@pytest.mark.parametrize("name", TABLES)
def test_a_table_holds_every_row_with_the_declared_types_and_the_values_of_its_files_and_path(data, name):
    table, expected = schema.TABLES[name], []
    for path in sorted((data / name).rglob("*.parquet")):
        words = dict(part.split("=") for part in path.relative_to(data).parts if part.startswith("run_test="))
        for row in pq.ParquetFile(path).read().to_pylist():
            began = row["execution_started_at"] if "execution_started_at" in row else row["started_at"]
            expected.append(row | words | {"date": began.date()})
    frame = etl.read_table(data, name)
    assert list(types(frame).items()) == list(declared_types(table).items())
    found = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    in_order = [sorted(rows, key=lambda row: [row[key] for key in table.key]) for rows in (found, expected)]
    assert in_order[0] == in_order[1] != []


@pytest.mark.parametrize("name", ["executions", "calls", "evals"])
def test_only_the_files_of_the_run_test_and_months_are_opened(data, name):
    assert spoil(data, but=[f"/{name}/run_test=refund/month=2026-09/"]) > 10
    frame = etl.read_table(data, name, run_tests=["refund"], since="2026-09-01", until="2026-09-30")
    assert executions_of(frame) == ["refund-2026-09-01", "refund-2026-09-02"]
    with pytest.raises(etl.DestinationError, match="cannot be read: "):
        etl.read_table(data, name, run_tests=["refund"])


@pytest.mark.parametrize("has_index", [True, False])
def test_a_name_opens_the_executions_that_the_index_does_not_know(data, monkeypatch, *, has_index):
    monkeypatch.setattr(local, "_TICK_NS", 0)  # as if the files were old
    if has_index:
        dataset = a_dataset(data)
        write_index(dataset.files, update_index(dataset, read_index(dataset.files), []))
    reads = noted(monkeypatch)
    assert len(etl.read_table(data, "calls", run_tests="Refund")) == 5
    assert any(path.startswith("executions/") for path in reads) is not has_index
    assert not any("run_test=checkout" in path for path in reads if path.startswith("calls/"))


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        ("2026-09-02", None, DAYS[2:]),
        (None, "2026-09-02", DAYS[:3]),
        ("2026-09-02", "2026-09-02", DAYS[2:3]),
        (date(2026, 9, 2), pd.Timestamp("2026-09-02T23:59"), DAYS[2:3]),
        ("2026-09-01T23:00-05:00", None, DAYS[2:]),
        ("2026-10-04", None, ()),
    ],
)
def test_both_days_are_included_and_are_utc(data, since, until, days):
    frame = etl.read_table(data, "executions", run_tests="checkout", since=since, until=until)
    assert [day.isoformat() for day in frame["date"].to_list()] == list(days)


@pytest.mark.parametrize(
    ("run_tests", "found"),
    [
        ("checkout", {"checkout"}),
        ("Checkout", {"checkout"}),
        (["Checkout", "refund"], {"checkout", "refund"}),
        ([], set()),
        (None, {"checkout", "refund"}),
    ],
)
def test_a_run_test_is_called_by_its_name_or_key(data, run_tests, found):
    assert set(etl.read_table(data, "calls", run_tests=run_tests)["run_test"].to_list()) == found


def test_a_name_finds_its_rows_under_every_key_and_no_others_there(data):
    """An execution stays where it was first stored, so rows of two names may lie under one key."""
    dataset = a_dataset(data)
    for table in (schema.CALLS, schema.EVALS, schema.EXECUTIONS):
        for day in (DAYS[0], DAYS[3]):
            place_of_day = Part("checkout", place(day))
            rows = dataset.rows(table, place_of_day)
            dataset.write(table, place_of_day, with_column(rows, "run_test_name", ["Refund"] * len(rows)))
    for name in ("executions", "calls", "evals"):
        own = [f"checkout-{day}" for day in DAYS[1:3]]
        assert executions_of(etl.read_table(data, name, run_tests="Checkout", columns=["execution_id"])) == own
        assert len(etl.read_table(data, name, run_tests="checkout")) == 4, "a key means all that lies there"
        assert len(etl.read_table(data, name, run_tests=["Refund", "Checkout"])) == len(etl.read_table(data, name))
        assert len(etl.read_table(data, name, run_tests="Refund")) == len(etl.read_table(data, name)) - 2


def test_columns_are_those_asked_for_in_their_order(data):
    frame = etl.read_table(data, "calls", columns=["status", "call_execution_id", "status"])
    assert list(types(frame).items()) == [("status", pa.string()), ("call_execution_id", pa.string())]
    assert len(frame) == 9
    assert list(etl.read_table(data, "calls", columns="duration_seconds")) == ["duration_seconds"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"table": "call"}, "there is no table 'call'. Did you mean 'calls'?"),
        ({"columns": ["statu"]}, "calls has no column 'statu'. Did you mean 'status'?"),
        ({"columns": ["talk_ratio"]}, f"calls has no column 'talk_ratio'. Did you mean {BOTH_RATIOS}?"),
        ({"columns": ["mood"]}, "calls has no column 'mood'. etl.describe('calls') lists all columns"),
        ({"columns": []}, "columns is empty. Name at least one column, or pass None for all"),
        ({"run_tests": ["checkout", "Nope"]}, "{data} has no run test 'Nope'. Choose from 'Checkout', 'Refund'"),
        ({"table": "runs", "run_tests": "a"}, 'the table "runs" is not partitioned by run test. Leave out run_tests'),
        ({"since": "last week"}, f"since {A_DAY}, got 'last week'"),
        ({"changed_since": "tomorrow"}, f"changed_since {A_MOMENT}, got 'tomorrow'"),
        ({"deleted": "yes"}, 'deleted must be "exclude" or "include", got \'yes\''),
        ({"changed_since": pd.NaT}, f"changed_since {A_MOMENT}, got NaT"),
        ({"table": "errors", "changed_since": "7d"}, "errors has no column exported_at. Leave out changed_since"),
        ({"until": 20261101}, f"until {A_DAY}, got 20261101"),
        ({"since": ""}, f"since {A_DAY}, got ''"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "since 2026-11-02 is later than until 2026-11-01"),
    ],
)
def test_read_table_tells_a_mistake_in_one_line(data, asked, message):
    with pytest.raises(etl.ConfigurationError) as caught:
        etl.read_table(data, **({"table": "calls"} | asked))
    assert str(caught.value) == message.format(data=data)


@pytest.mark.parametrize("below", ["gone", "data/calls"])
def test_a_path_without_a_dataset_is_named(data, below):
    with pytest.raises(etl.DestinationError, match="Give the path that") as caught:
        etl.read_table(data.parent / below, "calls")
    assert str(caught.value).startswith(f"there is no dataset at {data.parent / below}. ")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(GARBAGE), "cannot be read: "),
        (lambda path: path.rename(path.with_name("part-01.parquet")), "not a file of this dataset. Move it elsewhere"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(data, write, message):
    write(data / part("calls"))
    with pytest.raises(etl.DestinationError) as caught:
        etl.read_table(data, "calls")
    assert str(caught.value).startswith(f"{data}/calls/run_test=checkout/month=2026-")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_needs_no_lock_and_leaves_nothing_behind(data):
    with LocalFiles(data).lock(FETCHED_AT):
        before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
        assert len(etl.read_table(data, "calls", run_tests="Checkout")) == 4
        assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


@pytest.mark.parametrize("name", TABLES)
def test_describe_says_what_each_column_of_the_files_means(data, name):
    described = etl.describe(name).set_index("column")
    assert not described.isna().any(axis=None)
    field_of: dict[str, pa.Field] = {}
    for path in (data / name).rglob("*.parquet"):
        field_of |= {field.name: field for field in pq.read_schema(path)}
    for column, field in field_of.items():
        assert field.type == declared_types(schema.TABLES[name])[column]
    assert list(described.index) == list(etl.read_table(data, name))


NEWER = FETCHED_AT + timedelta(days=1)


@pytest.mark.parametrize(
    "given",
    [
        FETCHED_AT,
        pd.Timestamp(FETCHED_AT) + pd.Timedelta(1, "ns"),
        FETCHED_AT.replace(tzinfo=None),
        FETCHED_AT.astimezone(timezone(timedelta(hours=5))),
        "2026-11-01T02:00:00Z",
        "2026-11-01 02:00",
        "2026-11-01T07:00:00+05:00",
    ],
)
def test_a_moment_is_in_utc_and_a_day_means_its_first_one(given):
    assert moment("changed_since", given) == FETCHED_AT
    for day in ("2026-11-02", date(2026, 11, 2)):
        assert moment("changed_since", day) == datetime(2026, 11, 2, tzinfo=UTC)


def test_days_ago_are_counted_in_utc_as_on_the_command_line(data):
    midnight = pd.Timestamp(datetime.now(UTC)).normalize()
    for text, days in (("today", 0), ("yesterday", 1), ("7d", 7)):
        assert moment("since", text) in (midnight - timedelta(days), midnight - timedelta(days - 1))
    assert len(etl.read_calls(data, since="9999d")) == len(etl.read_calls(data))
    assert len(etl.read_table(data, "calls", until="9999d")) == 0


@pytest.mark.parametrize("name", ["executions", "calls", "evals"])
def test_rows_that_changed_after_a_moment_are_those_of_later_exports(data, name):
    export_to(a_dataset(data), a_bundle("e-new", ["c-new"], key="refund"), run="run-2", fetched_at=NEWER)
    assert executions_of(etl.read_table(data, name, changed_since=FETCHED_AT)) == ["e-new"]
    assert len(etl.read_table(data, name, changed_since=NEWER)) == 0
    older = etl.read_table(data, name, changed_since=FETCHED_AT - timedelta(microseconds=1))
    assert len(older) == len(etl.read_table(data, name))


def test_a_row_that_does_not_say_when_it_was_exported_may_have_changed(data):
    path = data / part("calls", "checkout", DAYS[1])
    rows = pq.ParquetFile(path).read()
    pq.write_table(with_column(rows, "exported_at", [None] * len(rows)), path)
    assert len(etl.read_table(data, "calls", changed_since=NEWER)) == len(rows)


def delete(data, execution_id, *, key="checkout", date=DAYS[1]):
    """The API has the execution no more."""
    mark_deleted(a_dataset(data), {execution_id: Part(key, place(date))}, ExportStamp("run-2", NEWER))


@pytest.mark.parametrize("name", ["executions", "calls", "evals"])
def test_rows_that_the_source_no_longer_has_are_left_out_unless_they_are_asked_for(data, name):
    deleted = f"checkout-{DAYS[1]}"
    for asked in ({}, {"since": DAYS[1], "until": DAYS[2]}, {"run_tests": "checkout"}, {"columns": ["execution_id"]}):
        before = len(etl.read_table(data, name, deleted="include", **asked))
        delete(data, deleted)
        left, whole = (etl.read_table(data, name, deleted=each, **asked) for each in ("exclude", "include"))
        assert (len(whole), len(left)) == (before, before - 1)
        assert list(left) == list(whole)
        assert {*executions_of(whole)} - {*executions_of(left)} == {deleted}
    assert executions_of(etl.read_table(data, name, changed_since=FETCHED_AT)) == []
    changed = etl.read_table(data, name, changed_since=FETCHED_AT, deleted="include")
    assert executions_of(changed) == [deleted]
    assert changed["deleted_at"].notna().all()


def noted(monkeypatch):
    """The files that are read from now on."""
    reads: list[str] = []
    read = LocalFiles.read

    def note(files, path, **options):
        reads.append(path)
        return read(files, path, **options)

    monkeypatch.setattr(LocalFiles, "read", note)
    return reads


def test_each_file_of_the_table_is_read_once_and_no_other(data, monkeypatch):
    reads = noted(monkeypatch)
    etl.read_table(data, "calls")
    assert sorted(path for path in reads if "_state" not in path) == sorted(paths_in(LocalFiles(data), "calls"))
    reads.clear()
    etl.read_calls(data)
    assert len(reads) == len({*reads})
