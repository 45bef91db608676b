"""A history: one dataset, one source, and the nights between them. A night is a value, which the oracle judges."""

import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from etl.dataset import parquet as load_parquet
from etl.dataset.last_run import read_last_run
from etl.dataset.parts import Dataset
from etl.errors import ExitCode, ExporterError, LockHeldError, leaves
from etl.extract import client
from etl.extract import crawl as crawl_module
from etl.files import local
from etl.files.names import IDENTITY, INDEX
from etl.inspect.read_status import read_status
from etl.pipeline import job
from etl.pipeline.forget import forget
from etl.pipeline.summary import Summary
from etl.sandbox import SandboxRequest
from etl.settings import Settings
from tests.datasets import fill_parts_early
from tests.machine import parquet
from tests.machine.dataset import Reader, Rows, said
from tests.machine.in_process import BASE_URL, STORES, Death, JumpingLoop, Killed, MemoryFiles, Store, transport_of
from tests.machine.memory import Memory
from tests.machine.source import Entry, Lie, Source, State

SHOWN = 3
"""What reads everything, such as the status, is judged after one night of so many."""
FULL_ROWS = 8
"""A part is full with so few rows, so that a run test has several."""
ROOT = Path("/dataset")


@dataclass(slots=True, kw_only=True)
class Night:
    """One run and what was before and after it; ``summary`` is None when it was killed.

    ``names`` are the run tests that it exported, and ``configured`` those of the settings. It ``is_narrowed`` when it
    was told to export fewer. ``struck`` counts answers that were wrong. ``refused`` is why it did not begin.
    ``unvouched`` are executions whose row was published before its calls and evals.
    """

    began_at: datetime
    """By the source's clock."""
    keys: dict[str, str]
    """The keys of its run tests, by name."""
    names: frozenset[str]
    configured: frozenset[str]
    is_narrowed: bool
    is_all: bool
    options: dict[str, Any]
    before: Rows
    source_before: dict[str, State]
    listed_before: dict[str, str]
    versions_before: dict[str, int]
    lie: Lie
    summary: Summary | None = None
    refused: ExporterError | None = None
    is_killed: bool = False
    was_changing: bool = False
    struck: int = 0
    struck_lists: int = 0
    after: Rows = field(default_factory=Rows)
    source_after: dict[str, State] = field(default_factory=dict)
    versions_after: dict[str, int] = field(default_factory=dict)
    requests: list[SandboxRequest] = field(default_factory=list)
    settings: Settings | None = None
    unvouched: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int | None:
        if self.refused is not None:
            return int(self.refused.exit_code)
        return None if self.summary is None else int(self.summary.exit_code)

    @property
    def is_complete(self) -> bool:
        """Whether it ended with 0."""
        return self.exit_code == ExitCode.COMPLETE

    @property
    def is_clean(self) -> bool:
        """Whether each answer was as it should be, and nothing changed meanwhile."""
        return not (self.struck or self.was_changing)

    @property
    def is_full(self) -> bool:
        """Whether it was over everything that is configured, and ended by itself."""
        return self.summary is not None and self.summary.failure is None and not self.is_narrowed

    @property
    def changed(self) -> set[str]:
        """The executions that changed while it ran."""
        before, after = self.source_before, self.source_after
        return {each for each in {*before, *after} if before.get(each) != after.get(each)}

    @property
    def scope(self) -> str:
        """That of its settings."""
        return "" if self.settings is None else self.settings.scope

    def differs(self, execution_id: str) -> bool:
        """Whether it left an execution other than it was: listed otherwise, or with other calls, evals or marks."""
        before, after = (rows.of.get(execution_id, {}) for rows in (self.before, self.after))
        return before.keys() != after.keys() or any(
            held is not before[key] and said(key[0], held.row) != said(key[0], before[key].row)
            for key, held in after.items()
        )

    @property
    def in_scope(self) -> set[str]:
        """The executions of its run tests that lists showed, and that did not change meanwhile."""
        return {each for each, name in self.listed_before.items() if name in self.names} - self.changed

    def __str__(self) -> str:
        told = "" if self.summary is None else "; ".join(alarms(self.summary))
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"night({options}) -> {'killed' if self.is_killed else self.exit_code} {told}".strip()


def alarms(summary: Summary) -> list[str]:
    """The findings that are alarms, in words."""
    return [str(each) for each in summary.findings if each.is_alarm]


