"""Check whether an export would work now, with as few requests as possible. Changes nothing, here or at the source."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any

from etl.errors import (
    ConfigurationError,
    DestinationError,
    ExitCode,
    ExporterError,
    KeyRefusedError,
    NotFoundError,
    SourceError,
    SourceUnavailableError,
)
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_executions, list_run_tests
from etl.extract.run_tests import left_out
from etl.load.dataset import Dataset, read_identity
from etl.load.files.contract import Files
from etl.load.files.open import open_files
from etl.load.last_run import last_load_into
from etl.load.layout import LOCK, parse_part_path, parse_run_path
from etl.load.state import load_state
from etl.load.warehouse.load import refuse_another, refuse_another_copy
from etl.load.warehouse.target import open_warehouse
from etl.model.keys import is_listable
from etl.model.records import Page
from etl.model.schema import EXECUTIONS, RUNS_TABLE
from etl.model.wording import counted, first_few, quoted
from etl.pipeline.lists import another_workspace, sees_none
from etl.pipeline.run import dask_module
from etl.settings import Settings


class Subject(StrEnum):
    """What is checked, in this order."""

    SETTINGS = "settings"
    SERVER = "server"
    KEY = "key"
    RATE_LIMIT = "rate limit"
    RUN_TESTS = "run tests"
    DESTINATION = "destination"
    LOCK = "lock"
    WAREHOUSE = "warehouse"
    ENGINE = "engine"


SUBJECT_MEANINGS: dict[Subject, str] = {
    Subject.SETTINGS: "the file and the environment are valid (else 2)",
    Subject.SERVER: "its name resolves, TLS and HTTP work, and this API answers (else 5)",
    Subject.KEY: "the key is given (else 2) and accepted (else 4)",
    Subject.RATE_LIMIT: "always; shows the limit, if it is known",
    Subject.RUN_TESTS: 'the API knows each name (else 2); with "all", the key sees something of the dataset (else 2), and each '
    "name on the first page can be listed (else 3)",
    Subject.DESTINATION: "files can be written, locked and read there, with 64 MiB free, or the folder can be created (else 6)",
    Subject.LOCK: "no export is running on this dataset (else 75)",
    Subject.WAREHOUSE: "it can be read, holds no other dataset, and PostgreSQL grants what a load needs (else 2 or 6); only if the "
    "settings name one",
    Subject.ENGINE: "the cluster has workers with keys and this version (else 2 or 5); only if the settings name one",
}
"""When each is fine, and the exit code otherwise."""

_SOURCE = (Subject.SERVER, Subject.KEY, Subject.RATE_LIMIT, Subject.RUN_TESTS)


@dataclass(frozen=True, slots=True)
class Check:
    """The result for one subject: fine, a problem with the ``exit_code`` of an export that meets it, or skipped."""

    subject: Subject
    detail: str
    exit_code: ExitCode = ExitCode.COMPLETE
    is_skipped: bool = False

    @property
    def outcome(self) -> str:
        """``ok``, ``problem`` or ``skipped``."""
        return "skipped" if self.is_skipped else "problem" if self.exit_code else "ok"


def exit_code(checks: Sequence[Check]) -> ExitCode:
    """That of the problem to fix first: 2, 4, 5, 6, 75, 3 in this order; 0 when there is none."""
    codes = (check.exit_code for check in checks if check.exit_code)
    return min(codes, key=lambda code: (code == ExitCode.PARTIAL, code), default=ExitCode.COMPLETE)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as a JSON object."""
    return {
        "exit_code": exit_code(checks),
        "checks": [
            {"subject": each.subject.value, "outcome": each.outcome, "detail": each.detail, "exit_code": each.exit_code}
            for each in checks
        ],
    }


async def check(config: Path | None, *, on_hold: Callable[[float], None]) -> list[Check]:
    """Check everything that an export with these settings needs, in order; goes on after a problem where it can.

    ``on_hold`` is told for how many seconds the rate limit holds the check up.
    """
    try:
        settings = Settings.load(config, needs_keys=False)
    except ConfigurationError as error:
        found = [_problem(Subject.SETTINGS, error), *map(_skipped, _SOURCE)]
        try:
            settings = Settings.load(config, needs_keys=False, needs_run_tests=False)
        except ConfigurationError:
            return [*found, _skipped(Subject.DESTINATION), _skipped(Subject.LOCK)]
    else:
        count = len(settings.run_tests)
        names = f"names {counted(count, 'run test')}" if count else "for all run tests"
        found = [Check(Subject.SETTINGS, f"valid, {names}"), *await _check_source(config, on_hold)]
    found += await asyncio.to_thread(_check_dataset, settings)
    if settings.warehouse.url:
        found.append(await asyncio.to_thread(_check_warehouse, settings))
    if settings.engine.address:
        found.append(await _check_cluster(settings.engine.address))
    return found


