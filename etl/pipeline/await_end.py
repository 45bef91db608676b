"""Wait until an execution has ended at the source, and find the run test that lists it. Writes nothing."""

import asyncio
from contextlib import suppress
from datetime import timedelta
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
        KeyRefusedError, SourceUnavailableError: the API cannot be asked.
        TimeLimitError: it has not ended within so many seconds.
    """
    limit, pauses = settings.api.page_limit, islice(backoff.expo(max_value=60), 1, None)  # its first value is none
    try:
        async with asyncio.timeout(seconds), Client(settings) as client:
            while (found := await client.get(get_execution(execution_id))).status not in TERMINAL_EXECUTION:  # noqa: ASYNC110
                await asyncio.sleep(next(pauses))
            # It does not name its run test, so the lists are read, newest first, as far as its day.
            started_at = timestamp_or_none(found.payload.get("started_at"))
            since = started_at.date() if started_at else None
            names = [each.name for each in settings.run_tests] or (await discover(client, page_limit=limit)).run_tests
            for name in names:
                with suppress(NotFoundError):
                    listed = await read_executions_once(client, name, page_limit=limit, since=since)
                    if execution_id in listed.executions:
                        return name
    except TimeoutError:
        raise TimeLimitError(
            f"execution {quoted(execution_id)} had not ended after {timedelta(seconds=seconds)} (--timeout): not compared"
        ) from None
    except SourceError as error:
        if not (isinstance(error, NotFoundError) or error.status == 400):  # 400: it is no UUID
            raise SourceUnavailableError(f"cannot wait for the execution: {error}") from None
        raise ConfigurationError(
            f"the API has no execution {quoted(execution_id)}: check the id, and the key's workspace"
        ) from None
    raise ConfigurationError(
        f"no configured run test lists execution {quoted(execution_id)}: add its run test to run_tests"
    )
