"""`verify` finds nothing in a dataset that is whole, and exactly one thing in one that was broken in one place; its fixes work."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.inspect.rules import Kind
from etl.inspect.verify import Report, verify
from etl.load.files.local import LocalFiles
from etl.load.layout import INDEX, Scope, days_of
from etl.load.merge import with_column
from etl.load.parquet import encode
from etl.model import schema
from etl.model.digest import rows_digest
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, World
from etl.transform.frames import hash_rows
from tests.datasets import FETCHED_AT, fill_parts_early
from tests.e2e.command import environment, metrics_etl, write_settings
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

    def verify(self, **scope: Any) -> Report:
        return verify(settings_for(self.server, self.data), Scope(**scope))

    def parts(self, number: int = 0) -> list[Path]:
        """The parts' paths below a table, of one run test, oldest first."""
        keys = sorted(path.name for path in (self.data / "calls").iterdir())
        return [
            path.relative_to(self.data / "calls")
            for path in sorted((self.data / "calls" / keys[number]).rglob("*.parquet"))
        ]

    def part(self, table: str, number: int = 0, *, run_test: int = 0) -> Path:
        return self.data / table / self.parts(run_test)[number]


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


def test_whole_dataset_has_no_findings_and_all_of_it_was_read(place: Place) -> None:
    report = place.verify()

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


def move_to_another_part(place: Place) -> Path:
    return place.part("calls").rename(place.part("calls").with_name("part-9.parquet"))


def copy_to_another_run_test(place: Place) -> Path:
    target = in_another_month(place.part("calls", run_test=1))
    shutil.copy(place.part("calls"), target)
    return target


def copy_all_to_another_month(place: Place) -> Path:
    for source in [place.part(table) for table in ("executions", "calls", "evals")]:
        shutil.copy(source, in_another_month(source))
    return place.part("executions")


def copy_all_to_another_part(place: Place) -> Path:
    for source in [place.part(table) for table in ("executions", "calls", "evals")]:
        shutil.copy(source, source.with_name("part-9.parquet"))
    return place.part("executions")


def change_a_value(place: Place) -> Path:
    rewrite(place.part("calls"), lambda rows: with_value(rows, "duration_seconds", 12345.0))
    return place.part("calls")


def change_an_eval(place: Place) -> Path:
    rewrite(place.part("evals"), lambda rows: with_value(rows, "reason", "because"))
    return place.part("evals")


def change_a_type(place: Place) -> Path:
    path = place.part("calls")
    rows = pq.ParquetFile(path).read()
    index = rows.schema.get_field_index("duration_seconds")
    pq.write_table(rows.set_column(index, "duration_seconds", rows["duration_seconds"].cast(pa.string())), path)
    return path


def add_a_column(place: Place) -> Path:
    path = place.part("executions")
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.append_column("mood", pa.nulls(len(rows), pa.string())), path)
    return path


def reorder_the_columns(place: Place) -> Path:
    path = place.part("evals")
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.select([*rows.column_names[1:], rows.column_names[0]]), path)
    return path


def allow_null_keys(place: Place) -> Path:
    path = place.part("calls")
    rows = pq.ParquetFile(path).read()
    index = rows.schema.get_field_index("call_execution_id")
    pq.write_table(rows.set_column(index, "call_execution_id", rows["call_execution_id"]), path)
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


def cut_a_file(place: Place) -> Path:
    path = place.part("executions")
    path.write_bytes(path.read_bytes()[:-100])
    return path


def link_a_file(place: Place) -> Path:
    path, elsewhere = place.part("calls"), place.folder / "elsewhere.parquet"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return path


def link_a_folder(place: Place) -> Path:
    path, elsewhere = place.part("executions").parents[1], place.folder / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return path


def link_a_table(place: Place) -> Path:
    (place.data / "evals").rename(place.folder / "elsewhere")
    (place.data / "evals").symlink_to(place.folder / "elsewhere")
    return place.data / "evals"


def put_a_stray_file(place: Place) -> Path:
    path = place.part("calls").with_name("part-01.parquet")
    shutil.copy(place.part("calls"), path)
    return path


