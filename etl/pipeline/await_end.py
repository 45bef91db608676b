"""Wait until an execution has ended at the source, and find the run test that lists it. Writes nothing."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import islice

import backoff

from etl.errors import ConfigurationError, NotFoundError, SourceError, SourceUnavailableError, TimeLimitError
from etl.extract.client import Client
from etl.extract.endpoints import get_execution
from etl.extract.executions import read_executions_once
from etl.extract.run_tests import discover
from etl.model.lifecycle import TERMINAL_EXECUTION
from etl.model.records import Execution
from etl.model.values import timestamp_or_none
from etl.model.wording import quoted
from etl.settings import Settings

_LONGEST_PAUSE_SECONDS = 60.0


async def await_end(
    settings: Settings,
    execution_id: str,
    *,
    seconds: float,
    on_status: Callable[[str], object],
    on_hold: Callable[[float], None] | None = None,
) -> str:
    """The name of the run test of the execution, once that has ended. ``on_status`` is told of each status until then.

    Raises:
        ConfigurationError: there is no such execution, or no run test of the settings lists it.
        KeyRefusedError, SourceUnavailableError: the API cannot be asked.
        TimeLimitError: it has not ended within so many seconds.
    """
    try:
        async with asyncio.timeout(seconds), Client(settings, on_hold=on_hold) as client:
            return await _run_test_of(client, settings, await _ended(client, execution_id, on_status))
    except TimeoutError:
        raise TimeLimitError(
            f"execution {quoted(execution_id)} had not ended after {timedelta(seconds=seconds)} (--timeout): nothing was compared"
        ) from None
    except SourceError as error:
        if isinstance(error, NotFoundError) or error.status == 400:  # it is no UUID
            raise ConfigurationError(
                f"the API has no execution {quoted(execution_id)}: check the id, and the key's workspace"
            ) from None
        raise SourceUnavailableError(f"cannot wait for the execution: {error}") from None


async def _ended(client: Client, execution_id: str, on_status: Callable[[str], object]) -> Execution:
    status, pauses = "", islice(backoff.expo(max_value=_LONGEST_PAUSE_SECONDS), 1, None)  # its first value is none
    while (execution := await client.get(get_execution(execution_id))).status not in TERMINAL_EXECUTION:
        if execution.status != status:
            status = execution.status
            on_status(status)
        await asyncio.sleep(next(pauses))
    return execution


async def _run_test_of(client: Client, settings: Settings, execution: Execution) -> str:
    """The API does not tell it: the lists are read, newest first, as far as the day on which the execution was created."""
    limit = settings.api.page_limit
    names = [each.name for each in settings.run_tests] or (await discover(client, page_limit=limit)).run_tests
    started_at = timestamp_or_none(execution.payload.get("started_at"))
    since, failure = started_at.date() if started_at else None, None
    for name in names:
        try:
            found = await read_executions_once(client, name, page_limit=limit, since=since)
        except SourceError as error:
            failure = failure if isinstance(error, NotFoundError) else error
        else:
            if execution.execution_id in found.executions:
                return name
    if failure:
        raise failure
    raise ConfigurationError(
        f"no configured run test lists execution {quoted(execution.execution_id)}: add its run test to run_tests"
    )
