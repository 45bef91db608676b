"""The record of the last run, the last attempt and the last loads, for the next run, monitors and people.

Owns the JSON document ``_state/last_run.json``. Never decides whether a run was complete or a load succeeded: the
pipeline and ``load`` say so.
"""

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
_MOST_OTHERS = 10
"""Records of so many other scopes are kept: settings are edited, and then nobody reads the record of the older ones."""
RUN_TESTS = "all"
"""Stands in ``LastRun.incomplete`` for the list of run tests, if that was not read as a whole."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """The record that a run has begun, or could not begin.

    A run that has begun, and of which neither ``LastRun`` nor a row of ``runs`` says more, was killed.
    """

    started_at: _Moment
    """When the run was started."""
    export_run_id: str | None = None
    """The run's id; None if it could not begin."""
    exit_code: int | None = None
    """The exit code of a run that could not begin; None if it has begun."""
    message: str | None = None
    """Why the run could not begin, in one line; None if it has begun."""


class LastLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How the last load into one warehouse went."""

    warehouse: str
    """The warehouse's place, as the settings name it, without a password."""
    tried_at: _Moment
    """When the load was tried."""
    export_run_id: str | None = None
    """The newest export run in the warehouse after the last load that did not fail; None before the first one."""
    runs_digest: str = ""
    """The digest of the ids of all export runs in the warehouse after that load."""
    problem: str | None = None
    """Why the load failed, or what it left out; None if it did neither."""
    loaded_at: _Moment | None = None
    """When a load last left nothing out; None if none ever did."""


class RunTestResult(msgspec.Struct, frozen=True):
    """One run test of the last run, as far as this exporter reads the document again."""

    name: str
    """The name at the source."""
    key: str
    """The name of the run test's folder, ``run_test=KEY``."""


class LastRun(msgspec.Struct, frozen=True):
    """What the document says of completeness, and how the last run ended. Empty before the first run."""

    scope: str = ""
    """Which run tests were configured, from which days on: see ``Settings.scope``. The other fields are about these."""
    complete_at: _Moment | None = None
    """When a run over the whole scope last left nothing out; None if none ever did."""
    last_complete_at: dict[str, _Moment | None] = {}
    """By key, when a run last left nothing out of this run test; None if none ever did."""
    incomplete: tuple[str, ...] = ()
    """The keys of run tests of which the last run over them left something out; may hold ``RUN_TESTS``."""
    run_test_names: tuple[str, ...] = ()
    """The names of the run tests of the last run that listed any."""
    export_run_id: str | None = None
    """The id of the last run."""
    started_at: _Moment | None = None
    """When the last run began."""
    finished_at: _Moment | None = None
    """When the last run ended."""
    outcome: str = ""
    """How the last run ended, in one word."""
    exit_code: int = 0
    """The exit code of the last run."""
    seconds: float = 0.0
    """How long the last run took."""
    requests: int = 0
    """How many requests the last run sent to the API."""
    requests_per_minute: int | None = None
    """The rate limit that the last run kept to; None if none was known."""
    rows: dict[str, int] = {}
    """By table, how many rows the last run wrote."""
    problems: tuple[str, ...] = ()
    """What the last run printed as missing or wrong, one line each."""
    findings: tuple[Finding, ...] = ()
    """All findings of the last run."""
    answers: tuple[Finding, ...] = ()
    """What the last run that judged them said of run tests whose answers lost values."""
    run_tests: tuple[RunTestResult, ...] = ()
    """The run tests of the last run."""
    leave_out: tuple[str, ...] = ()
    """The columns that the last run left out."""
    forgot: str | None = None
    """Under which id ``forget``, or a run before one that could not begin, wrote last; None if the attempt did."""
    attempt: Attempt | None = None
    """The last attempt over this scope, which may be younger than the last run."""
    loads: dict[str, LastLoad] = {}
    """The last load into each warehouse, by its place; of any scope."""
    others: dict[str, "LastRun"] = {}
    """The records of other scopes, which other settings files export; each is without ``loads`` and ``others``."""

    def of(self, scope: str) -> "LastRun":
        """The record of this scope. A new one begins with the last run's record, but was never complete as a whole."""
        if scope == self.scope:
            return self
        return replace(self.others.get(scope) or replace(self, complete_at=None), loads=self.loads)

    @property
    def last_writer(self) -> str | None:
        """The id of what wrote last, even if it was killed; None if that is unknown."""
        return self.forgot or (self.attempt.export_run_id if self.attempt else None)

    def after(self, attempt: Attempt | None) -> Self:
        """The record as it holds after this attempt: unless it is of the same run, every run test is incomplete."""
        if attempt is None or attempt.export_run_id == self.export_run_id:
            return self
        return replace(self, incomplete=tuple(self.last_complete_at))


