"""A copy that is kept as docs/feed.md says is the dataset, after every night; its blocks run as they stand there."""

import random
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest

import etl
from etl.load.ddl import ddl
from etl.model import schema
from etl.model.keys import default_key
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox
from etl.sandbox.generate import finish_execution
from etl.sandbox.world import SimulatedExecution, rerun_execution
from tests.dataset.killed import killed_before
from tests.support import settings_for
from tests.worlds import a_sandbox

TEXT = (Path(__file__).parents[2] / "docs" / "feed.md").read_text(encoding="utf-8")
ONCE, NIGHTLY = re.findall(r"^```sql\n(.*?)^```\n", TEXT, re.MULTILINE | re.DOTALL)
PYTHON, CATCH_UP = re.findall(r"^```python\n(.*?)^```\n", TEXT, re.MULTILINE | re.DOTALL)
FIRST_NIGHT = datetime(2026, 11, 5, 2, tzinfo=UTC)
FOLLOWED = ("executions", "calls", "evals")
NO_DIFFERENCES = dict.fromkeys(FOLLOWED, 0)
server = a_sandbox(run_tests=2, executions=5, calls=4)


class Nights:
    """One export a night, whose receipt is held against the files, and a copy that follows."""

    def __init__(self, server: Sandbox, folder: Path) -> None:
        self.server, self.data, self.now = server, folder / "data", FIRST_NIGHT
        self.engine = duckdb.connect()

    async def export(self, **options: Any) -> Summary:
        self.now += timedelta(days=1)
        before = self.files()
        settings = settings_for(self.server, self.data, export={"sweep_days": 0})
        summary = await job.export(settings, clock=lambda: self.now, **options)
        now, receipt = self.files(), summary.receipt.as_json()
        assert {each["path"]: each["sha256"] for each in receipt["written"]} == {
            path: content for path, content in now.items() if before.get(path) != content
        }
        gone = {*receipt["removed"]}
        assert before.keys() - now.keys() <= gone
        assert gone.isdisjoint(now), "one that came and went within the run may be told as well"
        return summary

    def files(self, folder: str = "data") -> dict[str, str]:
        """The hash of each file of a table by path."""
        root = self.data.with_name(folder)
        paths = (path for path in root.rglob("*.parquet") if "_state" not in path.parts)
        return {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}

    def catch_up(self) -> set[str]:
        """Copy what the receipts name that are new; returns the paths that were looked at."""
        found: dict[str, Any] = {}
        exec(CATCH_UP, found)
        assert self.files("copy") == self.files()
        return {path for path in found["changed"] if not path.startswith("runs/")}

    def follow(self) -> set[str]:
        """Load what changed; returns the executions that were replaced."""
        self.engine.execute(ddl([schema.TABLES[name] for name in FOLLOWED], "duckdb", location=str(self.data)))
        self.engine.execute(ONCE)
        self.engine.execute(NIGHTLY)
        return {execution_id for (execution_id,) in self.engine.execute("SELECT execution_id FROM changed").fetchall()}

    def differences(self) -> dict[str, int]:
        """How many rows of each table stand in the dataset or the copy alone."""
        return {
            table: self.engine.execute(
                f"SELECT count(*) FROM ((FROM {table} EXCEPT ALL FROM own.{table}) "
                f"UNION ALL (FROM own.{table} EXCEPT ALL FROM {table}))"
            ).fetchall()[0][0]
            for table in FOLLOWED
        }


@pytest.fixture
def nights(server: Sandbox, tmp_path: Path) -> Iterator[Nights]:
    nights = Nights(server, tmp_path)
    yield nights
    nights.engine.close()


def counts(summary: Summary, key: str) -> dict[str, int]:
    """What the receipt counts of a run test, without zeros."""
    return {change: count for change, count in summary.receipt.as_json()["executions"][key].items() if count}


def ids(*executions: SimulatedExecution) -> set[str]:
    return {each.execution_id for each in executions}