def problems_here(config: Path | None) -> list[str]:
    """What would end an export that began now, as far as can be told at once: without a request, the keys or the stored rows."""
    try:
        settings = Settings.load(config, needs_keys=False)
    except ConfigurationError as error:
        return [str(error)]
    try:
        open_files(settings.destination.path, settings.destination.options).probe()
    except DestinationError as error:
        return [str(error)]
    return []


async def _check_source(config: Path | None, on_hold: Callable[[float], None]) -> list[Check]:
    try:
        settings = Settings.load(config)
    except ConfigurationError as error:
        return [_problem(Subject.KEY, error) if each is Subject.KEY else _skipped(each) for each in _SOURCE]
    # A check says how it is now; retries would hide that for minutes.
    once = settings.model_copy(update={"api": settings.api.model_copy(update={"max_tries": 1})})
    base_url, started_at, held_seconds = settings.api.base_url, monotonic(), 0.0

    def hold(seconds: float) -> None:
        nonlocal held_seconds
        held_seconds += seconds
        on_hold(seconds)

    try:
        async with Client(once, on_hold=hold) as client:
            run_tests = await _check_run_tests(client, once)
    except KeyRefusedError as error:
        return [Check(Subject.SERVER, f"{base_url} answers"), _problem(Subject.KEY, error), *map(_skipped, _SOURCE[2:])]
    except (SourceError, SourceUnavailableError) as error:
        unavailable = Check(Subject.SERVER, f"{base_url}: {error}", ExitCode.SOURCE_UNAVAILABLE)
        return [unavailable, *map(_skipped, _SOURCE[1:])]
    except ConfigurationError as error:
        return [_problem(Subject.SERVER, error), *map(_skipped, _SOURCE[1:])]
    requests, seconds = client.traffic.requests, max(0.0, monotonic() - started_at - held_seconds)
    waiting = f", plus {held_seconds:.0f} s of waiting for the rate limit" if held_seconds else ""
    return [
        Check(Subject.SERVER, f"{base_url} answers: {counted(requests, 'request')} in {seconds:.2f} s{waiting}"),
        Check(Subject.KEY, "accepted"),
        Check(Subject.RATE_LIMIT, _rate_limit(client.quota.requests_per_minute)),
        *run_tests,
    ]


async def _check_run_tests(client: Client, settings: Settings) -> list[Check]:
    """One request, one more for each run test that is not on the first page of the list, and with "all" one for what is stored.

    Raises:
        KeyRefusedError, SourceError, SourceUnavailableError: the list cannot be read.
    """
    try:
        page = await client.get(list_run_tests(Slice(1, settings.api.page_limit)))
    except SourceError as error:
        # An export that names its run tests does not need the list.
        if not settings.run_tests or error.status == 0:
            raise
        page = Page(total_pages=1, count=0, results=())
    listed = {run_test.name for run_test in page.results}
    if not settings.run_tests and not listed:
        text = "the key sees none: check that it belongs to the right workspace"
        return [Check(Subject.RUN_TESTS, text, ExitCode.CONFIGURATION)]
    if not settings.run_tests:
        unlistable = [run_test for run_test in page.results if not is_listable(run_test.name)]
        code = ExitCode.PARTIAL if len(unlistable) < page.count else ExitCode.SOURCE_UNAVAILABLE
        found = [Check(Subject.RUN_TESTS, left_out(run_test), code) for run_test in unlistable]
        if (other := await _another_workspace(client, settings, sorted(listed))) is not None:
            found.append(_problem(Subject.RUN_TESTS, other))
        names = first_few([quoted(name) for name in sorted(listed)])
        return found or [Check(Subject.RUN_TESTS, f"all {page.count} that the key sees: {names}")]
    wanted = [run_test.name for run_test in settings.run_tests]
    unknown = [name for name in wanted if name not in listed and not await _is_known(client, name)]
    if not unknown:
        return [Check(Subject.RUN_TESTS, f"{len(wanted)} of {len(wanted)} exist")]
    return [Check(Subject.RUN_TESTS, _unknown_name(name, listed), ExitCode.CONFIGURATION) for name in unknown]