def read_last_run(files: Files, *, note: Callable[[str], object], set_aside: bool = False) -> LastRun:
    """The record; empty if there is none, or it is damaged. ``note`` and ``set_aside`` are as in ``read_document``."""
    return read_document(files, LAST_RUN, LastRun, note=note, set_aside=set_aside) or LastRun()


def update_last_run(files: Files, fields: Mapping[str, Any]) -> None:
    """Replace these fields of the document, and in ``loads`` only the places that are given.

    The other fields stay as the last run over the same scope left them, including those that this version does not
    know. If ``fields`` bring another ``scope``, the document's own record moves to ``others``.

    Raises:
        DestinationError: the document cannot be read or written. A damaged one is moved to the quarantine, and
            replaced.
    """
    raw_document = dict[str, msgspec.Raw]
    before = read_document(files, LAST_RUN, raw_document, note=lambda _: None, set_aside=True) or {}
    record = read_last_run(files, note=lambda _: None)
    if "scope" in fields and record.scope not in ("", fields["scope"]):
        others = {record.scope: replace(record, loads={}, others={})} | record.others
        newest = [(scope, other) for scope, other in others.items() if scope != fields["scope"]][:_MOST_OTHERS]
        before = msgspec.to_builtins(replace(record.of(fields["scope"]), others=dict(newest)))
    kept = {name: value for name, value in before.items() if name not in fields}
    document = {**fields, **kept, "loads": record.loads | fields.get("loads", {})}
    files.publish(LAST_RUN, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def note_failure(files: Files, error: ExporterError, started_at: datetime, scope: str) -> None:
    """Record that a run could not begin, and why. Never raises a DestinationError: that would hide the run's own error.

    Writes nothing while another run holds the lock, or where no export could begin.
    """
    message = str(error).replace("\n", "; ")
    attempt = Attempt(started_at=started_at, exit_code=error.exit_code, message=message)
    with suppress(DestinationError):
        if files.lock_holder():  # the run at work writes the record itself
            return
        if not files.entries(STATE):
            files.examine()
            files.prepare()
        before = read_last_run(files, note=lambda _: None)
        update_last_run(files, {"scope": scope, "attempt": attempt, "forgot": before.last_writer})


def last_load_into(files: Files, place: str, now: datetime) -> LastLoad:
    """The last load into the warehouse at ``place``; if none can be read, one tried ``now`` that says nothing else."""
    no_load = LastLoad(warehouse=place, tried_at=now)
    try:
        return read_last_run(files, note=lambda _: None).loads.get(place, no_load)
    except DestinationError:
        return no_load


def lacks_of_warehouse(load: LastLoad | None, *export_runs: Collection[str]) -> str | None:
    """What is missing from the warehouse after this load, in words; None if nothing is.

    It should hold exactly the export runs of one of these collections: while a load goes on, the newest run may be
    missing.
    """
    if load is None:
        return "the warehouse was never loaded"
    if load.problem:
        return f"the last load failed: {load.problem}"
    is_there = load.runs_digest in map(rows_digest, export_runs)
    return None if is_there else "the last run was not loaded into the warehouse"
