"""What the index knows is not read again, and what changed is; an index that cannot be used counts as none."""

import os
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.load import index as module
from etl.load.files import local
from etl.load.identity import identify
from etl.load.index import Index, read_index, update_index, write_index
from etl.load.layout import IDENTITY, INDEX, Part
from etl.load.relocate import move
from etl.load.state import load_state
from etl.model import schema
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, a_dataset, export_to, part, place

TABLES = ("executions", "calls", "evals", "errors")
MARCH = Part(KEY, place())


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
    state = load_state(dataset, [KEY], set_aside=False)
    return state.executions, state.elsewhere, state.surplus, state.stray_places, state.orphans, state.unreadable


def parts_in(paths):
    return [path for path in paths if not path.startswith("_state/")]


def test_state_from_the_index_is_that_from_the_files(dataset, reads):
    from_index = state_of(dataset)
    assert parts_in(reads) == []
    dataset.files.remove(INDEX)
    assert state_of(dataset) == from_index
    assert len(parts_in(reads)) == 10
    assert (from_index[0][KEY]["e1"].has_letters, from_index[0][KEY]["e1"].held.exported_calls) == (True, 1)


def test_index_remembers_the_executions_that_no_file_has_any_more(dataset):
    kept = {table: dataset.files.read(f"{table}/run_test={KEY}/{place()}.parquet") for table in TABLES}
    for table in TABLES:
        dataset.files.remove(f"{table}/run_test={KEY}/{place()}.parquet")
    for _ in range(2):
        known = update_index(dataset, read_index(dataset.files), [])
        assert known.lost == {KEY: {"e1"}}
        write_index(dataset.files, known)
    assert update_index(dataset, read_index(dataset.files), []).is_saved
    for table in TABLES:
        dataset.files.publish(f"{table}/run_test={KEY}/{place()}.parquet", kept[table])
    assert update_index(dataset, read_index(dataset.files), []).lost == {}


def test_index_remembers_what_a_row_vouched_for_until_there_is_a_row_again(dataset):
    path = part("executions")
    kept, before = dataset.files.read(path), load_state(dataset, [KEY], set_aside=False).executions[KEY]["e1"]
    dataset.files.remove(path)
    for _ in range(2):
        known = update_index(dataset, read_index(dataset.files), [])
        assert known.vouched == {"e1": before.vouched}
        write_index(dataset.files, known)
    dataset.files.publish(path, kept)
    assert update_index(dataset, read_index(dataset.files), []).vouched == {}


def test_execution_that_lies_elsewhere_now_is_not_lost(dataset):
    move(dataset, MARCH, "booking", {"e1"}, run_test_name="Booking", stamp=ExportStamp("run-2", FETCHED_AT))
    index = update_index(dataset, read_index(dataset.files), [])
    assert (index.lost, index.vouched) == ({}, {})


def test_index_says_whether_it_is_saved(dataset):
    known = read_index(dataset.files)
    assert known.is_saved
    assert update_index(dataset, known, []).is_saved
    export_to(dataset, a_bundle("e4", ["c5"]))
    changed = update_index(dataset, known, [])
    assert not changed.is_saved
    write_index(dataset.files, changed)
    assert update_index(dataset, read_index(dataset.files), []).is_saved
    for table in TABLES:
        shutil.rmtree(dataset.files.root / table / f"run_test={KEY}", ignore_errors=True)
    assert not update_index(dataset, read_index(dataset.files), []).is_saved


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


@pytest.mark.parametrize("table", TABLES)
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
    state = load_state(dataset, [KEY], set_aside=False)
    assert {each.partition("/")[2] for each in parts_in(reads)} == {part(table).partition("/")[2]}
    assert state.unreadable == ([] if is_whole else [part(table)])
    is_gone = table == "executions" and not (is_whole and (tmp_path / part(table)).exists())
    assert state.executions[KEY].keys() == ({"e2"} if is_gone else {"e1", "e2"})


def test_damaged_file_is_read_again_until_it_is_mended(dataset, tmp_path, reads):
    whole = (tmp_path / part("calls")).read_bytes()
    (tmp_path / part("calls")).write_bytes(b"garbage")
    index = update_index(dataset, read_index(dataset.files), [])
    assert index.parts[MARCH].versions is None
    write_index(dataset.files, index)
    reads.clear()
    assert load_state(dataset, [KEY], set_aside=False).unreadable == [part("calls")]
    assert part("calls") in reads
    (tmp_path / part("calls")).write_bytes(whole)
    assert not load_state(dataset, [KEY], set_aside=False).executions[KEY]["e1"].is_damaged


