"""Check whether an export would work now, with as few requests as possible.

Nothing is changed at the source; what is written to try the destination is removed again.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from etl.dataset.parts import Dataset, read_identity
from etl.dataset.state import read_state
from etl.errors import ConfigurationError, ExitCode, ExporterError, KeyRefusedError, SourceError, SourceUnavailableError
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_run_tests
from etl.extract.run_tests import no_such_run_test, why_unknown
from etl.files.interface import Files
from etl.files.names import LOCK
from etl.files.open import open_files
from etl.load.open import open_warehouse
from etl.load.synchronize import EXPERIMENTAL, made_up_load, refuse_another
from etl.model.values import fields_of
from etl.model.wording import counted, first_few, quoted
from etl.pipeline.lists import is_run_test
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


_SOURCE = (Subject.SERVER, Subject.KEY, Subject.RATE_LIMIT, Subject.RUN_TESTS)


@dataclass(frozen=True, slots=True)
class Check:
    """The result for one subject: fine, a problem, or skipped. A subject may have several problems."""

    subject: Subject
    """What was checked."""
    detail: str
    """What was found, or what to fix."""
    exit_code: ExitCode = ExitCode.COMPLETE
    """What an export that meets this problem exits with; 0 for no problem."""
    is_skipped: bool = False
    """Whether another problem has to be fixed before this subject can be checked."""

    @property
    def outcome(self) -> str:
        """``ok``, ``problem`` or ``skipped``."""
        if self.is_skipped:
            return "skipped"
        return "problem" if self.exit_code else "ok"


def exit_code(checks: Sequence[Check]) -> ExitCode:
    """The exit code of the problem to fix first: 2, 4, 5, 6, 75 in this order; 0 if there is none."""
    return min((check.exit_code for check in checks if check.exit_code), default=ExitCode.COMPLETE)


def checks_as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as a JSON object."""
    documents = [fields_of(check, "subject", "outcome", "detail", "exit_code") for check in checks]
    return {"exit_code": exit_code(checks), "checks": documents}


async def check(config: Path | None, *, on_hold: Callable[[float], None], is_read_only: bool = False) -> list[Check]:
    """Check everything that an export with these settings needs, in order; go on after a problem where possible.

    ``config`` is the path of the settings file; None for the default one. ``on_hold`` is called with the number of
    seconds for which the rate limit holds the check up. ``is_read_only``: whether anything can be written is not
    checked. A problem is a result, not an error.
    """
    try:
        settings = Settings.load(config, needs_keys=False)
    except ConfigurationError as error:
        return [*_problems(Subject.SETTINGS, error), *map(_skipped, (*_SOURCE, Subject.DESTINATION, Subject.LOCK))]
    names = f"names {counted(len(settings.run_tests), 'run test')}" if settings.run_tests else "for all run tests"
    checks = [Check(Subject.SETTINGS, f"valid, {names}"), *await check_source(lambda: Settings.load(config), on_hold)]
    checks += await asyncio.to_thread(_check_dataset, settings, is_read_only=is_read_only)
    if settings.warehouse.url:
        is_held = checks[-1].exit_code == ExitCode.LOCK_HELD  # a load may be at work
        checks += await asyncio.to_thread(_check_warehouse, settings, is_read_only=is_read_only or is_held)
    return checks


async def check_source(load: Callable[[], Settings], on_hold: Callable[[float], None]) -> list[Check]:
    """Check the server, the key, the rate limit and the run tests, in this order.

    ``load`` gives the settings with their keys, or raises ConfigurationError, which is then a problem of the key.
    """
    try:
        settings = load()
    except ConfigurationError as error:
        return [_skipped(Subject.SERVER), *_problems(Subject.KEY, error), *map(_skipped, _SOURCE[2:])]
    # A check says how it is now: retries would hide that for minutes.
    once = settings.model_copy(update={"api": settings.api.model_copy(update={"max_tries": 1})})
    url = settings.api.base_url
    try:
        async with Client(once, on_hold=on_hold) as client:
            run_tests = await _check_run_tests(client, once)
    except KeyRefusedError as error:
        return [Check(Subject.SERVER, f"{url} answers"), *_problems(Subject.KEY, error), *map(_skipped, _SOURCE[2:])]
    except (SourceError, SourceUnavailableError, ConfigurationError) as error:
        code = error.exit_code if isinstance(error, ConfigurationError) else ExitCode.SOURCE_UNAVAILABLE
        return [Check(Subject.SERVER, f"{url}: {error}", code), *map(_skipped, _SOURCE[1:])]
    rate_limit = "unknown, since the API does not announce it. A run learns the limit from the first refusal"
    if client.quota.requests_per_minute:
        limit = counted(client.quota.requests_per_minute, "request")
        rate_limit = f"{limit} a minute, as the API and the settings allow"
    return [
        Check(Subject.SERVER, f"{url} answers; {counted(client.traffic.requests, 'request')} sent"),
        Check(Subject.KEY, "accepted"),
        Check(Subject.RATE_LIMIT, rate_limit),
        *run_tests,
    ]