def put_notes_beside_the_runs(place: Place) -> Path:
    path = place.data / "runs" / "notes\n.txt"
    path.write_text("mine")
    return path


def copy_a_run_to_another_month(place: Place) -> Path:
    (path,) = (place.data / "runs").rglob("*.parquet")
    target = path.parents[1] / "month=2099-01" / path.name
    target.parent.mkdir()
    shutil.copy(path, target)
    return target


def rename_a_run(place: Place) -> Path:
    path = next((place.data / "runs").rglob("*.parquet"))
    return path.rename(path.with_name("20200101T000000Z-00000000.parquet"))


BREAKS: dict[Callable[[Place], Path], tuple[Kind, str]] = {
    lose_a_call: (Kind.DAMAGED, "3 of 4 exported calls are there"),
    lose_an_eval: (Kind.DAMAGED, "its calls or evals are not those that were exported"),
    lose_a_file: (Kind.DAMAGED, "0 of 4 exported calls are there"),
    double_a_call: (Kind.DOUBLED, "1 key more than once: call_execution_id "),
    move_to_another_month: (Kind.MISPLACED, "whose own rows are in executions/run_test="),
    move_to_another_part: (Kind.MISPLACED, "whose own rows are in executions/run_test="),
    copy_to_another_run_test: (Kind.MISPLACED, "whose own rows are in executions/run_test="),
    copy_all_to_another_month: (Kind.SPREAD, "month="),
    copy_all_to_another_part: (Kind.SPREAD, "part-9"),
    change_a_value: (Kind.ALTERED, "1 row with other values than were exported: call_execution_id "),
    change_an_eval: (Kind.ALTERED, "1 row with other values than were exported: call_execution_id "),
    change_a_type: (Kind.SCHEMA, "has duration_seconds as string, expected double"),
    add_a_column: (Kind.SCHEMA, "has unknown columns: mood"),
    reorder_the_columns: (Kind.SCHEMA, "has its columns in another order"),
    allow_null_keys: (Kind.SCHEMA, "declares call_execution_id as nullable"),
    damage_a_page: (Kind.UNREADABLE, "cannot be read: "),
    cut_a_file: (Kind.UNREADABLE, "cannot be read: "),
    link_a_file: (Kind.ODDITY, "is a symbolic link"),
    link_a_folder: (Kind.ODDITY, "is a symbolic link"),
    link_a_table: (Kind.ODDITY, "is a symbolic link"),
    put_a_stray_file: (Kind.STRAY_FILE, "is not a file of this dataset"),
    put_notes_beside_the_runs: (Kind.STRAY_FILE, "is not a file of this dataset"),
    rename_a_run: (Kind.MISPLACED, "does not hold the one run that it is named after"),
    copy_a_run_to_another_month: (Kind.DOUBLED, "holds a run that another file holds, too"),
}


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda break_it: break_it.__name__)
def test_what_is_broken_in_one_place_is_one_finding_that_names_it(
    place: Place, break_it: Callable[[Place], Path]
) -> None:
    path = break_it(place)
    kind, words = BREAKS[break_it]

    report = place.verify()

    assert [(each.kind, place.data / each.place) for each in report.findings] == [(kind, path)]
    assert words in report.findings[0].text
    assert str(report.findings[0]).isprintable()
    assert report.exit_code == 3


@pytest.mark.parametrize(
    "break_it",
    [each for each in BREAKS if each.__name__.split("_")[0] not in ("link", "put", "rename")],
    ids=lambda break_it: break_it.__name__,
)
async def test_what_a_finding_tells_to_do_fixes_it(
    place: Place, world: World, break_it: Callable[[Place], Path]
) -> None:
    break_it(place)
    (finding,) = place.verify().findings

    if "move the file out" in finding.fix:
        (place.data / finding.place).unlink()
    else:
        assert "metrics-etl run" in finding.fix
    await place.export()

    assert place.verify().findings == []
    assert_equals_world(place.folder, world)


async def test_run_alone_takes_a_doubled_row_away(place: Place, world: World) -> None:
    double_a_call(place)
    await place.export()
    assert place.verify().findings == []
    assert_equals_world(place.folder, world)


