"""What the index knows is not read again, and what changed is. Without the index the same is known, only later."""

import os
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.dataset import index as module
from etl.dataset import part_index
from etl.dataset.commit import mark_deleted
from etl.dataset.index import Index, index_if_readable, read_index, update_index, write_index
from etl.dataset.layout import Part
from etl.dataset.parts import Dataset, identify
from etl.dataset.renames import rename
from etl.dataset.state import read_state
from etl.errors import DestinationError
from etl.files import local
from etl.files.names import IDENTITY, INDEX
from etl.model import schema
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, a_dataset, export_to, part, place, published

SLOW = [pytest.param(table, marks=pytest.mark.slow) for table in ("evals", "errors")]
HERE = Part(KEY, place())


@pytest.fixture(autouse=True)
def no_ticks(monkeypatch):
    """As if each file had been written long before it is looked at."""
    monkeypatch.setattr(local, "_TICK_NS", 0)


@pytest.fixture
def dataset(tmp_path):
    """Two run tests, and an index that knows them."""
    dataset = a_dataset(tmp_path)
    identify(dataset.files, FETCHED_AT)
    export_to(dataset, a_bundle("e1", given_up=["c2"]), a_bundle("e2", ["c3"], date="2026-09-02"))
    export_to(dataset, a_bundle("e3", ["c4"], key="booking"))
    save(dataset)
    return dataset


def save(dataset):
    write_index(dataset.files, update_index(dataset, Index(), []))


@pytest.fixture
def reads(dataset, monkeypatch):
    """The paths that are read from now on."""
    paths = []
    read = dataset.files.read

    def note(path, **bounds):
        paths.append(path)
        return read(path, **bounds)

    monkeypatch.setattr(dataset.files, "read", note)
    return paths


def state_of(dataset):
    """What a run takes from the state, but for what was lost, which is what the index is compared for."""
    state = read_state(dataset, set_aside=False)
    return state.executions, state.half_unmarked, state.unreadable


def parts_in(paths):
    """The parts of which a file was read."""
    return {path.partition("/")[2] for path in paths if not path.startswith("_state/")}


def test_state_from_the_index_is_that_from_the_files(dataset, reads):
    from_index = state_of(dataset)
    assert parts_in(reads) == set()
    (dataset.files.root / INDEX).unlink()
    assert state_of(dataset) == from_index
    assert len([path for path in reads if not path.startswith("_state/")]) == 10
    assert (from_index[0]["e1"].has_letters, from_index[0]["e1"].held.exported_calls) == (True, 1)


def test_index_counts_rows_and_names_what_is_damaged(dataset):
    index = read_index(dataset.files)
    calls = {entry.path: index.count(schema.CALLS, entry) for entry in dataset.files.entries("calls")}
    assert calls == {part("calls"): 1, part("calls", "booking"): 1, part("calls", date="2026-09-02"): 1}
    assert index.damaged() == set()
    (dataset.files.root / part("evals")).unlink()
    assert update_index(dataset, index, []).damaged() == {"e1"}


def index_now(dataset):
    """The index as it is saved at the end of the run that wrote with this dataset, by part."""
    return {part: (each.counts, each.rows) for part, each in updated(dataset, read_index(dataset.files)).items()}


def updated(dataset, known):
    return update_index(dataset, known, []).parts


def index_anew(dataset):
    """The same as the files alone say."""
    return {part: (each.counts, each.rows) for part, each in updated(Dataset(dataset.files), Index()).items()}


def change(dataset, seconds=2.0):
    """What a run brings: one call of a part that has others is another, and one execution is new."""
    export_to(dataset, a_bundle("e1", given_up=["c2"], seconds=seconds), a_bundle("e4", ["c5"]))


def test_what_a_run_wrote_is_indexed_without_hashing_it_again(dataset, monkeypatch):
    change(dataset)
    mark_deleted(dataset, {"e3": Part("booking", place())}, ExportStamp("run-2", FETCHED_AT))
    rename(dataset, HERE, {"e1": "Till"}, ExportStamp("run-2", FETCHED_AT))
    with monkeypatch.context() as patch:
        patch.setattr(part_index, "hash_rows", None)
        found = index_now(dataset)
    assert found == index_anew(dataset)


def _by_another_program(path):
    rows = pq.ParquetFile(path).read()
    keys = pa.array([f"{key}x" for key in rows["call_execution_id"].to_pylist()])
    pq.write_table(rows.set_column(0, rows.schema.field(0), keys), path)


@pytest.mark.parametrize("table", ["calls", "evals"])
@pytest.mark.parametrize("is_first", [True, False])
def test_part_that_somebody_else_changes_while_a_run_writes_it_is_hashed(dataset, tmp_path, table, is_first):
    if not is_first:
        change(dataset)
    _by_another_program(tmp_path / part(table))
    change(dataset, seconds=3.0)
    assert index_now(dataset) == index_anew(dataset)
    _by_another_program(tmp_path / part(table))
    assert index_now(dataset) == index_anew(dataset)


