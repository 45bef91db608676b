"""Every error that the exporter raises on purpose, grouped by what its reader does next.

Each message says what happened, where, and the fix. None ever holds a key, a header or more of a body than a short excerpt.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """Every code that the command exits with; the README says what to do about each."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """A code and what it means."""
        code = int.__new__(cls, value)
        code._value_, code.meaning = value, meaning
        return code

    COMPLETE = 0, "complete"
    BUG = 1, "bug in metrics-etl"
    CONFIGURATION = 2, "wrong option or setting"
    PARTIAL = 3, "partial (something is missing or wrong)"
    KEY_REFUSED = 4, "key refused by the API"
    SOURCE_UNAVAILABLE = 5, "API unavailable"
    DESTINATION_FAILED = 6, "dataset or warehouse cannot be read or written"
    REGRESSION = 10, "compare found a regression"
    LOCK_HELD = 75, "another export is running"
    SIGINT = 130, "interrupted (Ctrl-C or SIGINT)"
    SIGTERM = 143, "interrupted (SIGTERM)"


class ExporterError(Exception):
    """Base class of all errors that are raised on purpose. The command exits with ``exit_code``."""

    exit_code: ExitCode = ExitCode.BUG


class ConfigurationError(ExporterError):
    """A setting or an argument is missing, unknown or invalid: fix what the message names."""

    exit_code = ExitCode.CONFIGURATION


class KeyRefusedError(ExporterError):
    """The API itself refused the key (401 or 403): replace the key. Never retried."""

    exit_code = ExitCode.KEY_REFUSED


class SourceError(ExporterError):
    """The API did not give what was asked for.

    ``status`` is the HTTP status (0 when there was no answer), ``excerpt`` at most 200 characters of the body, ``tries`` the
    number of the try that ended in this error.
    """

    exit_code = ExitCode.PARTIAL

    def __init__(self, message: str, *, status: int = 0, excerpt: str = "", tries: int = 1) -> None:
        super().__init__(message)
        self.status = status
        self.excerpt = excerpt
        self.tries = tries


class NotFoundError(SourceError):
    """The API answered 404 with JSON, or in its words: the run test, execution or call does not exist (any more)."""


class RequestRefusedError(SourceError):
    """The API refused the request itself (400, 405, 406, a redirect, an HTML 401, 403 or 404): retrying cannot help."""


class TransientError(SourceError):
    """A failure that a retry may fix: connection errors, timeouts, cut or foreign bodies, 429, 5xx."""


class UnexpectedAnswerError(TransientError):
    """The API answered, but not as it documents: it is there, and a retry may fix it."""


class ServerFaultError(TransientError):
    """The API answered 500: a fault, a bad row on the page, or a page past the last one.

    ``is_final`` says that the client does not retry it: the code that reads the list finds out which of the three it is.
    """

    def __init__(self, message: str, *, excerpt: str = "", tries: int = 1, is_final: bool = False) -> None:
        super().__init__(message, status=500, excerpt=excerpt, tries=tries)
        self.is_final = is_final


class SourceUnavailableError(ExporterError):
    """The API fails, or accepts no requests for now: try again later."""

    exit_code = ExitCode.SOURCE_UNAVAILABLE


class DestinationError(ExporterError):
    """The dataset or the warehouse cannot be read or written."""

    exit_code = ExitCode.DESTINATION_FAILED


class FileMissingError(DestinationError):
    """A file of the dataset is missing."""


class ForeignFileError(DestinationError):
    """In place of a file of the dataset is one that the exporter never wrote: it is too large."""


class SchemaError(ExporterError):
    """Rows contradict the declared tables: a bug here, never bad input."""


class LockHeldError(ExporterError):
    """Another export is running on this dataset; nothing was changed."""

    exit_code = ExitCode.LOCK_HELD


class InterruptedRunError(ExporterError):
    """A signal stopped the run; what is committed stays."""

    def __init__(self, message: str, *, exit_code: ExitCode = ExitCode.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TimeLimitError(ExporterError):
    """The run reached its time limit; what is committed stays, and the next run continues."""

    exit_code = ExitCode.PARTIAL


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors themselves, taken out of their groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