@pytest.mark.parametrize("has_index", [True, False])
async def test_parts_that_are_gone_as_a_whole_are_a_finding_while_the_index_knows_of_them(
    place: Place, *, has_index: bool
) -> None:
    """What is left fits together."""
    if not has_index:
        (place.data / INDEX).unlink()
    lost, kept = (place.parts(number)[0].parts[0] for number in (0, 1))
    for table in place.data.iterdir():
        shutil.rmtree(table / lost, ignore_errors=True)

    report = place.verify()

    assert [each.kind for each in report.findings] == [Kind.GONE] * has_index
    assert [each.text[:23] for each in report.findings] == ["3 executions, 12 calls,"] * has_index
    assert report.exit_code == (3 if has_index else 0)
    assert any("nothing tells whether files are gone" in each for each in report.notices) is not has_index
    assert place.verify(run_test_keys=frozenset([kept.removeprefix("run_test=")])).findings == []
    await place.export()
    assert place.verify().findings == []


def test_a_call_of_two_executions_is_one_finding_though_both_vouch_for_it(place: Place) -> None:
    first, second = place.part("calls"), place.part("calls", run_test=1)
    taken = pq.ParquetFile(first).read().slice(0, 1)
    (other,) = set(pq.ParquetFile(second).read()["execution_id"].to_pylist())
    taken = with_value(taken, "execution_id", other)
    taken = with_value(taken, "row_hash", hash_rows(schema.CALLS, taken)[0])
    rewrite(second, lambda rows: pa.concat_tables([rows, taken]))
    hashes = [
        row_hash
        for table in ("calls", "evals")
        for row_hash in pq.ParquetFile(place.part(table, run_test=1)).read()["row_hash"].to_pylist()
    ]
    vouched = {"calls_digest": rows_digest(hashes), "exported_calls": 5, "listed_calls": 5}
    for name, value in vouched.items():
        rewrite(
            place.part("executions", run_test=1),
            lambda rows, name=name, value=value: with_value(rows, name, value),  # type: ignore[misc]
        )

    (finding,) = place.verify().findings

    assert (finding.kind, place.data / finding.place) == (Kind.DOUBLED, first)
    assert f"1 call also in {second.relative_to(place.data)}: " in finding.text


def test_rows_without_an_execution_are_found_in_each_file(place: Place) -> None:
    place.part("executions").unlink()
    assert [(each.kind, place.data / each.place) for each in place.verify().findings] == [
        (Kind.NO_EXECUTION, place.part("calls")),
        (Kind.NO_EXECUTION, place.part("evals")),
    ]


def test_files_of_an_older_version_are_a_notice(place: Place) -> None:
    path = place.part("calls")
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["extra", "raw"]).replace_schema_metadata(), path)

    report = place.verify()

    assert report.findings == []
    (notice,) = report.notices
    assert notice.startswith("1 file written by another version of the exporter")
    assert str(path.relative_to(place.data)) in notice


def test_file_that_only_describes_its_columns_in_other_words_is_no_older_one(place: Place) -> None:
    """No run writes it again for that: a notice would stay for ever."""
    for path in (place.part("calls"), *sorted((place.data / "runs").rglob("*.parquet"))):
        rows = pq.ParquetFile(path).read()
        columns = [field.with_metadata({"meaning": "Other words."}) for field in rows.schema]
        pq.write_table(rows.cast(pa.schema(columns, rows.schema.metadata)), path)

    report = place.verify()

    assert (report.findings, report.notices) == ([], [])


def test_a_column_that_is_gone_with_its_values_is_not_an_older_version(place: Place) -> None:
    path = place.part("calls")
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["scenario_name"]), path)
    assert [each.kind for each in place.verify().findings] == [Kind.ALTERED]