@pytest.mark.parametrize("table", ["evals", "executions"])
def test_part_of_which_a_run_could_not_write_all_is_indexed_as_it_is(dataset, monkeypatch, table):
    with monkeypatch.context() as patch:
        published(patch, failing=table)
        with pytest.raises(DestinationError):
            change(dataset)
    assert index_now(dataset) == index_anew(dataset)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _restore(path):
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def _alter(path):
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("table", ["calls", "executions", *SLOW])
@pytest.mark.parametrize(
    ("change", "is_whole"),
    [
        (lambda path: path.unlink(), True),
        (_restore, True),
        (_alter, False),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), False),
    ],
    ids=["lost", "restored", "altered in place, of the same size and time", "cut"],
)
def test_part_of_which_a_file_changed_is_read_again_and_no_other(dataset, tmp_path, reads, table, change, is_whole):
    change(tmp_path / part(table))
    state = read_state(dataset, set_aside=False)
    assert parts_in(reads) == {part(table).partition("/")[2]}
    assert state.unreadable == ([] if is_whole else [part(table)])
    is_gone = table == "executions" and not (is_whole and (tmp_path / part(table)).exists())
    without_row = {each for each, stored in state.executions.items() if not stored.has_row}
    assert without_row == ({"e1"} if is_gone else set())


def test_damaged_file_is_read_again_until_it_is_whole(dataset, tmp_path, reads):
    whole = (tmp_path / part("calls")).read_bytes()
    (tmp_path / part("calls")).write_bytes(b"garbage")
    index = update_index(dataset, read_index(dataset.files), [])
    assert index.parts[HERE].versions is None
    write_index(dataset.files, index)
    reads.clear()
    assert read_state(dataset, set_aside=False).unreadable == [part("calls")]
    assert part("calls") in reads
    (tmp_path / part("calls")).write_bytes(whole)
    assert not read_state(dataset, set_aside=False).executions["e1"].is_damaged


def test_part_that_changed_a_moment_ago_is_read_again_and_remembered(dataset, monkeypatch, reads):
    """A clock that stands still for some milliseconds gives two contents the same time."""
    monkeypatch.setattr(local, "_TICK_NS", 3600 * 10**9)
    index = update_index(dataset, read_index(dataset.files), [])
    assert part("calls") in reads
    write_index(dataset.files, index)
    known = read_index(dataset.files).parts[HERE]
    assert known.versions is None
    assert known.rows["is_here"].to_pylist().count(True) == known.counts[-1] > 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(path.read_bytes()[:30] + b"X" + path.read_bytes()[31:]),
        lambda path: pq.write_table(schema.CALLS.no_rows, path),
        lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata({"head": "[]"}), path),
        _pipe,
    ],
    ids=["lost", "cut", "flipped", "another table", "another head", "a pipe"],
)
def test_index_that_is_none_is_made_again_and_nothing_differs(dataset, tmp_path, damage):
    before = state_of(dataset)
    damage(tmp_path / INDEX)
    assert read_index(dataset.files) == Index()
    assert state_of(dataset) == before
    assert read_state(dataset, set_aside=False).lost == {}, "nobody can tell what was there"
    if (tmp_path / INDEX).exists():
        (tmp_path / INDEX).unlink()
    save(dataset)
    assert state_of(dataset) == before


def test_index_of_another_dataset_counts_as_none(dataset, tmp_path):
    other = a_dataset(tmp_path / "other")
    identify(other.files, FETCHED_AT)
    shutil.copy(tmp_path / INDEX, tmp_path / "other" / INDEX)
    assert read_index(other.files).parts == {}
    assert read_index(dataset.files).parts.keys()
    (tmp_path / IDENTITY).unlink()
    assert read_index(dataset.files).parts == {}


def test_index_of_a_version_with_other_columns_counts_as_none(dataset, monkeypatch):
    monkeypatch.setattr(module, "_MEANING", "another version")
    index = update_index(dataset, read_index(dataset.files), [])
    assert (read_index(dataset.files), index.is_saved) == (Index(), False)
    write_index(dataset.files, index)
    assert update_index(dataset, read_index(dataset.files), []).is_saved


def test_index_outlives_another_text_about_a_column_but_no_other_column():
    """After the change of a text no file is read again."""
    first, *others = schema.EXECUTIONS.columns

    def meaning(**changes):
        columns = (replace(first, **changes), *others)
        return module.meaning_of([*schema.OF_EXECUTIONS[:-1], replace(schema.EXECUTIONS, columns=columns)])

    assert meaning(meaning="Said better.", unit="none", null="never") == module._MEANING
    assert len({module._MEANING, meaning(name="id"), meaning(type=schema.INT), meaning(is_key=False)}) == 4


def test_index_that_may_not_be_read_is_told_and_each_file_is_read(dataset, monkeypatch):
    def refuse(_path, **_bounds):
        raise DestinationError("index.parquet: Permission denied")

    monkeypatch.setattr(dataset.files, "read", refuse)
    ignored: list[str] = []
    assert index_if_readable(dataset.files, ignored) == Index()
    assert ignored == ["index.parquet: Permission denied. This index is ignored, and each file is read instead"]