async def test_a_copy_that_follows_is_the_dataset_after_every_night(server: Sandbox, nights: Nights) -> None:
    rng = random.Random(3)
    first, second = server.world.run_tests
    one, other = default_key(first.name), default_key(second.name)
    deleted, rerun, *_ = first.executions

    async def night(**options: Any) -> tuple[Summary, set[str]]:
        summary = await nights.export(**options)
        replaced = nights.follow()
        if summary.exit_code == 0:
            assert nights.differences() == NO_DIFFERENCES
        return summary, replaced

    summary, replaced = await night()
    assert replaced == ids(*first.executions, *second.executions)
    assert (counts(summary, one), counts(summary, other)) == ({"inserted": 5}, {"inserted": 5})

    summary, replaced = await night()
    assert (replaced, summary.receipt.executions) == (set(), {}), "nothing changed"
    assert [each.partition("/")[0] for each in summary.receipt.written] == ["runs"]

    deleted.is_deleted = True
    summary, replaced = await night()
    assert (replaced, counts(summary, one)) == (ids(deleted), {"marked": 1})
    rows = nights.engine.execute("SELECT call_execution_id FROM calls WHERE deleted_at IS NULL").fetchall()
    living = {call_id for (call_id,) in rows}
    assert living == {*etl.read_calls(nights.data)["call_execution_id"]}
    assert len(living) + len(deleted.calls) == len(etl.read_calls(nights.data, deleted="include"))

    rerun_execution(rerun, nights.now)
    summary, replaced = await night()
    assert (replaced, counts(summary, one)) == (ids(rerun), {"replaced": 1}), "it runs"
    finish_execution(rerun, rng, nights.now)
    summary, replaced = await night()
    assert (replaced, counts(summary, one)) == (ids(rerun), {"replaced": 1}), "it has ended"
    (lost,) = (nights.data / "executions" / f"run_test={one}").rglob("*.parquet")
    kept = lost.read_bytes()
    lost.unlink()
    assert nights.follow() == ids(*first.executions), "they are gone"
    lost.write_bytes(kept)
    assert nights.follow() == ids(*first.executions), "they are back"
    assert nights.differences() == NO_DIFFERENCES


async def test_python_gives_what_takes_the_place_of_what_one_has(
    server: Sandbox, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nights.export()
    since = nights.now
    changed = server.world.run_tests[1].executions[0]
    rerun_execution(changed, nights.now)
    await nights.export()
    finish_execution(changed, random.Random(3), nights.now)
    await nights.export()
    monkeypatch.chdir(nights.data.parent)
    found: dict[str, Any] = {}
    exec(PYTHON.replace("2026-11-01T02:00:00Z", since.isoformat()), found)
    assert found["changed"]["execution_id"].to_list() == [changed.execution_id]
    assert sorted(found["calls"]["call_execution_id"]) == sorted(each.call_execution_id for each in changed.calls)
    assert len(etl.read_table("data", "calls", changed_since=since)) == len(changed.calls)


async def test_a_copy_catches_up_file_by_file_however_many_nights_it_missed(
    server: Sandbox, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rerun, other, *_), (untouched, *_) = (each.executions for each in server.world.run_tests)
    monkeypatch.chdir(nights.data.parent)
    await nights.export()
    nights.catch_up()

    rerun_execution(rerun, nights.now)
    await nights.export()
    finish_execution(rerun, random.Random(3), nights.now)
    await nights.export()
    changed = nights.catch_up()
    key = default_key(untouched.run_test.name)
    assert [key in path for path in changed] == [False] * 3, "of the other run test, no file was looked at"
    assert nights.catch_up() == set()

    other.is_deleted = True
    other_settings = settings_for(server, nights.data, run_tests=[other.run_test.name])
    with suppress(BaseExceptionGroup), killed_before(2):  # after the note of its start and the marks of calls
        await job.export(other_settings, clock=lambda: nights.now)
    await nights.export()
    assert nights.catch_up() == {path for path in nights.files() if not path.startswith("runs/")}, "a run was killed"
    (damaged,) = (nights.data / "evals" / f"run_test={key}").rglob("*.parquet")
    damaged.write_bytes(b"PAR1")
    server.fault = lambda _request, _nth: Fault(status=401)
    await nights.export()
    assert nights.catch_up() == {damaged.relative_to(nights.data).as_posix()}, "set aside, and not fetched again yet"