class History:
    """Everything that one history has; each night is given to ``judge``."""

    def __init__(self, seed: int, judge: Callable[["History", Night], None], *, is_all: bool = False) -> None:
        self.rng = random.Random(seed)
        self.source = Source(self.rng, is_all=is_all)
        self.left_out = ["evals.reason"] if random.Random(f"left out {seed}").random() < 0.3 else []
        self.store = STORES[str(ROOT)] = Store()
        self.reader = Reader(self.store)
        self.memory = Memory()
        self.rows = Rows()
        self.indexes: list[bytes] = []
        self.nights = 0
        self.log: list[str] = []
        self._judge = judge
        self._loop = JumpingLoop()

    def close(self) -> None:
        self._loop.close()
        del STORES[str(ROOT)]

    # nights

    def night(
        self,
        *,
        death: Death | None = None,
        change: Callable[[], None] | None = None,
        nth_request: int = 0,
        times: int = 1,
        overlap_at: str | None = None,
        only: Entry | None = None,
        minutes: float | None = None,
        **options: Any,
    ) -> Night | None:
        """One export; None when nothing is configured. ``change`` happens before its nth request.

        ``only`` is the run test that ``--run-test`` names, ``minutes`` the most that it may take.
        """
        source = self.source
        source.now += timedelta(minutes=1)
        if not (configured := source.configured()):
            return None
        settings = self._settings(configured, minutes, options)
        if only is not None:
            settings = settings.only([only.name])
        told = {"only": only and only.name, "death": copy(death), "minutes": minutes}
        night = Night(
            began_at=source.now,
            keys={each.name: each.partition for each in configured},
            names=frozenset({only.name} if only else {each.name for each in configured}),
            configured=frozenset(each.name for each in configured),
            is_narrowed=only is not None,
            is_all=source.is_all,
            options=options | {name: value for name, value in told.items() if value is not None},
            before=self.rows,
            source_before=source.state(),
            listed_before=source.listed(),
            versions_before=self.store.versions(),
            lie=source.lie,
            settings=settings,
        )
        sent, struck, struck_lists = len(source.server.requests), source.struck, source.struck_lists
        due = sent + nth_request

        def change_in_time(_request: SandboxRequest) -> None:
            if change and due <= len(source.server.requests) < due + times:
                change()

        def overlap_in_time(event: str, **_: Any) -> None:
            if event == overlap_at:
                self._is_refused(settings)

        source.server.on_request = change_in_time
        self.store.death = death
        self._run(night, self._export(settings, overlap_in_time, options))
        source.server.on_request = None
        self.store.death, self.store.is_locked = None, False
        night.requests = source.server.requests[sent:]
        night.struck, night.struck_lists = source.struck - struck, source.struck_lists - struck_lists
        night.source_after, night.versions_after = source.state(), self.store.versions()
        night.was_changing = bool(night.changed) or change is not None
        night.unvouched = self.reader.unvouched(night.before)
        self.rows = night.after = self.reader.rows()
        if index := self.store.content.get(INDEX):
            self.indexes = [*self.indexes[-3:], index[1]]
        self.nights += 1
        self.log.append(str(night))
        self._judge(self, night)
        return night

    def _run(self, night: Night, export: Coroutine[Any, Any, Summary]) -> None:
        """Note how it ended."""
        try:
            night.summary = self._loop.run_until_complete(export)
        except ExporterError as error:
            night.refused = error
        except BaseException as error:
            if not any(isinstance(leaf, Killed) for leaf in leaves(error)):
                raise
        if (death := self.store.death) is not None and death.is_dead:
            night.summary, night.is_killed = None, True

    async def _export(self, settings: Settings, notify: Callable[..., None], options: dict[str, Any]) -> Summary:
        chosen = {name: options[name] for name in ("accept_deletions", "full_refresh") if name in options}
        return await job.export(settings, clock=lambda: self.source.now + self.source.ahead, notify=notify, **chosen)

    def _settings(self, configured: list[Entry], minutes: float | None, options: dict[str, Any]) -> Settings:
        export = {
            name: options[name]
            for name in ("calls", "sweep_days", "commit_interval_seconds", "settle_by", "metrics")
            if name in options
        } | {"leave_out": self.left_out}
        names = "all" if self.source.is_all else [{"name": each.name, "key": each.partition} for each in configured]
        return _settings_of(
            json.dumps(
                {
                    "run_tests": names,
                    "api": {
                        "base_url": BASE_URL,
                        "page_limit": options.get("page_limit", 1024),
                        "requests_per_minute": options.get("requests_per_minute", "auto"),
                        "max_tries": 3,
                        "concurrency": 4,
                    },
                    "destination": {"path": str(ROOT), "compression": "snappy"},
                    "export": {**export, "max_runtime_minutes": minutes} if minutes else export,
                    "api_key": "sandbox-key",
                    "secret_key": "sandbox-secret",
                }
            )
        )

    def _is_refused(self, settings: Settings) -> None:
        """A second run, in a thread of its own, while the first one holds the dataset (L10)."""
        before, sent, death = self.store.versions(state=True), len(self.source.server.requests), self.store.death
        self.store.death = None

        def run() -> None:
            loop = JumpingLoop()
            try:
                loop.run_until_complete(job.export(settings))
            finally:
                loop.close()

        with ThreadPoolExecutor(1) as thread:
            refusal = thread.submit(run).exception()
        assert isinstance(refusal, LockHeldError), f"L10: a second writer ended with {refusal!r}"
        after = self.store.versions(state=True), len(self.source.server.requests), self.store.death
        assert after == (before, sent, None), "L10: a run that was refused changed something"
        self.store.death = death

    def twice(self, spoil: Callable[[], None], **options: Any) -> tuple[Night, Night] | None:
        """The same night twice: the second begins with the same files, but for what ``spoil`` did, and counts."""
        content, rows, now, judge = dict(self.store.content), self.rows, self.source.now, self._judge
        self._judge = lambda *_: None
        try:
            first = self.night(**options)
        finally:
            self._judge = judge
        if first is None:
            return None
        self.store.content, self.rows, self.source.now = content, rows, now
        spoil()
        second = self.night(**options)
        assert second is not None
        return first, second

    def scope(self) -> str | None:
        """That of the settings as they are; None when they name nothing."""
        configured = self.source.configured()
        return self._settings(configured, None, {}).scope if configured else None

    def freshness(self) -> Any:
        """The scope, and what status says of it, apart from rows; None where no run was over all of that."""
        scope, record = self.scope(), read_last_run(MemoryFiles(ROOT), note=lambda _: None)
        if scope not in {record.scope, *record.others} or not self.rows.tables["executions"]:
            return None
        settings = self._settings(self.source.configured(), None, {})
        now = self.source.now + timedelta(days=3653)
        found = read_status(MemoryFiles(ROOT), now=now, settings=settings)
        # Not by their keys: these follow from names, which any run brings up to date.
        complete = Counter((each.complete_at, each.is_complete) for each in found.run_tests if each.is_configured)
        return scope, found.complete_at, found.lost_run, complete

    # what the owner removes

    def forget(self, *, death: Death | None = None, **what: Any) -> None:
        """The owner forgets executions or calls; if that is killed, the next night finishes it."""
        self.store.death = death
        try:
            said = forget(Dataset(MemoryFiles(ROOT), compression="snappy"), is_agreed=True, **what)
            is_noted = True
        except ExporterError as error:
            said, is_noted = repr(error), False
        except Killed as error:
            noted = json.loads(self.store.content[IDENTITY][1]).get("forgetting")  # an earlier one, maybe
            said, is_noted = repr(error), noted is not None and {*what["executions"]} <= {*noted["executions"]}
        self.memory.is_struck |= death is not None and death.is_dead  # the next night finishes it, whatever it finds
        self.store.death = None
        self.log.append(f"forget({what}, {death}) -> {said}")
        if is_noted:
            gone = {*what.get("executions", ())}
            self.reader.forgotten |= gone
            self.source.forgotten |= gone
            for open_ones in (self.memory.healing, self.memory.last_good_state):
                for execution_id in gone & open_ones.keys():
                    del open_ones[execution_id]
        self.rows = self.reader.rows()
        self.reader.unvouched(self.rows)

    # damage

    def damage(self, path: str, data: bytes | None) -> None:
        """Something else than an export writes to the dataset, or removes a file."""
        self.store.put(path, data)
        if data is not None:
            self.reader.damaged[path] = self.store.content[path][0]
        before, self.rows = self.rows, self.reader.rows()
        lost = self.reader.forgotten - {row["execution_id"] for row in self.reader.left if "fingerprint" in row}
        self.reader.forgotten -= lost  # nothing says any more that their owner forgot them
        self.source.forgotten -= lost
        self.memory.note_damage(before, self.rows)
        self.memory.lost |= {("executions", (execution_id,)) for execution_id in lost}
        self.memory.hurt |= lost
        self.indexes.clear()  # one from before would tell of the loss again


@lru_cache(maxsize=256)
def _settings_of(text: str) -> Settings:
    return Settings.model_validate(json.loads(text))


def everything_in_process(patch: pytest.MonkeyPatch, *, has_real_files: bool) -> None:
    """Exports run against the sandbox of the history that is being told, in memory, until the patch is undone."""
    if not has_real_files:
        patch.setattr(load_parquet, "pq", parquet)
    patch.setattr(local, "LocalFiles", MemoryFiles)
    patch.setattr(crawl_module, "_MOST_IN_HAND", 2)
    fill_parts_early(patch, rows=FULL_ROWS)


@contextmanager
def told(
    seed: int, judge: Callable[[History, Night], None], *, is_all: bool = False, has_real_files: bool = False
) -> Iterator[History]:
    """A history that begins, and everything in its place for it."""
    with pytest.MonkeyPatch.context() as patch:
        everything_in_process(patch, has_real_files=has_real_files)
        history = History(seed, judge, is_all=is_all)
        patch.setattr(client, "Transport", transport_of(history.source.server))
        try:
            yield history
        finally:
            history.close()
            parquet.forget()