async def _another_workspace(client: Client, settings: Settings, names: Collection[str]) -> ConfigurationError | None:
    """What a run would end with because the key sees nothing of the dataset, as its index knows it.

    One request if the dataset holds anything, and up to twenty more while nothing of it is found.
    """
    files = open_files(settings.destination.path, settings.destination.options)
    try:
        state = await asyncio.to_thread(load_state, Dataset(files), set_aside=False)
    except DestinationError:  # which is told of the destination
        return None
    stored = state.executions.items()
    living = {execution_id: each.run_test_name for execution_id, each in stored if each.deleted_at is None}
    counts = Counter(living.values())
    name = max(names, key=lambda each: counts[each])
    if counts[name]:
        with suppress(SourceError):  # which a run tells
            page = await client.get(list_executions(name, Slice(1, settings.api.page_limit)))
            if not living.keys().isdisjoint(each.execution_id for each in page.results):
                return None
    return another_workspace(len(living)) if await sees_none(client, living) else None


async def _is_known(client: Client, name: str) -> bool:
    try:
        await client.get(list_executions(name, Slice(1, 1)))
    except NotFoundError:
        return False
    return True


def _unknown_name(name: str, listed: Collection[str]) -> str:
    nearest = get_close_matches(name, listed, n=3)
    hint = f"did you mean {' or '.join(map(quoted, nearest))}?" if nearest else "metrics-etl discover lists them"
    return f"{quoted(name)}: the API knows no run test of this name: {hint}"


def _rate_limit(requests_per_minute: int | None) -> str:
    if requests_per_minute:
        return f"{counted(requests_per_minute, 'request')} a minute, as the API and the settings allow"
    return "unknown: the API does not announce it; a run learns it from the first refusal"


def _check_dataset(settings: Settings) -> list[Check]:
    files = open_files(settings.destination.path, settings.destination.options)
    try:
        holder = files.lock_holder()
    except DestinationError as error:
        return [_problem(Subject.DESTINATION, error), _skipped(Subject.LOCK)]
    try:
        probe = files.probe()
        words = "can be written" if probe.is_there else "does not exist yet, but can be created"
        if probe.is_there and not holder and not _read_dataset(files):
            words = "has no dataset yet, but can be written"
    except DestinationError as error:
        destination = _problem(Subject.DESTINATION, error)
    else:
        free = "" if probe.free_bytes is None else f", {probe.free_bytes / 2**30:,.1f} GiB free"
        destination = Check(Subject.DESTINATION, f"{files.where()} {words}{free}")
    lock = Check(
        Subject.LOCK,
        f"another export holds {files.where(LOCK)} ({holder})" if holder else "free",
        ExitCode.LOCK_HELD if holder else ExitCode.COMPLETE,
    )
    return [destination, lock]


def _check_warehouse(settings: Settings) -> Check:
    """Whether it can be reached and read, and holds no other dataset; most engines tell only a load whether it may write."""
    try:
        files, section = open_files(settings.destination.path, settings.destination.options), settings.warehouse
        identity = read_identity(files)
        with closing(open_warehouse(section.named_url, section.namespace, is_read_only=True)) as warehouse:
            loaded = warehouse.loaded(would_load=True)
            refuse_another(warehouse, loaded, identity.dataset_id if identity else "a new one")
            export_runs = {run[1] for path in files.list(RUNS_TABLE.name) if (run := parse_run_path(path))}
            last = last_load_into(files, section.place or "", datetime.now(UTC))
            refuse_another_copy(warehouse, loaded, export_runs, last.runs_digest)
            executions = len(loaded.digests.get("execution", {}))
    except ExporterError as error:
        return _problem(Subject.WAREHOUSE, error)
    return Check(Subject.WAREHOUSE, f"{warehouse.where} can be read: {counted(executions, 'execution')}")


async def _check_cluster(address: str) -> Check:
    """Whether its workers could fetch; the keys that they have are not tried."""
    try:
        workers: int = await dask_module().count_workers(address)
    except ExporterError as error:
        return _problem(Subject.ENGINE, error)
    return Check(Subject.ENGINE, f"{counted(workers, 'Dask worker')} at {address} can fetch")


def _read_dataset(files: Files) -> bool:
    """Read the stored rows as an export does before its first request; whether there is a dataset at all."""
    identity = read_identity(files)
    stored = {parsed[1].run_test_key for path in files.list(EXECUTIONS.name) if (parsed := parse_part_path(path))}
    load_state(Dataset(files), set_aside=False)
    return identity is not None or bool(stored)


def _problem(subject: Subject, error: ExporterError) -> Check:
    return Check(subject, str(error), error.exit_code)


def _skipped(subject: Subject) -> Check:
    return Check(subject, "not checked: fix the problem first", is_skipped=True)
