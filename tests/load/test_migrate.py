"""A dataset of days becomes one of months: no row is lost or doubled, wherever it is killed, and every reader finds each row."""

import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.inspect.rules import Kind
from etl.inspect.verify import verify
from etl.load import migrate as module
from etl.load.dataset import Dataset
from etl.load.files.local import LocalFiles
from etl.load.identity import read_identity
from etl.load.layout import Layout, Scope
from etl.load.migrate import migrate
from etl.load.state import load_state
from etl.model import schema
from etl.settings import Settings
from etl.transform.frames import frame_of
from tests.bundles import KEY, a_bundle
from tests.datasets import a_dataset, assert_sound, contents, export_by_places, rows
from tests.load.files.watched import CHANGING, Step, watched

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)
DAYS = ("2026-08-01", "2026-08-02", "2026-08-30", "2026-09-01")
TABLES = ("executions", "calls", "evals", "errors")


class Killed(BaseException):
    """The process is dead."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "FULL_ROWS", 4)


@pytest.fixture(scope="module")
def by_day(tmp_path_factory):
    """Two run tests with two executions on each day, some with dead letters, and a night's row of ``runs``."""
    root = tmp_path_factory.mktemp("by-day")
    dataset = a_dataset(root)
    dataset.layout = Layout.BY_DAY
    bundles = [
        a_bundle(
            f"{key}-{day}-{n}", [f"{key}-{day}-{n}-{c}" for c in "ab"], key=key, date=day, given_up=_lost(key, day, n)
        )
        for key in (KEY, "booking")
        for day in DAYS
        for n in (1, 2)
    ]
    export_by_places(dataset, *bundles, now=NOW)
    for day in (1, 2):
        row = {"export_run_id": f"run-{day}", "started_at": NOW.replace(day=day), "exit_code": 3}
        dataset.record_run(NOW.replace(day=day).date(), f"run-{day}", frame_of(schema.RUNS_TABLE, [row]))
    return root


def _lost(key, day, number):
    return [f"{key}-{day}-{number}-b"] if day == DAYS[1] and number == 1 else []


@pytest.fixture
def root(by_day, tmp_path):
    return Path(shutil.copytree(by_day, tmp_path / "data"))


def all_paths(root):
    return sorted(path.relative_to(root).as_posix() for table in schema.TABLES for path in (root / table).rglob("*"))


def keys_in(root, table):
    names = list(schema.TABLES[table].key)
    rows = (row for path in (root / table).rglob("*.parquet") for row in pq.read_table(path, columns=names).to_pylist())
    return Counter(tuple(row[name] for name in names) for row in rows)


def findings(root):
    settings = Settings(run_tests=["Checkout", "Booking"], destination={"path": str(root)})
    return [each for each in verify(settings, Scope()).findings if each.kind is not Kind.DEAD_LETTER]


@pytest.mark.parametrize("table", ["executions", "calls", "evals"])
def test_for_those_who_follow_the_dataset_nothing_changes(root, table):
    columns = (*schema.TABLES[table].key, "export_run_id", "exported_at")
    before = rows(root, table, *columns)
    list(migrate(Dataset(LocalFiles(root)), NOW))
    assert rows(root, table, *columns) == before


def test_every_row_is_there_in_the_parts_of_its_month_and_no_folder_of_a_day_is_left(root):
    before = contents(root)
    files = all_paths(root)

    done = list(migrate(Dataset(LocalFiles(root)), NOW))

    assert contents(root) == before
    assert len(assert_sound(root)["runs"]) == 2
    assert [path for path in all_paths(root) if "date=" in path] == []
    assert {
        path for path in all_paths(root) if path.startswith(f"calls/run_test={KEY}") and path.endswith(".parquet")
    } == {
        f"calls/run_test={KEY}/month=2026-08/part-0.parquet",
        f"calls/run_test={KEY}/month=2026-08/part-1.parquet",
        f"calls/run_test={KEY}/month=2026-08/part-2.parquet",
        f"calls/run_test={KEY}/month=2026-09/part-0.parquet",
    }
    assert sum(each.files_before for each in done) == sum(path.endswith(".parquet") for path in files)
    assert sum(each.files_after for each in done) == sum(path.endswith(".parquet") for path in all_paths(root))
    identity = read_identity(LocalFiles(root))
    assert identity is not None
    assert identity.layout == Layout.BY_MONTH
    assert findings(root) == []


def test_days_fill_a_part_together(root, monkeypatch):
    monkeypatch.setattr(module, "FULL_ROWS", 100)
    list(migrate(Dataset(LocalFiles(root)), NOW))
    assert len(list((root / "calls").rglob("*.parquet"))) == 4