def test_another_month_and_another_name_are_notices_where_all_rows_agree(place: Place) -> None:
    """A month is pinned when an execution is first seen, and executions that were deleted stay under an old name."""
    part = place.parts()[0]
    for table in ("executions", "calls", "evals"):
        (place.data / table / part).rename(in_another_month(place.data / table / part))
    names = [run_test.name for run_test in place.server.world.run_tests]
    key = part.parts[0].removeprefix("run_test=")
    old = next(name for name in names if key.startswith(name.split()[0].lower()))
    (other,) = set(names) - {old}
    settings = settings_for(place.server, place.data, run_tests=[other, {"name": "New name", "key": key}])

    report = verify(settings, Scope())

    assert report.findings == []
    assert "1 execution in the folder of another month than the start: " in report.notices[0]
    assert (
        f"3 executions of run test {old!r} under run_test={key}, but the settings give it another key"
        in report.notices[1]
    )


def test_what_dead_runs_left_is_a_notice(place: Place) -> None:
    for name in ("staging", "quarantine"):
        (place.data / "_state" / name).mkdir(exist_ok=True)
        (place.data / "_state" / name / "left").touch()

    report = place.verify()

    assert report.exit_code == 0
    assert [notice.split(",")[0] for notice in report.notices] == [
        "1 file in _state/staging",
        "1 file in _state/quarantine",
    ]


def test_what_changes_while_it_is_read_is_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.part("calls")
    whole = path.read_bytes()
    lose_a_call(place)
    read = LocalFiles.read

    def read_and_commit(files: LocalFiles, name: str, **options: Any) -> bytes:
        content = read(files, name, **options)
        if files.root / name == path and content != whole:
            path.write_bytes(whole)
        return content

    monkeypatch.setattr(LocalFiles, "read", read_and_commit)
    report = place.verify()

    assert (report.findings, report.notices) == ([], [])


def test_what_changes_all_the_time_is_said_to_do_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_a_call(place)
    read, times = LocalFiles.read, []

    def read_and_touch(files: LocalFiles, name: str, **options: Any) -> bytes:
        times.append(name)
        os.utime(files.root / name, ns=(len(times), len(times)))
        return read(files, name, **options)

    monkeypatch.setattr(LocalFiles, "read", read_and_touch)
    report = place.verify()

    assert [each.kind for each in report.findings] == [Kind.DAMAGED]
    assert report.notices == ["files changed while they were read: verify again once the export has ended"]
    assert times.count(str(place.part("calls").relative_to(place.data))) == 3


@pytest.mark.parametrize("ends_meanwhile", [True, False])
def test_export_at_work_is_named(place: Place, monkeypatch: pytest.MonkeyPatch, ends_meanwhile: bool) -> None:
    read = LocalFiles.read
    with ExitStack() as export:
        export.enter_context(LocalFiles(place.data).lock(FETCHED_AT))

        def read_and_end(files: LocalFiles, name: str, **options: Any) -> bytes:
            if ends_meanwhile and name.endswith(".parquet"):
                export.close()
            return read(files, name, **options)

        monkeypatch.setattr(LocalFiles, "read", read_and_end)
        report = place.verify()

    assert report.exit_code == 0
    assert report.export_at_work
    assert report.notices == [f"an export is running on this dataset ({report.export_at_work})"]


