"""Wait until an execution has ended at the source, and learn to which run test it belongs. Writes nothing."""

import asyncio
from datetime import timedelta
from itertools import islice

import backoff

from etl.errors import ConfigurationError, NotFoundError, SourceError, SourceUnavailableError, TimeLimitError
from etl.extract.client import Client
from etl.extract.endpoints import get_execution
from etl.extract.executions import run_test_of
from etl.model.lifecycle import TERMINAL_EXECUTION
from etl.model.wording import quoted
from etl.settings import Settings


async def await_end(settings: Settings, execution_id: str, *, seconds: float) -> str:
    """The name of the run test of the execution, once that has ended.

    Raises:
        ConfigurationError: there is no such execution, or the settings lack its run test.
        KeyRefusedError, SourceUnavailableError: the API refuses the key, or is unavailable.
        TimeLimitError: it has not ended within so many seconds.
    """
    execution = f"execution {quoted(execution_id)}"
    try:
        async with asyncio.timeout(seconds), Client(settings) as client:
            await _wait_for_end(client, execution_id)
            name = await run_test_of(client, execution_id, is_optional=False)
    except TimeoutError:
        limit = timedelta(seconds=seconds)
        raise TimeLimitError(f"{execution} had not ended after {limit}. Raise --timeout, or compare later") from None
    except SourceError as error:
        if not (isinstance(error, NotFoundError) or error.status == 400):  # 400: the id is no UUID
            raise SourceUnavailableError(f"cannot wait for the execution: {error}") from None
        raise ConfigurationError(f"the API has no {execution}. Check the id and the key's workspace") from None
    if settings.run_tests and name not in {run_test.name for run_test in settings.run_tests}:
        raise ConfigurationError(f"{execution} belongs to run test {quoted(name)}. Add that name to run_tests")
    return name


async def _wait_for_end(client: Client, execution_id: str) -> None:
    """Request the execution, with pauses that grow to a minute, until it has ended."""
    for pause in islice(backoff.expo(max_value=60), 1, None):  # its first value is none
        if (await client.get(get_execution(execution_id))).status in TERMINAL_EXECUTION:
            return
        await asyncio.sleep(pause)