async def refuse_unknown(client: Client, settings: Settings) -> None:
    """Refuse a name given to ``Settings.only`` that the API does not know, if the settings say "all", which names none.

    If the API does not say, nothing is refused: the run finds out by itself.

    Raises:
        ConfigurationError: there is such a name.
    """
    asked = settings.run_tests if settings.is_part and not settings.configured else ()
    with suppress(KeyRefusedError, SourceError, SourceUnavailableError):
        async with client:
            for name in (run_test.name for run_test in asked):
                if not await is_run_test(client, name):
                    why = await why_unknown(client, name, (), page_limit=settings.api.page_limit)
                    raise ConfigurationError(f"--run-test {quoted(name)}: {why}")


async def _check_run_tests(client: Client, settings: Settings) -> list[Check]:
    """Look for the run tests of the settings: one request, and one for each that is not on the list's first page."""
    wanted = [run_test.name for run_test in settings.run_tests]
    listed: set[str] = set()
    on_other_pages = 0
    try:
        page = await client.get(list_run_tests(Slice(1, settings.api.page_limit)))
        listed = {run_test.name for run_test in page.results}
        on_other_pages = page.count - len(page.results)
    except SourceError as error:
        if not wanted or not error.status:  # an export of named run tests does not read this list
            raise
    unknown = [name for name in wanted if name not in listed and not await is_run_test(client, name)]
    problems = [f"{quoted(name)}: {no_such_run_test(name, listed, wanted)}" for name in unknown]
    if not wanted and not listed:
        problems = ["the key sees no run test. Check the key's workspace"]
    if problems:
        return [Check(Subject.RUN_TESTS, problem, ExitCode.CONFIGURATION) for problem in problems]
    if wanted:
        return [Check(Subject.RUN_TESTS, f"{counted(len(wanted), 'run test')} found")]
    names = [*map(quoted, sorted(listed)), *["…"] * on_other_pages]
    return [Check(Subject.RUN_TESTS, f"all {counted(len(names), 'run test')} that the key sees: {first_few(names)}")]


def _check_dataset(settings: Settings, *, is_read_only: bool) -> list[Check]:
    files = open_files(settings.destination.path, settings.destination.options)
    try:
        holder = files.lock_holder()
        # An export at work shows that files can be written: that need not be tried.
        probe = files.examine() if is_read_only or holder else files.probe()
        is_empty = probe.is_there and not holder and not _has_dataset(files)
    except ExporterError as error:
        return [*_problems(Subject.DESTINATION, error), _skipped(Subject.LOCK)]
    if is_read_only:
        words = "can be read" if probe.is_there else "does not exist yet"
    elif is_empty:
        words = "has no dataset yet, but can be written"
    else:
        words = "can be written" if probe.is_there else "does not exist yet, but can be created"
    free = "" if probe.free_bytes is None else f", {probe.free_bytes / 2**30:,.1f} GiB free"
    lock = Check(Subject.LOCK, "free")
    if holder:
        lock = Check(Subject.LOCK, f"another export holds {files.where(LOCK)} ({holder})", ExitCode.LOCK_HELD)
    return [Check(Subject.DESTINATION, f"{files.where()} {words}{free}"), lock]


def _check_warehouse(settings: Settings, *, is_read_only: bool = False) -> list[Check]:
    """Check that the warehouse holds no other dataset and, unless ``is_read_only``, takes a load, which is undone."""
    try:
        identity = read_identity(open_files(settings.destination.path, settings.destination.options))
        section = settings.warehouse
        dataset_id = identity.dataset_id if identity else "a new one"
        purpose: Literal["read", "rehearse"] = "read" if is_read_only else "rehearse"
        with closing(open_warehouse(section.named_url, section.namespace, purpose)) as warehouse:
            loaded = warehouse.loaded()
            refuse_another(warehouse, loaded, dataset_id)
            executions = len(loaded.digests.get("execution", {}))
            is_loadable = purpose == "rehearse" and warehouse.rehearse(made_up_load(dataset_id))
    except ExporterError as error:
        return _problems(Subject.WAREHOUSE, error)
    words = f"; {EXPERIMENTAL}" if section.is_experimental else ""
    can = "can be loaded" if is_loadable else "can be read"
    return [Check(Subject.WAREHOUSE, f"{warehouse.where} {can}, and holds {counted(executions, 'execution')}{words}")]


def _has_dataset(files: Files) -> bool:
    """Whether there is a dataset. Its rows are read, as an export does before its first request, to find what fails."""
    state = read_state(Dataset(files), set_aside=False)
    return read_identity(files) is not None or bool(state.executions)


def _problems(subject: Subject, error: ExporterError) -> list[Check]:
    return [Check(subject, line, error.exit_code) for line in str(error).split("\n")]


def _skipped(subject: Subject) -> Check:
    return Check(subject, "not checked, because the problem above must be fixed first", is_skipped=True)
