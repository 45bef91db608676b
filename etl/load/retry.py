"""Retry a load while its warehouse restarts, has no free connection, or is changed by somebody else."""

import math
from collections.abc import Callable
from itertools import islice
from time import monotonic, sleep
from typing import TypeVar

import backoff

from etl.errors import WarehouseUnavailableError

T = TypeVar("T")

RETRY_SECONDS = 120
"""How long after the first failure a last try may begin."""
_PAUSE_MAX_SECONDS = 10
_WAIT_SECONDS = 0.2
"""How often ``on_wait`` is called between two tries."""


def until_it_passes(work: Callable[[], T], on_wait: Callable[[], None], on_retry: Callable[[str], None]) -> T:
    """The result of the work, which is repeated while it raises WarehouseUnavailableError.

    Args:
        work: What is done, from the beginning at each try.
        on_wait: Called several times a second between two tries. An exception that it raises ends the wait.
        on_retry: Called after a failure that is not the last one, with its message.

    Raises:
        WarehouseUnavailableError: it did not pass within ``RETRY_SECONDS``.
    """
    pauses = islice(backoff.expo(max_value=_PAUSE_MAX_SECONDS), 1, None)  # its first value is none
    ends_at = math.inf
    while True:
        try:
            return work()
        except WarehouseUnavailableError as error:
            failed_at = monotonic()
            ends_at = min(ends_at, failed_at + RETRY_SECONDS)
            if failed_at >= ends_at:
                raise
            on_retry(str(error))
        goes_on_at = failed_at + backoff.full_jitter(next(pauses))
        while monotonic() < goes_on_at:
            on_wait()
            sleep(_WAIT_SECONDS)