def test_part_that_changed_a_moment_ago_is_not_trusted(dataset, monkeypatch, reads):
    """A clock that stands still for some milliseconds gives two contents the same time."""
    monkeypatch.setattr(local, "_TICK_NS", 3600 * 10**9)
    assert update_index(dataset, read_index(dataset.files), []).parts[MARCH].versions is None
    assert part("calls") in reads


def test_part_whose_version_is_not_trusted_is_remembered_all_the_same(dataset, monkeypatch):
    """By it, ``status`` misses what is gone."""
    monkeypatch.setattr(local, "_TICK_NS", 3600 * 10**9)
    write_index(dataset.files, update_index(dataset, read_index(dataset.files), []))
    known = read_index(dataset.files).parts[MARCH]
    assert known.versions is None
    assert known.rows["is_here"].to_pylist().count(True) == known.counts[0] > 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(path.read_bytes()[:200] + b"X" + path.read_bytes()[201:]),
        lambda path: pq.write_table(schema.CALLS.no_rows, path),
        lambda path: pq.write_table(pq.read_table(path).slice(1), path),
        lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata({"head": "[]"}), path),
        _pipe,
    ],
    ids=["lost", "empty", "cut", "flipped", "another table", "a row less", "another head", "a pipe"],
)
def test_index_that_is_no_index_counts_as_none(dataset, tmp_path, damage):
    before = state_of(dataset)
    damage(tmp_path / INDEX)
    assert read_index(dataset.files).parts == {}
    assert state_of(dataset) == before


def test_index_of_another_dataset_counts_as_none(dataset, tmp_path):
    other = a_dataset(tmp_path / "other")
    identify(other.files, FETCHED_AT)
    shutil.copy(tmp_path / INDEX, tmp_path / "other" / INDEX)
    assert read_index(other.files).parts == {}
    assert read_index(dataset.files).parts.keys()
    (tmp_path / IDENTITY).unlink()
    assert read_index(dataset.files).parts == {}


def test_index_of_a_version_with_other_columns_counts_as_none(dataset, monkeypatch, reads):
    monkeypatch.setattr(module, "_MEANING", "another version")
    index = update_index(dataset, read_index(dataset.files), [])
    assert (read_index(dataset.files), index.is_saved) == (Index(), False)
    assert len(parts_in(reads)) == 10, "every file"
    write_index(dataset.files, index)
    assert update_index(dataset, read_index(dataset.files), []).is_saved


def test_old_index_knows_what_has_not_changed_since(dataset, tmp_path, reads):
    old = (tmp_path / INDEX).read_bytes()
    export_to(dataset, a_bundle("e4", ["c5"], date="2026-09-02"))
    save(dataset)
    (tmp_path / INDEX).write_bytes(old)
    reads.clear()
    assert load_state(dataset, [KEY], set_aside=False).executions[KEY].keys() == {"e1", "e2", "e4"}
    assert {each.partition("/")[2] for each in parts_in(reads)} == {part("calls", date="2026-09-02").partition("/")[2]}


def test_foreign_file_beside_the_parts_is_refused_whatever_the_index_knows(dataset, tmp_path):
    (tmp_path / part("calls")).with_name("notes.parquet").write_text("mine")
    with pytest.raises(DestinationError, match=r"notes\.parquet: not a file of this dataset; move it elsewhere$"):
        load_state(dataset, [KEY], set_aside=False)


def test_index_outlives_another_text_about_a_column_but_no_other_column():
    """After the change of a text no file is read again."""
    first, *others = schema.EXECUTIONS.columns

    def meaning(**changes):
        columns = (replace(first, **changes), *others)
        return module.meaning_of([*schema.OF_EXECUTIONS[:-1], replace(schema.EXECUTIONS, columns=columns)])

    assert meaning(meaning="Said better.", unit="none", null="never") == module._MEANING
    assert len({module._MEANING, meaning(name="id"), meaning(type=schema.INT), meaning(is_key=False)}) == 4


@pytest.mark.slow
def test_index_remembers_millions_of_executions(dataset):
    """It has no rows of them, and must not count as damaged since it remembers so much."""
    known = read_index(dataset.files)
    known.lost = {KEY: {"e" * (80 << 20)}}
    write_index(dataset.files, known)
    assert read_index(dataset.files).lost == known.lost