def test_nothing_is_written(place: Place) -> None:
    for folder in [place.data, *(path for path in place.data.rglob("*") if path.is_dir())]:
        folder.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in place.data.rglob("*")}
    try:
        assert place.verify().findings == []
    finally:
        for folder in [place.data, *(path for path in place.data.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in place.data.rglob("*")} == before


async def test_dead_letter_is_a_finding_until_it_is_healed(place: Place, tmp_path: Path) -> None:
    call = place.server.world.run_tests[0].executions[0].calls[0].call_execution_id
    place.server.fault = lambda request, _nth: Fault(status=500) if call in request.target else None
    settings = settings_for(place.server, tmp_path / "fresh", api={"max_tries": 1, "base_url": place.server.base_url})
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

    assert len(place.verify(run_test_keys=frozenset([first])).findings) == 1
    other = place.verify(run_test_keys=frozenset([second]))
    assert (other.findings, other.tables["executions"].rows) == ([], 3)
    _, last_day = days_of(place.parts()[0].parts[1])
    assert len(place.verify(since=last_day).findings) == 1
    assert place.verify(since=last_day + timedelta(days=1)).findings == []


@pytest.mark.parametrize("is_of_a_newer_version", [False, True])
def test_a_row_whose_home_is_not_asked_for_is_misplaced_nevertheless(place: Place, is_of_a_newer_version: bool) -> None:
    path = copy_to_another_run_test(place)
    if is_of_a_newer_version:
        home = place.part("executions")
        rows = pq.ParquetFile(home).read()
        pq.write_table(rows.append_column("mood", pa.nulls(len(rows), pa.string())), home)
    (finding,) = place.verify(run_test_keys=frozenset([path.parts[-3].removeprefix("run_test=")])).findings
    assert finding.kind is Kind.MISPLACED


async def test_command_needs_no_more_settings_than_where_the_dataset_lies(place: Place) -> None:
    bare = environment(FI_API_KEY=None, FI_SECRET_KEY=None, METRICS_ETL_DESTINATION__PATH="data")
    result = await metrics_etl("verify", cwd=place.folder, env=bare)
    assert (result.exit_code, result.stderr) == (0, "")


async def test_command_needs_no_key_and_no_network(place: Place) -> None:
    write_settings(place.folder, [run_test.name for run_test in place.server.world.run_tests])
    bare = environment(FI_API_KEY=None, FI_SECRET_KEY=None)

    whole = await metrics_etl("verify", cwd=place.folder, env=bare)
    path = lose_a_call(place).relative_to(place.data)
    broken = await metrics_etl("verify", "--json", cwd=place.folder, env=bare)
    quiet = await metrics_etl("verify", "--quiet", cwd=place.folder, env=bare)

    assert (whole.exit_code, broken.exit_code, quiet.exit_code) == (0, 3, 3)
    assert "nothing is wrong (exit 0)" in whole.stdout
    (finding,) = broken.document["findings"]
    assert (finding["kind"], finding["place"]) == ("damaged", str(path))
    assert (quiet.stdout, quiet.stderr) == (
        "",
        f"damaged: {finding['place']}: {finding['text']}: {finding['fix']}\n",
    )


async def test_run_test_of_which_there_is_nothing_is_no_green_light(place: Place) -> None:
    """One of the settings may have no executions yet; of "all" it may be mistyped."""
    write_settings(place.folder, ["Checkout flow", "Nope"])
    ended = await metrics_etl("verify", "--run-test", "Nope", cwd=place.folder, env=environment(FI_API_KEY=None))
    assert ended.exit_code == 0
    write_settings(place.folder, "all")
    for arguments in (["--run-test", "Nope"], ["--run-test", "Checkout flow", "--run-test", "Nope"]):
        ended = await metrics_etl("verify", *arguments, cwd=place.folder, env=environment(FI_API_KEY=None))
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "holds no rows of run test 'Nope': see metrics-etl status" in ended.stderr
    ended = await metrics_etl(
        "verify", "--run-test", "Checkout flow", cwd=place.folder, env=environment(FI_API_KEY=None)
    )
    assert ended.exit_code == 0


async def test_command_says_that_there_is_no_dataset(tmp_path: Path) -> None:
    write_settings(tmp_path, ["A"])
    ended = await metrics_etl("verify", cwd=tmp_path, env=environment(FI_API_KEY=None))
    assert ended.exit_code == 6
    assert ended.stderr == (
        f"error: {tmp_path / 'data'}: no dataset there: check [destination] path, or run metrics-etl run first\n"
    )


def test_file_that_may_not_be_read_is_not_to_be_fetched_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_part, read = place.part("calls"), LocalFiles.read

    def refused(self: LocalFiles, path: str, **options: Any) -> bytes:
        if self.root / path == closed_part:
            raise DestinationError(f"{closed_part}: Permission denied: let this user read and write it")
        return read(self, path, **options)

    monkeypatch.setattr(LocalFiles, "read", refused)
    report = place.verify()
    (finding,) = [each for each in report.findings if each.place in str(closed_part)]
    assert (finding.kind, report.exit_code) == (Kind.NOT_READ, 3)
    assert finding.text.endswith("Permission denied: let this user read and write it")
    assert "fetch" not in str(finding)
