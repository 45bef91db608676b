"""The record of the last run, the last attempt and the last loads, one JSON document: for the next run, monitors and people."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Self

import msgspec
from msgspec.structs import replace

from etl.dataset.parts import read_document
from etl.errors import DestinationError, ExporterError
from etl.files.interface import Files
from etl.files.names import LAST_RUN, STATE
from etl.model.digest import rows_digest
from etl.model.findings import Finding

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_MOST_OTHERS = 10  # settings are edited, and then nobody reads the record of the older ones
RUN_TESTS = "all"
"""Stands in ``incomplete`` for the list of run tests."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has begun, and has an ``export_run_id``, or one that could not, and has an ``exit_code`` and a ``message``."""

    started_at: _Moment
    export_run_id: str | None = None
    exit_code: int | None = None
    message: str | None = None


class LastLoad(msgspec.Struct, frozen=True, kw_only=True):
    """``warehouse``: its place, as the settings name it; ``problem``: why the load failed, or what it left out.

    ``export_run_id``: the newest export run that the last load which did not fail left there; ``runs_digest``: of all that it left.
    ``loaded_at``: when a load last left nothing out.
    """

    warehouse: str
    tried_at: _Moment
    export_run_id: str | None = None
    runs_digest: str = ""
    problem: str | None = None
    loaded_at: _Moment | None = None


class RunTestResult(msgspec.Struct, frozen=True):
    """What the document says of one run test of the last run."""

    name: str
    key: str


class LastRun(msgspec.Struct, frozen=True):
    """What the document says of completeness, and how the run ended; ``rows`` are those that it wrote, by table.

    ``scope`` tells which run tests are configured, and from which days on, see ``Settings.scope``. ``complete_at``: when a run over
    all of them last left nothing out. ``last_complete_at``: the same for each of them, by its key; None when that never
    happened. ``incomplete``: keys of those of which the last run over them left something out. ``run_test_names``: those that the
    last run knew which listed any. ``loads``: the last load into each warehouse, by its place. ``others`` are the records of other
    scopes, which other settings files export, without ``loads``.
    """

    scope: str = ""
    complete_at: _Moment | None = None
    last_complete_at: dict[str, _Moment | None] = {}
    incomplete: tuple[str, ...] = ()
    run_test_names: tuple[str, ...] = ()
    export_run_id: str | None = None
    started_at: _Moment | None = None
    finished_at: _Moment | None = None
    outcome: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    requests: int = 0
    rows: dict[str, int] = {}
    problems: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    run_tests: tuple[RunTestResult, ...] = ()
    attempt: Attempt | None = None
    loads: dict[str, LastLoad] = {}
    others: dict[str, "LastRun"] = {}

    def of(self, scope: str) -> "LastRun":
        """The record of this scope. The first run over it goes on from the last run over another one, which completed less."""
        if scope == self.scope:
            return self
        return replace(self.others.get(scope) or replace(self, complete_at=None), loads=self.loads)

    def after(self, attempt: Attempt | None) -> Self:
        """What of it holds when this was the last attempt: one that it does not tell of left something out of every run test."""
        if attempt is None or attempt.export_run_id == self.export_run_id:
            return self
        return replace(self, incomplete=tuple(self.last_complete_at))


def read_last_run(files: Files, *, note: Callable[[str], object], set_aside: bool = False) -> LastRun:
    """The record; an empty one when there is none, or it cannot be read: see ``read_document``."""
    return read_document(files, LAST_RUN, LastRun, note=note, set_aside=set_aside) or LastRun()


def update_last_run(files: Files, fields: Mapping[str, Any]) -> None:
    """Replace these fields, and of ``loads`` these places; all others stay as the last run over the same ``scope`` left them."""
    kind = dict[str, msgspec.Raw]
    before = read_document(files, LAST_RUN, kind, note=lambda _: None, set_aside=True) or {}
    record = read_last_run(files, note=lambda _: None)
    if "scope" in fields and record.scope not in ("", fields["scope"]):
        others = {record.scope: replace(record, loads={}, others={})} | record.others
        newest = [(scope, each) for scope, each in others.items() if scope != fields["scope"]][:_MOST_OTHERS]
        before = msgspec.to_builtins(replace(record.of(fields["scope"]), others=dict(newest)))
    kept = {name: value for name, value in before.items() if name not in fields}
    document = {**fields, **kept, "loads": record.loads | fields.get("loads", {})}
    files.publish(LAST_RUN, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def note_failure(files: Files, error: ExporterError, started_at: datetime, scope: str) -> None:
    """Note a run that could not begin; that it cannot be noted must not hide the error."""
    message = str(error).replace("\n", "; ")
    attempt = Attempt(started_at=started_at, exit_code=error.exit_code, message=message)
    with suppress(DestinationError):
        if files.lock_holder():  # it replaces the record itself
            return
        if not files.entries(STATE):
            files.examine()
            files.prepare()
        update_last_run(files, {"scope": scope, "attempt": attempt})


def last_load_into(files: Files, place: str, now: datetime) -> LastLoad:
    """The last load into the warehouse at ``place``, empty where none can be read."""
    no_load = LastLoad(warehouse=place, tried_at=now)
    try:
        return read_last_run(files, note=lambda _: None).loads.get(place, no_load)
    except DestinationError:
        return no_load


def lacks_of_warehouse(load: LastLoad | None, *export_runs: Collection[str]) -> str | None:
    """What is missing from the warehouse after this load, in words; it should have the runs of one of these ``export_runs``."""
    if load is None:
        return "the warehouse was never loaded"
    if load.problem:
        return f"the last load failed: {load.problem}"
    is_there = load.runs_digest in map(rows_digest, export_runs)
    return None if is_there else "the last run was not loaded into the warehouse"