def test_what_is_migrated_is_as_it_was_for_the_next_run(root):
    before = load_state(Dataset(LocalFiles(root)), [KEY], set_aside=False)
    list(migrate(Dataset(LocalFiles(root)), NOW))
    state = load_state(Dataset(LocalFiles(root)), [KEY], set_aside=False)
    assert state.surplus == {}
    assert not state.may_hold_calls_twice()
    assert {key: (each.held, each.exported_at, each.is_damaged) for key, each in state.executions[KEY].items()} == {
        key: (each.held, each.exported_at, each.is_damaged) for key, each in before.executions[KEY].items()
    }


def test_foreign_files_beside_the_days_are_left_where_they_are(root):
    strays = [
        root / "runs" / "date=monday" / "x.parquet",
        root / "calls" / f"run_test={KEY}" / f"date={DAYS[0]}" / ".DS_Store",
    ]
    for path in strays:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"theirs")
    list(migrate(Dataset(LocalFiles(root)), NOW))
    assert {path for path in root.rglob("*") if path.is_file() and "date=" in str(path)} == {*strays}


def test_days_of_a_backup_replace_nothing_that_was_exported_later(root, by_day):
    list(migrate(Dataset(LocalFiles(root)), NOW))
    later = a_bundle(f"{KEY}-{DAYS[0]}-1", [f"{KEY}-{DAYS[0]}-1-c"], key=KEY, date=DAYS[0])
    at = NOW + timedelta(days=1)
    export_by_places(Dataset(LocalFiles(root)), later, now=at, exported_at=at)
    before = contents(root)
    shutil.copytree(by_day, root, dirs_exist_ok=True)

    list(migrate(Dataset(LocalFiles(root)), at))

    assert contents(root) == before
    assert [path for path in all_paths(root) if "date=" in path and path.endswith(".parquet")] == []


def test_second_migration_finds_nothing_to_do(root):
    list(migrate(Dataset(LocalFiles(root)), NOW))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert list(migrate(Dataset(LocalFiles(root)), NOW)) == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def steps_of(root):
    """How many changes a migration makes."""
    made: list[Step] = []
    files = LocalFiles(root)
    files.prepare()
    with watched(root, before=made.append):
        list(migrate(Dataset(files), NOW))
    return sum(step.name in CHANGING for step in made)


def kill_at(root, nth):
    """Migrate until just before the nth change; whether it came to that."""
    made = 0

    def die(step: Step) -> None:
        nonlocal made
        made += step.name in CHANGING
        if made > nth and step.name in CHANGING:
            raise Killed

    files = LocalFiles(root)
    files.prepare()
    try:
        with watched(root, before=die):
            list(migrate(Dataset(files), NOW))
    except Killed:
        return True
    return False


@pytest.mark.parametrize("every", [67, pytest.param(1, marks=pytest.mark.slow)])
def test_migration_that_is_killed_anywhere_loses_nothing_and_goes_on(by_day, tmp_path, every):
    wanted = {table: keys_in(by_day, table) for table in TABLES}
    before = contents(by_day)
    counted = steps_of(Path(shutil.copytree(by_day, tmp_path / "counted")))
    assert counted > 200
    for nth in range(0, counted, every):
        root = Path(shutil.copytree(by_day, tmp_path / f"{nth}"))
        assert kill_at(root, nth)
        for table in TABLES:
            found = keys_in(root, table)
            assert found.keys() == wanted[table].keys(), (nth, table)
            assert max(found.values()) <= 2
        assert load_state(Dataset(LocalFiles(root)), [KEY, "booking"], set_aside=True).unreadable == []
        files = LocalFiles(root)
        files.prepare()
        files.sweep_staging()
        list(migrate(Dataset(files), NOW))
        assert contents(root) == before, nth
        assert [path for path in all_paths(root) if "date=" in path and path.endswith(".parquet")] == []
        assert findings(root) == []
        shutil.rmtree(root)


def test_migration_that_is_killed_again_and_again_comes_to_its_end(by_day, tmp_path):
    root = Path(shutil.copytree(by_day, tmp_path / "data"))
    nights = 1
    while kill_at(root, 23):
        nights += 1
        assert nights < 100
    assert nights > 3
    assert contents(root) == contents(by_day)
    assert findings(root) == []


def test_damaged_day_stops_it_in_one_line_and_the_rest_stays(root):
    (root / f"calls/run_test={KEY}/date={DAYS[2]}/part-0.parquet").write_bytes(b"garbage")
    with pytest.raises(DestinationError, match=r"let metrics-etl run fetch what it held, then migrate again$"):
        list(migrate(Dataset(LocalFiles(root)), NOW))
    assert read_identity(LocalFiles(root)) is None
    assert len(keys_in(root, "executions")) == 16
