"""One dataset through any history: the source and its changes, the runs, the crashes, and the laws that hold at all times."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

import etl
from etl import sandbox
from etl.errors import DestinationError, LockHeldError, leaves
from etl.extract import calls as crawl_module
from etl.inspect.rules import Kind
from etl.inspect.status import Status, read_status
from etl.inspect.verdict import judge
from etl.inspect.verify import verify
from etl.load.files.local import LocalFiles
from etl.load.layout import INDEX, Part, Scope, parse_part_path
from etl.model import schema
from etl.model.digest import rows_digest
from etl.model.keys import default_key
from etl.model.records import DETAIL, METRICS, RUN_TESTS, RUNS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Call, Execution, Fault, Sandbox, SandboxRequest, World
from etl.sandbox.dispatch import HTML_404
from etl.sandbox.world import CALL_STATUSES
from etl.settings import Settings
from tests.datasets import fill_parts_early
from tests.e2e.faults import edited_calls
from tests.e2e.truth import assert_same_rows, call_rows, eval_rows, execution_rows
from tests.load.files.watched import STAGING, Step, watched
from tests.support import cap_pages, settings_for
from tests.warehouses import assert_equals_dataset, load_and_die, load_into, new_duckdb, new_postgresql

SETTLE = timedelta(hours=24)
FINISHED = ("completed", "failed", "cancelled")
NAMES = ("Checkout", "Support", "Refund", "Billing")
TABLES = ("executions", "calls", "evals", "errors")
FOLLOWED = ("executions", "calls", "evals")
EVERYTHING = 1_000_000
FULL_ROWS = 8
"""A part is full with so few rows, so that a run test has several."""

EDITS = (
    "UPDATE {s}.calls SET duration_seconds = 1",
    "UPDATE {s}.executions SET run_test = 'another'",
    "UPDATE {s}.evals SET call_execution_id = 'x' || call_execution_id",
    "UPDATE {s}.metrics_etl_state SET digest = 'another'",
    "DELETE FROM {s}.executions",
    "DELETE FROM {s}.calls WHERE status = 'completed'",
    "DELETE FROM {s}.metrics_etl_state WHERE kind = 'execution'",
    "DELETE FROM {s}.runs",
)
"""What somebody may do to a warehouse by hand."""

_VERSION = {"deleted_at", "export_run_id", "exported_at"}
_OF_WHAT_IS_HELD = {"calls_digest", "exported_calls", "listed_calls", "fingerprint"}
"""What a run that accepts deletions brings in line with the calls and evals that are left."""
_OF_A_NAME = {"run_test_name", "row_hash", "calls_digest"}

_NOT_A_DETAIL = (
    Fault(status=404, body=HTML_404),
    Fault(status=403, body=b'{"status": false, "message": "Forbidden"}'),
    Fault(status=400, body=b'{"status": false, "message": "Unknown field."}'),
    Fault(status=500, body=b'{"status": false, "message": "No TestExecution matches the given query."}'),
    Fault(status=200, body=b"<html>Welcome</html>"),
    Fault(status=200, body=b'{"id": "x", "calls": []}'),
    Fault(edit=lambda body: body.replace(b'"cost_cents"', b'"price_cents"')),
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """One row and the part in which it lies."""

    part: Part
    row: Row

    @property
    def run_test_key(self) -> str:
        return self.part.run_test_key


@dataclass(slots=True)
class Entry:
    """A configured run test, as the settings call it; None for the key is the default."""

    run_test: sandbox.RunTest
    name: str
    key: str | None = None
    is_exported: bool = True

    @property
    def partition(self) -> str:
        return self.key or default_key(self.name)


class Killed(BaseException):
    """The process is dead: whatever it wants to do to its files does not happen."""


@dataclass(slots=True)
class Death:
    """Dies at the ``nth`` step that shows (a rename or an unlink outside of staging), just before it or just after."""

    nth: int
    is_after: bool = False
    is_dead: bool = False
    steps: int = 0

    def before(self, step: Step) -> None:
        if self.is_dead:
            raise Killed
        if _shows(step):
            self.steps += 1
            if not self.is_after and self.steps > self.nth:
                self.is_dead = True
                raise Killed

    def after(self, step: Step) -> None:
        if self.is_after and _shows(step) and self.steps > self.nth:
            self.is_dead = True
            raise Killed


def _shows(step: Step) -> bool:
    return step.name == "rename" or (step.name == "unlink" and not step.path.startswith(STAGING))


@dataclass(slots=True)
class Files:
    """The rows of all files of the tables; files that did not change are not read again."""

    data: Path
    _read: dict[Path, tuple[tuple[int, int, int], list[Row]]] = field(default_factory=dict)

    def paths(self) -> list[Path]:
        return sorted(path for table in TABLES for path in (self.data / table).rglob("*") if not path.is_dir())

    def versions(self) -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in self.paths()}

    def rows(self, *, damaged: Collection[Path] = ()) -> dict[str, list[Held]]:
        """All rows by table. Each file must be whole and have the declared schema, but for those that are ``damaged``."""
        found: dict[str, list[Held]] = {table: [] for table in TABLES}
        for path in self.paths():
            parsed = parse_part_path(path.relative_to(self.data).as_posix())
            assert parsed is not None, path
            table, part = parsed
            try:
                rows = self._rows_of(path, table)
            except Exception:
                if path not in damaged:
                    raise
                continue
            found[table] += [Held(part, row) for row in rows]
        return found

    def _rows_of(self, path: Path, table: str) -> list[Row]:
        found = path.stat()
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if path in self._read and self._read[path][0] == version:
            return self._read[path][1]
        file = pq.ParquetFile(path, page_checksum_verification=True)
        assert file.schema_arrow.equals(schema.TABLES[table].arrow_schema, check_metadata=True), path
        rows: list[Row] = file.read().to_pylist()
        self._read[path] = (version, rows)
        return rows


@dataclass(slots=True)
class Follower:
    """A copy of the tables that is kept by ``exported_at`` alone, as ``docs/feed.md`` says.

    It replaces all rows of each execution whose own row is not the one that it has, and never looks at the rest.
    """

    rows: dict[str, list[Held]] = field(default_factory=lambda: {table: [] for table in FOLLOWED})

    def follow(self, now: dict[str, list[Held]]) -> None:
        pairs, mine = (
            Counter((held.row["execution_id"], held.row["exported_at"]) for held in rows["executions"])
            for rows in (now, self.rows)
        )
        changed = {execution_id for execution_id, _ in ((pairs - mine) + (mine - pairs))}
        here = {execution_id for execution_id, _ in pairs}
        for table in FOLLOWED:
            stays = [held for held in self.rows[table] if held.row["execution_id"] not in changed]
            self.rows[table] = stays + [held for held in now[table] if held.row["execution_id"] in changed & here]


def key_of(table: str, row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in schema.TABLES[table].key)


def calls_of(executions: Iterable[Execution]) -> list[tuple[Execution, Call]]:
    return [(each, call) for each in executions for call in each.calls if not (each.is_deleted or call.is_deleted)]


class History:
    """A source that changes, the settings of its export, the dataset, and what is known of the three.

    ``unseen`` are executions whose last change no list shows: only a scrub can find it. ``torn`` are those of which damage left
    the row and took calls or evals for which it vouched, with the keys of all that were there. ``gone`` are the rows that the
    dataset holds of executions that were deleted at the source: no run changes them any more. ``is_all``: the settings say "all"
    run tests, and name none; then some may be ``deleted``, whose executions the API still has by their ids.
    """

    engine: ClassVar[dict[str, str]] = {}
    """The section of the settings."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        run_tests: int,
        executions: int,
        calls: int,
        postgresql_url: str = "",
        is_all: bool = False,
    ) -> None:
        self.is_all = is_all
        self.deleted: list[sandbox.RunTest] = []
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)
        self.rng = random.Random(seed)
        self.world = sandbox.make_world(
            self.rng,
            end=self.now - 2 * SETTLE,
            names=NAMES[:run_tests],
            executions=executions,
            calls=calls,
            calls_spread=calls,
            days=2,
        )
        self.entries = [Entry(run_test, run_test.name) for run_test in self.world.run_tests]
        self.files = Files(folder / "data")
        self.server = Sandbox(self.world)
        self.unseen: set[str] = set()
        self.gone: dict[tuple[str, tuple[str, ...]], Row] = {}
        self.doubled: set[str] = set()
        self.poisoned: dict[str, dict[str, Any] | None] = {}
        self.damaged: set[Path] = set()
        self.torn: dict[str, set[tuple[str, ...]]] = {}
        self.moved: set[str] = set()
        self.ahead = timedelta(0)
        self.older: dict[Path, list[bytes]] = {}
        self.indexes: list[bytes] = []
        self.warehouse = new_postgresql(postgresql_url) if postgresql_url and seed % 2 else new_duckdb(folder)
        self._chance, self._backup = random.Random(f"warehouse {seed}"), dict[str, Any]()
        self.follower = Follower()
        self.was_struck = False
        self.is_index_ours = False
        self.rows = self.files.rows()
        self._patch = pytest.MonkeyPatch()
        fill_parts_early(self._patch, rows=FULL_ROWS)
        self._patch.setattr(crawl_module, "_MOST_IN_HAND", 2)
        self._loop = asyncio.Runner()
        self._loop.run(self.server.start())

    def close(self) -> None:
        self.warehouse.drop()
        self._loop.run(self.server.stop())
        self._loop.close()
        self._patch.undo()

    # the source

    def executions(self, *, is_finished: bool | None = None) -> list[Execution]:
        return [
            each
            for run_test in self.world.run_tests
            for each in run_test.executions
            if not each.is_deleted and is_finished in (None, each.status in FINISHED)
        ]

    def calls(self) -> list[tuple[Execution, Call]]:
        return calls_of(self.executions())

    def start(self, run_test: sandbox.RunTest, calls: int, *, is_finished: bool) -> Execution:
        execution = sandbox.add_execution(
            self.world, run_test, self.rng, self.now, calls, status="completed" if is_finished else "running"
        )
        self.now += timedelta(minutes=30)
        return execution

    def move_call(self, source: Execution, call: Call, target: Execution) -> None:
        """The call belongs to another execution from now on, and both say that they changed."""
        source.calls.remove(call)
        target.calls.append(call)
        self.world.index_execution(target)
        self.unseen |= {source.execution_id, target.execution_id}
        self.moved |= {call.call_execution_id, source.execution_id, target.execution_id}

    def list_too(self, liar: Execution, call: Call) -> None:
        """The list of one execution names a call of another one as well."""
        self.server.fault = lambda request, _nth: (
            edited_calls(self.world, request, lambda calls: [*calls, {**_as_listed(call)}])
            if request.query.get("execution_id") == liar.execution_id
            else None
        )

    def list_only(self, number: int) -> None:
        """The lists of calls name only so many, as if the others had been deleted."""
        self.server.fault = lambda request, _nth: edited_calls(self.world, request, lambda calls: calls[:number])

    def fail_details(self, seed: int, share: float) -> None:
        """The details of this share of the executions cannot be had, each for a reason of its own; nothing else fails."""

        def fail(request: SandboxRequest, _nth: int) -> Fault | None:
            rng = random.Random(f"{seed} {request.path}")
            return rng.choice(_NOT_A_DETAIL) if request.path.startswith(DETAIL) and rng.random() < share else None

        self.server.fault = fail

    def finish(self, execution: Execution, status: str = "completed") -> None:
        self._give_a_start(execution)
        sandbox.finish_execution(execution, self.rng, self.now)
        execution.status = status

    def rerun(self, execution: Execution) -> None:
        self._give_a_start(execution)
        sandbox.rerun_execution(execution, self.now)

    def _give_a_start(self, execution: Execution) -> None:
        started_at: datetime | None = execution.started_at
        execution.started_at = execution.created_at if started_at is None else started_at

    def change_unseen(self, execution: Execution) -> None:
        """Something that the list does not show is about to change; once the execution has settled, only a scrub finds it."""
        if execution.completed_at is None or self.now - execution.completed_at >= SETTLE:
            self.unseen.add(execution.execution_id)

    def delete(self, execution: Execution) -> None:
        sandbox.delete_execution(execution)
        self.note_gone()

    def lose_times(self, execution: Execution) -> None:
        execution.started_at = execution.completed_at = None  # type: ignore[assignment]

    def poison(self, call: Call) -> None:
        """A fractional token count turns every page of the list that holds its execution into a 500."""
        if call.call_execution_id not in self.poisoned:
            self.poisoned[call.call_execution_id] = call.chat_metrics
            call.chat_metrics = {**(call.chat_metrics or {}), "total_tokens": 12.5}

    def give_odd_eval(self, execution: Execution, call: Call) -> None:
        """An output of a type that the server cannot sum up: from now on it refuses the list of the execution's calls."""
        for config in execution.run_test.eval_configs[:1]:
            output = {"name": config.name, "output": 0.5, "output_type": "numeric", "reason": "r"}
            call.eval_outputs = call.eval_outputs | {config.config_id: output}

    def heal(self) -> None:
        for execution in [*self.executions(), *(each for test in self.deleted for each in test.executions)]:
            for call in execution.calls:
                if call.call_execution_id in self.poisoned:
                    healthy = self.poisoned.pop(call.call_execution_id)
                    if (call.chat_metrics or {}).get("total_tokens") == 12.5:
                        call.chat_metrics = healthy

    def cap_pages(self, max_limit: int | None) -> None:
        cap_pages(self.server, max_limit)

    def follow(self) -> None:
        """The settings name each run test as the source does."""
        for entry in self.entries:
            entry.name = entry.run_test.name

    def configured(self) -> list[Entry]:
        """The entries of the settings: one per name, as it is an error to name one twice; or one per name that there is."""
        if self.is_all:
            return [Entry(each, each.name) for each in {each.name: each for each in self.world.run_tests}.values()]
        return list({entry.name: entry for entry in reversed(self.entries) if entry.is_exported}.values())

    # damage

    def keep_versions(self) -> None:
        if (index := self.files.data / INDEX).exists():
            self.indexes.append(index.read_bytes())
        for path in self.files.paths():
            data = path.read_bytes()
            if data not in self.older.setdefault(path, []):
                self.older[path].append(data)

    def damage(self, path: Path, data: bytes | None) -> None:
        """Something else than an export writes to the dataset, or removes a file."""
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        self.damaged.add(path)
        self.was_struck = True
        in_two_places, before = _doubled(self.rows, moved=self.moved), self.rows
        self.rows = self.files.rows(damaged=self.damaged)
        self._note_torn(before)
        self._loss_is_seen(before)
        self.doubled |= _doubled(self.rows, moved=self.moved)
        self.note_gone()
        # Of an execution that a dead run left in two places, one is kept: damage may have struck that one.
        self.gone = {key: row for key, row in self.gone.items() if row["execution_id"] not in in_two_places}

    def _note_torn(self, before: dict[str, list[Held]]) -> None:
        rows, rows_before = (
            {held.row["execution_id"]: held for held in all_["executions"]} for all_ in (self.rows, before)
        )
        stayed = {each for each, held in rows.items() if held == rows_before.get(each)}
        whole = stayed.intersection(held.row["execution_id"] for held, is_whole in _vouched(before) if is_whole)
        had, has = _keys_of_calls(before), _keys_of_calls(self.rows)
        torn = {each: had[each] for each in whole & had.keys() if had[each] - has.get(each, set())}
        self.torn = torn | {each: keys for each, keys in self.torn.items() if each in stayed}

    def note_gone(self) -> None:
        """What the dataset holds by now of executions that were deleted at the source."""
        ids = {each.execution_id for test in self.world.run_tests for each in test.executions if each.is_deleted}
        self.gone = {
            (table, (held.run_test_key, *key_of(table, held.row))): held.row
            for table in ("executions", "calls", "evals")
            for held in self.rows[table]
            if held.row["execution_id"] in ids
        }

    # the warehouse

    def _use_warehouse(self) -> None:
        """After a run: it is loaded, not loaded, loaded in part by a process that dies, edited by hand, or restored from a backup.

        What a run could not read yet, a load refuses.
        """
        data, place, chance = self.files.data, self.warehouse, self._chance
        if not self.files.paths():
            return
        match chance.choice(["load", "die", "edit", "back up", "restore", *["nothing"] * 5]):
            case "load":
                with suppress(DestinationError):
                    load_into(place, data)
            case "die":
                with suppress(DestinationError):
                    nth = chance.choice([chance.randrange(20), chance.randrange(40), chance.randrange(400)])
                    load_and_die(place, data, nth=nth, is_after=chance.random() < 0.5)
            case "edit" if place.has_tables():
                place.edit(chance.choice(EDITS))
            case "back up" if place.has_tables():
                self._backup = place.dump()
            case "restore" if place.has_tables():
                place.restore(self._backup)

    def _warehouse_is_the_dataset(self) -> None:
        """After one load that nothing disturbs."""
        if self.files.paths():
            result = load_into(self.warehouse, self.files.data)
            if result.vanished:
                result = load_into(self.warehouse, self.files.data, is_full=True)
            if not result.problems:
                assert_equals_dataset(self.warehouse, self.files.data)
                assert not load_into(self.warehouse, self.files.data).is_changed

    # runs

    def run(
        self,
        *,
        death: Death | None = None,
        nth_request: int = 0,
        times: int = 1,
        change: Callable[[], None] | None = None,
        overlap_at: str | None = None,
        only: Entry | None = None,
        is_narrowed: bool = False,
        accept_deletions: bool = False,
        full_refresh: bool = False,
        page_limit: int = 1024,
        calls: str = "finished",
        scrub_requests: int = 0,
        commit_interval_seconds: float = 3600,
        settle_by: str = "detail",
        ahead: timedelta = timedelta(0),
    ) -> Summary | None:
        """One export, and the laws after it; None when it was killed. ``change`` happens before its nth request.

        ``only`` is a run test that alone is configured, or with ``is_narrowed`` the one of ``--run-test``.
        The client's clock is ``ahead`` of the source's.
        """
        self.now += timedelta(minutes=1)
        if not (exported := [only] if only else self.configured()):
            return None
        settings = settings_for(
            self.server,
            self.files.data,
            run_tests="all"
            if self.is_all
            else [
                {"name": entry.name, "key": entry.partition}
                for entry in (self.configured() if is_narrowed else exported)
            ],
            api={"page_limit": page_limit, "max_tries": 3, "concurrency": 4},
            engine=self.engine,
            export={
                "calls": calls,
                "scrub_requests": scrub_requests,
                "commit_interval_seconds": commit_interval_seconds,
                "settle_by": settle_by,
            },
        ).only([entry.name for entry in exported] if only or not self.is_all else [])
        self.keep_versions()
        names = self._names(exported)
        before, moving = self.rows, self._lying_elsewhere(names)
        source, runs = self._state_of_source(), self._runs()
        due = len(self.server.requests) + nth_request

        def change_in_time(_request: SandboxRequest) -> None:
            if change and due <= len(self.server.requests) < due + times:
                change()

        def overlap_in_time(event: str, **_: Any) -> None:
            if event == overlap_at:
                self._be_refused(settings)

        self.server.on_request = change_in_time
        self.ahead, fault = ahead, self.server.fault
        if ahead:
            self.server.fault = lambda request, nth: _dated((fault and fault(request, nth)) or Fault(), ahead)
        summary = self._loop.run(
            self._export(
                settings,
                death,
                accept_deletions=accept_deletions,
                full_refresh=full_refresh,
                notify=overlap_in_time,
            )
        )
        self.server.on_request, self.server.fault, self.ahead = None, fault, timedelta(0)
        changed = {key for key, now in self._state_of_source().items() if source.get(key) != now}
        self.unseen |= changed
        if summary is not None and (summary.failure is None or not self.is_all):
            self.damaged.clear()  # without the list of run tests, a run over "all" opens no file
        self.rows = self.files.rows(damaged=self.damaged)
        is_complete = summary is not None and _is_complete(summary)
        self._is_followed(is_over=summary is not None and summary.failure is None)
        self._nothing_is_lost(before)
        assert not [held for held in self.rows["errors"] if held.row["endpoint"] not in (METRICS, RUNS)]
        self._keys_are_unique(*((set(), set()) if is_complete else (moving, self.moved)))
        self._gone_is_kept(except_for=changed)
        self.note_gone()
        self._torn_is_told(summary, is_accepted=accept_deletions)
        self.settings, self.is_index_ours = settings, summary is not None
        has_left_traces = self.rows != before and self._runs() == runs
        self._light_is_true(summary, is_narrowed=settings.is_part, has_left_traces=has_left_traces)
        self._what_is_exported_is_there(before, killed_while_moving=moving | self.moved if summary is None else None)
        if is_complete:
            assert not self.doubled & self._listed(names.values())
            self._each_lies_in_one_part(self._listed(names.values()))
            self._holds_the_truth(names, except_for=changed, unseen=self.unseen)
            if full_refresh or scrub_requests == EVERYTHING:
                self.unseen -= self._listed(names.values(), is_finished=True) - changed
        self._days_are_read()
        self._use_warehouse()
        return summary

    def _names(self, entries: Iterable[Entry]) -> dict[str, str]:
        return {entry.partition: entry.name for entry in entries}

    async def _export(self, settings: Settings, death: Death | None, **options: Any) -> Summary | None:
        if death is None:
            return await job.export(settings, clock=lambda: self.now + self.ahead, **options)
        try:
            with watched(self.files.data, before=death.before, after=death.after):
                return await job.export(settings, clock=lambda: self.now + self.ahead, **options)
        except BaseException as error:
            if not any(isinstance(leaf, Killed) for leaf in leaves(error)):
                raise
            return None

    def _be_refused(self, settings: Settings) -> None:
        """A second run, in a thread of its own, while the first one holds the dataset."""
        before, sent = self.files.versions(), len(self.server.requests)
        with ThreadPoolExecutor(1) as thread, pytest.raises(LockHeldError):
            thread.submit(lambda: asyncio.run(job.export(settings))).result()
        assert (self.files.versions(), len(self.server.requests)) == (before, sent)

    def settle(self) -> None:
        """Faults end, the settings are mended, everything finishes, and time passes: then the dataset is the truth."""
        self.server.fault = None
        self.heal()
        self.follow()
        for execution in self.executions():
            for call in execution.calls:
                if call.status not in CALL_STATUSES:
                    call.status = "completed"
                    self.unseen.add(execution.execution_id)
            if execution.status not in FINISHED:
                self.finish(execution)
        if not self.configured():  # never of "all"
            self.entries[0].is_exported = True
        for scrub_requests in (0, 0, EVERYTHING, 0):  # what a scrub finds where a call never ends settles once more
            self.now += timedelta(days=2)
            summary = self.run(accept_deletions=True, scrub_requests=scrub_requests)
        self._ends_well(summary)
        assert not self.unseen & self._listed(self._names(self.configured()).values())
        keys = {entry.partition for entry in self.configured()}
        kept = {held.row["execution_id"] for rows in self.rows.values() for held in rows if held.run_test_key in keys}
        assert not self.doubled & kept
        # Of a run test that is left out nothing is asked, wherever its executions lie.
        left_out = self._left_out()
        assert not [
            held.row
            for held in self.rows["errors"]
            if held.run_test_key in keys and held.row["execution_id"] not in left_out
        ]
        gone = {key[0] for table, (_, *key) in self.gone if table == "executions"}
        assert not [
            held.row
            for held in self.rows["executions"]
            if held.row["execution_id"] in gone and held.run_test_key in keys and held.row["deleted_at"] is None
        ]
        self._is_quiet()
        self._warehouse_is_the_dataset()

    def _left_out(self) -> set[str]:
        """The executions of run tests that are not exported, or are gone themselves."""
        exist = {each.execution_id for test in self.deleted for each in test.executions if not each.is_deleted}
        exist |= {each.execution_id for each in self.executions()}
        return exist - self._listed(self._names(self.configured()).values())

    def _ends_well(self, summary: Summary | None) -> None:
        """Nothing is missing, but for what lies here unfinished and belongs to a run test that is left out."""
        assert summary is not None
        keys, left_out = {entry.partition for entry in self.configured()}, self._left_out()
        is_unfinished = any(
            held.run_test_key in keys
            and held.row["execution_id"] in left_out
            and held.row["export_state"] in ("incomplete", "waiting")
            for held in self.rows["executions"]
        )
        assert _is_complete(summary), summary.problems
        assert summary.exit_code == (3 if is_unfinished else 0)

    def _is_quiet(self) -> None:
        """Another run asks for the lists alone, and for what is stored, exists, and no list has; it writes nothing."""
        self.now += timedelta(days=2)
        versions, sent = self.files.versions(), len(self.server.requests)
        # Executions that lie here but belong to a run test that is left out look as if they had vanished.
        summary = self.run(accept_deletions=True)
        self._ends_well(summary)
        assert summary is not None
        assert summary.files == 0
        assert self.files.versions() == versions
        listed = {each.execution_id for each in self.executions()} & self._listed(
            self._names(self.configured()).values()
        )
        assert not [
            request.target
            for request in self.server.requests[sent:]
            if request.path != RUN_TESTS
            and "run_test_name" not in request.query
            and request.query.get("execution_id", "a call") in {*listed, "a call"}
        ]

    # laws

    def _holds_the_truth(self, names: dict[str, str], *, except_for: set[str], unseen: set[str]) -> None:
        """Every execution that is listed stands once, where it belongs, with its values, and if it has finished its calls."""
        homes = {name: key for key, name in names.items()}
        world = World("", [])
        for test in self.world.run_tests:
            if test.name in homes:
                stable = [each for each in test.executions if each.execution_id not in except_for]
                world.run_tests.append(replace(test, executions=stable))
        executions = execution_rows(world)
        finished = {execution_id for (execution_id,), row in executions.items() if row["status"] in FINISHED}
        for table, truth, wanted in (
            ("executions", executions, {execution_id for (execution_id,) in executions}),
            ("calls", call_rows(world), finished - unseen),
            ("evals", eval_rows(world), finished - unseen),
        ):
            held = [each for each in self.rows[table] if each.row["execution_id"] in wanted]
            expected = {key: row for key, row in truth.items() if row["execution_id"] in wanted}
            assert_same_rows(table, [each.row for each in held], expected)
            assert not [each for each in held if each.run_test_key != homes[each.row["run_test_name"]]]
        assert not [held.row for held in self.rows["errors"] if (held.row["execution_id"],) in executions]

    def _is_followed(self, *, is_over: bool) -> None:
        """Whoever replaces the executions whose row is another one has what the dataset has, once a run is over.

        One that failed may not have come to what a killed run before it had left untold.
        But for executions that are known to be damaged. Rows that were restored may be of another time, and say the same.
        """
        self.follower.follow(self.rows)
        if not is_over:
            return
        vouched = {held.row["execution_id"] for held, _ in _vouched(self.rows)}
        vouched -= {held.row["execution_id"] for held, is_whole in _vouched(self.rows) if not is_whole}
        for table in FOLLOWED:
            is_lenient = self.was_struck and table != "executions"
            wanted, followed = (
                sorted(
                    (held.part, key_of(table, held.row), repr(_said(held.row) if is_lenient else held.row))
                    for held in rows
                    if held.row["execution_id"] in vouched
                )
                for rows in (self.rows[table], self.follower.rows[table])
            )
            assert followed == wanted, f"{table}: another one than the feed tells"

    def _nothing_is_lost(self, before: dict[str, list[Held]]) -> None:
        """Whatever happens to a run: executions stay, and so do their calls, unless they were deleted at the source.

        Where damage was done to the calls of an execution, all of them are fetched again.
        """
        whole = {held.row["execution_id"] for held, is_whole in _vouched(before) if is_whole}
        deleted = {
            call.call_execution_id
            for test in self.world.run_tests
            for each in test.executions
            for call in each.calls
            if call.is_deleted
        }
        for table in ("executions", "calls"):
            had = {key_of(table, held.row): held.row["execution_id"] for held in before[table]}
            has = {key_of(table, held.row) for held in self.rows[table]}
            lost = {key for key in had.keys() - has if key[0] not in deleted | self.moved}
            assert not {key for key in lost if table == "executions" or had[key] in whole}, f"{table} lost"

    def _keys_are_unique(self, may_be_doubled: set[str], moved: set[str]) -> None:
        """In a run test always; in all of them too, but for what a dead run was moving."""
        doubled = _doubled(self.rows, moved=moved)
        assert doubled <= self.doubled | may_be_doubled, "executions stand in two places"
        self.doubled = doubled

    def _each_lies_in_one_part(self, execution_ids: Collection[str]) -> None:
        """All rows of an execution lie in the part of one number, in every table."""
        parts: dict[str, set[Part]] = {}
        for rows in self.rows.values():
            for held in rows:
                parts.setdefault(held.row["execution_id"], set()).add(held.part)
        spread = {each for each, mine in parts.items() if len(mine) > 1}
        assert not spread.intersection(execution_ids), "executions lie in several parts"

    def _what_is_exported_is_there(
        self, before: dict[str, list[Held]], *, killed_while_moving: set[str] | None
    ) -> None:
        """No run says of an execution that it is exported before its calls are.

        One that was killed may have left new calls below a row of old: of an earlier run, or moved by itself before.
        """
        damaged = {held.row["execution_id"] for held in _not_whole(before)}
        broken = [held for held in _not_whole(self.rows) if held.row["execution_id"] not in damaged]
        if killed_while_moving is not None:
            broken = [
                held
                for held in broken
                if held not in before["executions"] and held.row["execution_id"] not in killed_while_moving
            ]
        assert not broken, "calls are not there"

    def _torn_is_told(self, summary: Summary | None, *, is_accepted: bool) -> None:
        """A run that says nothing has fetched what was lost, or found it restored, also of executions that run again.

        A row that still waits has fetched nothing, whatever it vouches for.
        """
        fetched = {
            held.row["execution_id"]
            for held, is_whole in _vouched(self.rows)
            if is_whole and held.row["export_state"] != "waiting"
        }
        resolved, has = fetched | self.moved | self.doubled, _keys_of_calls(self.rows)
        self.torn = {
            each: keys
            for each, keys in self.torn.items()
            if not is_accepted and each not in resolved and keys - has.get(each, set())
        }
        assert summary is None or summary.exit_code or not self.torn, "a run is complete although rows are lost"

    def _light_is_true(self, summary: Summary | None, *, is_narrowed: bool, has_left_traces: bool) -> None:
        """Status is Good after a complete run over all that is configured, and not after one that left something out.

        Nor after one that was killed once it had changed something, before it could say so.
        """
        if (status := self._status()) is None:
            return
        ids = [held.row["execution_id"] for held in self.rows["executions"]]
        assert len(ids) == len({*ids}) or not judge(status).is_good, "rows stand twice"
        if summary is None:
            assert not has_left_traces or not judge(status).is_good, "a run was killed"
        elif summary.exit_code:
            assert not judge(status).is_good, f"a run ended with {summary.exit_code}"
        elif not is_narrowed:
            assert judge(status).is_good, judge(status).text
            # A run test that is left out keeps its dead letters.
            assert {each.kind for each in verify(self.settings, Scope()).findings} <= {Kind.DEAD_LETTER}

    def _loss_is_seen(self, before: dict[str, list[Held]]) -> None:
        """Status is not Good when there are fewer rows than the last run left, as its index says."""
        if self.is_index_ours and any(len(self.rows[table]) < len(before[table]) for table in FOLLOWED):
            status = self._status()
            assert status is None or not judge(status).is_good, "rows are gone"

    def _runs(self) -> list[Path]:
        return sorted((self.files.data / schema.RUNS_TABLE.name).rglob("*.parquet"))

    def _status(self) -> Status | None:
        """An hour later, by a clock that is right; None where no run ever left a row."""
        if not self._runs():
            return None
        now = self.now + timedelta(hours=1)
        return read_status(LocalFiles(self.files.data), now=now, configured=self.settings.configured)

    def _days_are_read(self) -> None:
        """Readers find the rows of a day, whatever month they lie in."""
        if self.damaged or not self.files.paths():
            return
        for table in FOLLOWED:
            start, keys = schema.TABLES[table].start, schema.TABLES[table].key
            of_days = [
                (held.row[start].date(), key_of(table, held.row)) for held in self.rows[table] if held.row[start]
            ]
            days = sorted({day for day, _ in of_days})
            for day in days[len(days) // 2 :][:1]:
                for since, until in ((day, None), (None, day)):
                    found = etl.read_table(self.files.data, table, since=since, until=until, deleted="include")
                    assert sorted(zip(*(found[name] for name in keys), strict=True)) == sorted(
                        key for each, key in of_days if (since or each) <= each <= (until or each)
                    )

    def _gone_is_kept(self, *, except_for: set[str]) -> None:
        held: dict[tuple[str, tuple[str, ...]], list[Row]] = {}
        for table in ("executions", "calls", "evals"):
            for each in self.rows[table]:
                held.setdefault((table, key_of(table, each.row)), []).append(_lasting(each.row))
        for (table, (_, *key)), row in self.gone.items():
            if row["execution_id"] not in except_for | self.moved and row.get("call_execution_id") not in self.moved:
                assert _lasting(row) in held.get((table, tuple(key)), []), f"{table}: {key} was deleted at the source"

    def _listed(self, names: Iterable[str], *, is_finished: bool | None = None) -> set[str]:
        return {each.execution_id for each in self.executions(is_finished=is_finished) if each.run_test.name in names}

    def _lying_elsewhere(self, names: dict[str, str]) -> set[str]:
        """The executions that lie under another key than that of the run test that lists them."""
        keys = {name: key for key, name in names.items()}
        homes = {
            each.execution_id: keys[each.run_test.name] for each in self.executions() if each.run_test.name in keys
        }
        return {
            held.row["execution_id"]
            for rows in self.rows.values()
            for held in rows
            if held.run_test_key != homes.get(held.row["execution_id"], held.run_test_key)
        }

    def _state_of_source(self) -> dict[str, tuple[str, str]]:
        """Whatever an export can see of each execution; a call that was touched is seen as before."""
        return {
            each.execution_id: (
                test.name,
                repr(replace(each, calls=[replace(call, updated_at=each.created_at) for call in each.calls])),
            )
            for test in self.world.run_tests
            for each in test.executions
        }


def _is_complete(summary: Summary) -> bool:
    """Whether everything that is exported is there.

    Nothing can complete what a run test has that is left out, nor what ends in a status that nobody knows.
    """
    told = ("export the run test that has them now", 'or set [export] calls = "all"')
    return all(problem.endswith(told) for problem in summary.problems)


def _dated(fault: Fault, ahead: timedelta) -> Fault:
    date = format_datetime(datetime.now(UTC) - ahead, usegmt=True)
    return replace(fault, headers={**fault.headers, "Date": date})


def _as_listed(call: Call) -> Row:
    return {
        "call_execution_id": call.call_execution_id,
        "scenario_id": call.scenario.scenario_id,
        "scenario_name": call.scenario.name,
        "status": call.status,
        "duration_seconds": call.duration_seconds,
        "eval_outputs": {},
    }


def _doubled(rows: dict[str, list[Held]], *, moved: Collection[str] = ()) -> set[str]:
    """Executions of which a row stands twice; never within one run test, but for a call that moved."""
    doubled: set[str] = set()
    for table, found in rows.items():
        within = Counter(
            (held.run_test_key, key_of(table, held.row))
            for held in found
            if held.row.get("call_execution_id") not in moved
        )
        assert not [key for key, times in within.items() if times > 1], f"{table}: a key stands twice"
        times = Counter(key_of(table, held.row) for held in found if held.row.get("call_execution_id") not in moved)
        doubled |= {held.row["execution_id"] for held in found if times[key_of(table, held.row)] > 1}
    return doubled


def _keys_of_calls(rows: dict[str, list[Held]]) -> dict[str, set[tuple[str, ...]]]:
    """The keys of the calls and evals of each execution."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for table in ("calls", "evals"):
        for held in rows[table]:
            found.setdefault(held.row["execution_id"], set()).add((table, *key_of(table, held.row)))
    return found


def _vouched(rows: dict[str, list[Held]]) -> list[tuple[Held, bool]]:
    """Every execution, and whether its calls and evals are those that its row vouches for."""
    hashes: dict[tuple[str, str], list[str]] = {}
    for held in rows["calls"] + rows["evals"]:
        hashes.setdefault((held.run_test_key, held.row["execution_id"]), []).append(held.row["row_hash"])
    return [
        (held, held.row["calls_digest"] == rows_digest(hashes.get((held.run_test_key, held.row["execution_id"]), [])))
        for held in rows["executions"]
    ]


def _not_whole(rows: dict[str, list[Held]]) -> list[Held]:
    """Executions that are said to be exported, but whose calls and evals are not those that were."""
    return [held for held, is_whole in _vouched(rows) if held.row["export_state"] == "exported" and not is_whole]


def _said(row: Row) -> Row:
    """The row without who wrote it, and when."""
    return {name: value for name, value in row.items() if name not in ("export_run_id", "exported_at")}


def _lasting(row: Row) -> Row:
    """What no run changes of an execution that was deleted at the source, whatever its run test is called."""
    return {name: value for name, value in row.items() if name not in _VERSION | _OF_A_NAME | _OF_WHAT_IS_HELD}
