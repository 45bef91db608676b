"""Wait until an execution has ended at the source, and find the run test that lists it. Writes nothing."""

import asyncio
from contextlib import suppress
from datetime import date, timedelta
from itertools import islice

import backoff

from etl.errors import ConfigurationError, NotFoundError, SourceError, SourceUnavailableError, TimeLimitError
from etl.extract.client import Client
from etl.extract.endpoints import get_execution
from etl.extract.executions import read_executions_once
from etl.extract.run_tests import discover
from etl.model.lifecycle import TERMINAL_EXECUTION
from etl.model.values import timestamp_or_none
from etl.model.wording import quoted
from etl.settings import Settings


async def await_end(settings: Settings, execution_id: str, *, seconds: float) -> str:
    """The name of the run test of the execution, once that has ended.

    Raises:
        ConfigurationError: there is no such execution, or no run test of the settings lists it.
        KeyRefusedError, SourceUnavailableError: the API refuses the key, or is unavailable.
        TimeLimitError: it has not ended within so many seconds.
    """
    execution = f"execution {quoted(execution_id)}"
    try:
        async with asyncio.timeout(seconds), Client(settings) as client:
            started_on = await _wait_for_end(client, execution_id)
            return await _find_run_test(client, settings, execution_id, started_on)
    except TimeoutError:
        limit = timedelta(seconds=seconds)
        raise TimeLimitError(f"{execution} had not ended after {limit} (--timeout): not compared") from None
    except SourceError as error:
        if not (isinstance(error, NotFoundError) or error.status == 400):  # 400: the id is no UUID
            raise SourceUnavailableError(f"cannot wait for the execution: {error}") from None
        raise ConfigurationError(f"the API has no {execution}: check the id, and the key's workspace") from None


async def _wait_for_end(client: Client, execution_id: str) -> date | None:
    """Request the execution, with pauses that grow to a minute, until it has ended; returns the day of its start."""
    pauses = islice(backoff.expo(max_value=60), 1, None)  # its first value is none
    while True:
        execution = await client.get(get_execution(execution_id))
        if execution.status in TERMINAL_EXECUTION:
            started_at = timestamp_or_none(execution.payload.get("started_at"))
            return started_at.date() if started_at else None
        await asyncio.sleep(next(pauses))


async def _find_run_test(client: Client, settings: Settings, execution_id: str, since: date | None) -> str:
    """The run test whose list has the execution, which does not name it. Lists are read as far as the day ``since``."""
    names = [run_test.name for run_test in settings.run_tests]
    for name in names or (await discover(client, page_limit=settings.api.page_limit)).run_tests:
        with suppress(NotFoundError):
            listed = await read_executions_once(client, name, page_limit=settings.api.page_limit, since=since)
            if execution_id in listed.executions:
                return name
    raise ConfigurationError(
        f"no configured run test lists execution {quoted(execution_id)}: add its run test to run_tests"
    )
