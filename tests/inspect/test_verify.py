"""`verify` finds nothing in a dataset that is whole, and one thing where it was broken in one place; its fixes work."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.cli.show_dataset import finding_text
from etl.dataset.last_run import Attempt, note_failure, update_last_run
from etl.dataset.layout import Scope, days_of
from etl.dataset.parquet import encode
from etl.errors import ConfigurationError, DestinationError
from etl.files.local import LocalFiles
from etl.inspect.verify import VerifyReport, stored_scope, verify
from etl.model import schema
from etl.model.arrow import with_column
from etl.model.findings import Kind
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, World
from tests.datasets import FETCHED_AT, fill_parts_early
from tests.e2e.truth import assert_equals_world
from tests.support import settings_for
from tests.worlds import settled_world


@dataclass
class Place:
    """A dataset that holds all of a world, and where some of its files lie."""

    folder: Path
    server: Sandbox

    @property
    def data(self) -> Path:
        return self.folder / "data"

    async def export(self, **options: Any) -> Summary:
        return await job.export(settings_for(self.server, self.data), **options)

    def verify(self, **scope: Any) -> VerifyReport:
        return verify(settings_for(self.server, self.data), Scope(**scope))

    def part(self, table: str, *, run_test: int = 0) -> Path:
        """The oldest part of the run test."""
        calls = self.data / "calls"
        oldest = min(sorted(calls.iterdir())[run_test].rglob("*.parquet"))
        return self.data / table / oldest.relative_to(calls)


@pytest.fixture(scope="module")
def world() -> World:
    return settled_world(run_tests=2, executions=3, calls=4)


@pytest.fixture(scope="module")
def exported(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    async def export(folder: Path) -> None:
        async with Sandbox(world) as server:
            assert (await job.export(settings_for(server, folder))).exit_code == 0

    folder = tmp_path_factory.mktemp("exported") / "data"
    with pytest.MonkeyPatch.context() as patch:
        fill_parts_early(patch, rows=1)  # each execution lies in a part of its own
        asyncio.run(export(folder))
    return folder


@pytest.fixture
async def place(world: World, exported: Path, tmp_path: Path) -> AsyncIterator[Place]:
    shutil.copytree(exported, tmp_path / "data")
    async with Sandbox(world) as server:
        yield Place(tmp_path, server)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """The file with other rows, in every other way as the exporter writes it."""
    table = schema.TABLES[pq.read_schema(path).metadata[b"table"].decode()]
    path.write_bytes(encode(table, change(pq.ParquetFile(path).read()), "zstd"))


def with_value(rows: pa.Table, name: str, value: Any) -> pa.Table:
    return with_column(rows, name, [value, *rows[name].to_pylist()[1:]])


def test_whole_dataset_has_no_findings_all_of_it_was_read_and_nothing_written(place: Place) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.data.rglob("*")}
    report = place.verify()
    assert {path: path.stat().st_mtime_ns for path in place.data.rglob("*")} == before

    assert (report.findings, report.notices, report.exit_code) == ([], [], 0)
    files = {name: len(list((place.data / name).rglob("*.parquet"))) for name in schema.TABLES}
    assert {name: each.files for name, each in report.tables.items()} == files
    assert report.tables["executions"].rows == 6
    assert report.tables["calls"].rows == 24


def lose_a_call(place: Place) -> Path:
    rewrite(place.part("calls"), lambda rows: rows.slice(1))
    return place.part("executions")


def lose_an_eval(place: Place) -> Path:
    rewrite(place.part("evals"), lambda rows: rows.slice(1))
    return place.part("executions")


def lose_a_file(place: Place) -> Path:
    gone = place.part("executions")
    place.part("calls").unlink()
    return gone


def double_a_call(place: Place) -> Path:
    rewrite(place.part("calls"), lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    return place.part("calls")


def in_another_month(path: Path) -> Path:
    target = path.parent.with_name("month=2020-02") / path.name
    target.parent.mkdir(exist_ok=True)
    return target


def move_to_another_month(place: Place) -> Path:
    return place.part("calls").rename(in_another_month(place.part("calls")))


def copy_to_another_run_test(place: Place) -> Path:
    return Path(shutil.copy(place.part("calls"), in_another_month(place.part("calls", run_test=1))))


def copy_all_to_another_month(place: Place) -> Path:
    for source in [place.part(table) for table in ("executions", "calls", "evals")]:
        shutil.copy(source, in_another_month(source))
    return place.part("executions")


def change_a_value(place: Place) -> Path:
    rewrite(place.part("calls"), lambda rows: with_value(rows, "duration_seconds", 12345.0))
    return place.part("executions")


def add_a_column(place: Place) -> Path:
    path = place.part("executions")
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.append_column("mood", pa.nulls(len(rows), pa.string())), path)
    return path


def damage_a_page(place: Place) -> Path:
    """Of a column that no run reads, in a file whose compression would not notice."""
    path = place.part("calls")
    rows = pq.ParquetFile(path).read()
    content = bytes(encode(schema.CALLS, rows, "none"))
    scenario = str(rows["scenario_name"][0]).encode()
    assert scenario in content
    path.write_bytes(content.replace(scenario, scenario.swapcase()))
    return path


def flip_a_bit_that_no_checksum_covers(place: Place) -> Path:
    """One that pyarrow does not read, and without which other readers take the file for no Parquet."""
    path = place.part("evals")
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    return path


def link_a_file(place: Place) -> Path:
    path, elsewhere = place.part("calls"), place.folder / "elsewhere.parquet"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return path


def put_a_file_of_another_name(place: Place) -> Path:
    return Path(shutil.copy(place.part("calls"), place.part("calls").with_name("part-01.parquet")))


def copy_a_run_to_another_month(place: Place) -> Path:
    (path,) = (place.data / "runs").rglob("*.parquet")
    target = path.parents[1] / "month=2099-01" / path.name
    target.parent.mkdir()
    return Path(shutil.copy(path, target))


DAMAGED, MISPLACED, SCHEMA = Kind.DAMAGED, Kind.MISPLACED, Kind.SCHEMA
BREAKS: dict[Callable[[Place], Path], tuple[Kind, str, set[Kind]]] = {
    lose_a_call: (DAMAGED, "the dataset has 3 of the 4 calls that were exported", {Kind.LOST_ROWS}),
    lose_an_eval: (DAMAGED, "its calls or evals differ from what was exported", {Kind.LOST_ROWS}),
    lose_a_file: (DAMAGED, "the dataset has 0 of the 4 calls that were exported", {Kind.LOST_ROWS}),
    double_a_call: (MISPLACED, "1 duplicate key (first: call_execution_id ", {DAMAGED}),
    move_to_another_month: (MISPLACED, "whose row is in executions/run_test=", {DAMAGED, Kind.LOST_ROWS}),
    copy_to_another_run_test: (MISPLACED, "whose row is in executions/run_test=", set()),
    copy_all_to_another_month: (MISPLACED, "month=", {MISPLACED}),
    change_a_value: (DAMAGED, "its calls or evals differ from what was exported", {Kind.UNREADABLE}),
    add_a_column: (SCHEMA, "has unknown columns: mood", set()),
    damage_a_page: (Kind.UNREADABLE, "cannot be read: ", set()),
    flip_a_bit_that_no_checksum_covers: (Kind.UNREADABLE, "has changed since a run wrote it, ", set()),
    link_a_file: (Kind.FOREIGN_FILE, "is a symbolic link", {DAMAGED, Kind.LOST_ROWS}),
    put_a_file_of_another_name: (Kind.FOREIGN_FILE, "is not a file of this dataset", set()),
    copy_a_run_to_another_month: (MISPLACED, "should hold exactly one run, the run in the file's name", set()),
}
"""What is found where it was broken, and what else follows from it elsewhere."""


NOT_FIXED_BY_A_RUN = {move_to_another_month, link_a_file, put_a_file_of_another_name}


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda break_it: break_it.__name__)
async def test_what_is_broken_in_one_place_is_a_finding_that_names_it_and_how_to_fix_it(
    place: Place, world: World, break_it: Callable[[Place], Path]
) -> None:
    before = {*place.data.rglob("*.parquet")}
    path = break_it(place)
    kind, words, others = BREAKS[break_it]

    report = place.verify()

    there = [each for each in report.findings if (each.kind, place.data / each.subject) == (kind, path)]
    assert len(there) == 1
    assert words in there[0].text
    assert finding_text(there[0]).isprintable()
    assert {each.kind for each in report.findings if each not in there} == others
    assert report.exit_code == 3

    if break_it in NOT_FIXED_BY_A_RUN:
        return
    for finding in report.findings:
        if "move the file" in finding.kind.next_step and kind is not MISPLACED:
            (place.data / finding.subject).unlink(missing_ok=True)
        assert "metrics-etl run" in finding.kind.next_step or "the next run" in finding.kind.next_step
    for copied in {*place.data.rglob("*.parquet")} - before:
        copied.unlink()
    await place.export()

    assert place.verify().findings == []
    assert_equals_world(place.folder, world)


def test_processes_that_share_the_parts_find_the_same_as_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_a_file(place)
    copy_to_another_run_test(place)
    copy_a_run_to_another_month(place)
    alone = place.verify()
    assert len(alone.findings) >= 3
    monkeypatch.setattr("etl.inspect.verify._SHARE_BYTES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert place.verify() == alone


def test_rows_without_an_execution_are_found_in_each_file_unless_all_are_marked_as_deleted(place: Place) -> None:
    place.part("executions").unlink()
    found = [(each.kind, place.data / each.subject) for each in place.verify().findings]
    beside = [(DAMAGED, place.part(table)) for table in ("calls", "evals")]
    assert found == [*beside, (Kind.LOST_ROWS, place.part("executions"))]
    for table in ("calls", "evals"):
        rewrite(place.part(table), lambda rows: with_column(rows, "deleted_at", [FETCHED_AT] * len(rows)))
    kinds = [each.kind for each in place.verify().findings]
    assert kinds == [Kind.UNREADABLE, Kind.UNREADABLE, Kind.LOST_ROWS]  # the rewritten files, and the lost one


def test_files_in_the_quarantine_are_a_notice_and_columns_that_an_older_version_did_not_have_are_none(
    place: Place,
) -> None:
    path = place.part("calls")
    (place.data / "_state" / "quarantine").mkdir()
    (place.data / "_state" / "quarantine" / "left").touch()
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.drop_columns(["extra", "raw"]).replace_schema_metadata(), path)
    report = place.verify()
    assert [each.text[:11] for each in report.findings] == ["has changed"]
    assert report.notices == ["inspect and then delete 1 damaged file in _state/quarantine"]

    pq.write_table(rows.drop_columns(["scenario_name"]), path)  # which had values
    assert [each.kind for each in place.verify().findings] == [Kind.UNREADABLE, DAMAGED]


async def test_files_are_compared_with_receipts_unless_a_run_was_killed_since(place: Place) -> None:
    await place.export()
    files, unread = LocalFiles(place.data), ConfigurationError("no key")
    note_failure(files, unread, FETCHED_AT, "other settings")  # it wrote nothing
    flip_a_bit_that_no_checksum_covers(place)
    assert [each.kind for each in place.verify().findings] == [Kind.UNREADABLE]

    update_last_run(files, {"attempt": Attempt(started_at=FETCHED_AT, export_run_id="killed"), "forgot": None})
    report = place.verify()
    assert report.findings == []
    text = "18 files could not be compared with a SHA-256, because no receipt has one, or a run was killed since"
    assert report.notices == [text]


def test_what_changes_while_it_is_read_is_said_to_do_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_a_call(place)
    read, times = LocalFiles.read, []

    def read_and_touch(files: LocalFiles, name: str, **options: Any) -> bytes:
        times.append(name)
        os.utime(files.root / name, ns=(len(times), len(times)))
        return read(files, name, **options)

    monkeypatch.setattr(LocalFiles, "read", read_and_touch)
    report = place.verify()

    assert {each.kind for each in report.findings} == {DAMAGED, Kind.LOST_ROWS}
    assert report.notices == ["files changed while they were read. Verify again when the export has ended"]


def test_export_at_work_is_named(place: Place) -> None:
    with LocalFiles(place.data).lock(FETCHED_AT):
        report = place.verify()

    assert report.exit_code == 0
    assert report.export_at_work
    assert report.notices == [f"an export is running on this dataset ({report.export_at_work})"]


async def test_dead_letter_is_a_finding_until_it_is_healed(place: Place, tmp_path: Path) -> None:
    call = place.server.world.run_tests[0].executions[0].calls[0].call_execution_id
    place.server.fault = lambda request, _nth: Fault(status=500) if call in request.target else None
    api, export = {"max_tries": 1}, {"metrics": "calls"}
    settings = settings_for(place.server, tmp_path / "fresh", api=api, export=export)
    assert (await job.export(settings)).exit_code == 3

    (finding,) = verify(settings, Scope()).findings
    assert (finding.kind, finding.text.split(":")[0]) == (Kind.DEAD_LETTER, "1 dead letter")
    assert call in finding.text

    place.server.fault = None
    assert (await job.export(settings)).exit_code == 0
    assert verify(settings, Scope()).findings == []


def test_run_tests_and_months_that_are_not_asked_for_are_not_read(place: Place) -> None:
    lose_a_call(place)
    (first, second) = sorted(path.name.removeprefix("run_test=") for path in (place.data / "calls").iterdir())

    assert len(place.verify(run_test_keys=frozenset([first])).findings) == 2
    other = place.verify(run_test_keys=frozenset([second]))
    assert (other.findings, other.tables["executions"].rows) == ([], 3)
    _, last_day = days_of(place.part("calls").parent.name)
    assert len(place.verify(since=last_day).findings) == 2
    assert place.verify(since=last_day + timedelta(days=1)).findings == []


def test_day_to_come_is_refused_since_nothing_would_be_read(place: Place) -> None:
    to_come = datetime.now(UTC).date() + timedelta(days=3)
    with pytest.raises(ConfigurationError, match="must not be in the future"):
        stored_scope(settings_for(place.server, place.data), (), to_come)


def test_file_that_may_not_be_read_is_not_to_be_fetched_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_part, read = place.part("calls"), LocalFiles.read

    def refused(self: LocalFiles, path: str, **options: Any) -> bytes:
        if self.root / path == closed_part:
            raise DestinationError(f"{closed_part}: Permission denied: Let this user read and write this path")
        return read(self, path, **options)

    monkeypatch.setattr(LocalFiles, "read", refused)
    report = place.verify()
    (finding,) = report.findings
    assert place.data / finding.subject == closed_part
    assert (finding.kind, report.exit_code) == (Kind.NOT_READ, 3)
    assert finding.text.endswith("Permission denied: Let this user read and write this path")
    assert "fetch" not in finding.kind.next_step
