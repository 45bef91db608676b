"""Every error that the exporter raises on purpose, and the exit code that each of them means.

The classes are grouped by what the reader of the message does next. Each message says what happened, where, and the
fix. None ever holds a key, a header, or more of a body than a short excerpt.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """Every code that the command exits with; docs/failed-night.md says what to do about each."""

    meaning: str
    """What the code says, in the few words of the reference."""
    outcome: str
    """The code of a run as a word, in ``last_run.json`` and the ``runs`` table; empty if no run is recorded with it."""

    def __new__(cls, value: int, meaning: str, outcome: str = "") -> Self:
        """Make a member that is the number of its code and carries its meaning and its outcome."""
        code = int.__new__(cls, value)
        code._value_, code.meaning, code.outcome = value, meaning, outcome
        return code

    COMPLETE = 0, "complete", "complete"
    BUG = 1, "bug in metrics-etl", "error"
    CONFIGURATION = 2, "wrong option or setting", "configuration"
    PARTIAL = 3, "partial (something is missing or wrong)", "partial"
    KEY_REFUSED = 4, "key refused by the API", "refused"
    SOURCE_UNAVAILABLE = 5, "API unavailable", "unavailable"
    DESTINATION_FAILED = 6, "dataset or warehouse cannot be read or written", "destination"
    REGRESSION = 10, "compare found a regression"
    LOCK_HELD = 75, "another export is running"
    SIGINT = 130, "interrupted (Ctrl-C or SIGINT)", "interrupted"
    SIGTERM = 143, "interrupted (SIGTERM)", "interrupted"


class ExporterError(Exception):
    """Base class of all errors that are raised on purpose."""

    exit_code: ExitCode = ExitCode.BUG
    """The code that the command exits with if this error ends it; a bug unless the kind of error says otherwise."""


class ConfigurationError(ExporterError):
    """A setting or an argument is missing, unknown or invalid: fix what the message names."""

    exit_code = ExitCode.CONFIGURATION


class KeyRefusedError(ExporterError):
    """The API itself refused the key (401 or 403): replace the key.

    The client retries the first refusal of a request if the API has answered another one before, since that refusal may
    come from something on the way to the API. A refusal before the first answer, and a second one, is final.
    """

    exit_code = ExitCode.KEY_REFUSED


class SourceError(ExporterError):
    """The API did not give what was asked for. The run goes on, and the request may become a dead letter."""

    exit_code = ExitCode.PARTIAL

    def __init__(self, message: str, *, status: int = 0, excerpt: str = "", tries: int = 1) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the answer; 0 if there was none."""
        self.excerpt = excerpt
        """At most 200 characters of the body."""
        self.tries = tries
        """Number of the try that ended in this error, from 1."""


class NotFoundError(SourceError):
    """The run test, execution or call does not exist, or no longer does. Never retried.

    Only the API itself can say so: by a 404 with a JSON error, or by a 500 whose message says it.
    """


class RequestRefusedError(SourceError):
    """The request itself cannot succeed: what would help is a setting or a version, not a retry.

    The API refused it (400, 405, 406), something else answered in its place (a redirect; a page of HTML with 401, 403
    or 404), TLS failed, or the answer is too large. The client retries the first such refusal of a request if the API
    has answered another one before, as for ``KeyRefusedError``.
    """


class TransientError(SourceError):
    """A failure that a retry may fix: a connection error, a timeout, a body that is cut or foreign, 408, 429 or 5xx.

    The client raises it after its last try.
    """


class UnexpectedAnswerError(TransientError):
    """The API answered 200, but with another document than it documents. So it is up, and a retry may fix it."""


class ServerFaultError(TransientError):
    """The API answered 500: it has a fault, or a bad row on the page, or no page of that number."""

    def __init__(self, message: str, *, excerpt: str = "", tries: int = 1, is_final: bool = False) -> None:
        super().__init__(message, status=500, excerpt=excerpt, tries=tries)
        self.is_final = is_final
        """Whether the client leaves it at one try: the code that reads the list finds out which of the three it is."""


class SourceUnavailableError(ExporterError):
    """The API fails every request, or accepts none for hours: try again later. What is committed stays."""

    exit_code = ExitCode.SOURCE_UNAVAILABLE


class DestinationError(ExporterError):
    """The dataset or the warehouse cannot be read or written: fix what the message names."""

    exit_code = ExitCode.DESTINATION_FAILED


class WarehouseUnavailableError(DestinationError):
    """The warehouse takes no load at this moment: it restarts, has no free connection, or somebody else was faster.

    That passes by itself, so a load is retried for a while before it fails with this error.
    """


class FileMissingError(DestinationError):
    """There is no file, or object in the bucket, at this path of the dataset."""


class ForeignFileError(DestinationError):
    """The file at this path of the dataset is not the exporter's: it is larger than any that the exporter writes."""


class SchemaError(ExporterError):
    """Rows contradict the declared tables: a bug of the exporter, never bad input. Please report it."""


class LockHeldError(ExporterError):
    """Another export is running on this dataset; nothing was changed. Wait until it has ended."""

    exit_code = ExitCode.LOCK_HELD


class InterruptedRunError(ExporterError):
    """A signal stopped the run; what is committed stays, and the next run continues."""

    def __init__(self, message: str, *, exit_code: ExitCode = ExitCode.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TimeLimitError(ExporterError):
    """The run reached its time limit; what is committed stays, and the next run continues."""

    exit_code = ExitCode.PARTIAL


def needs_extra(what: str, extra: str, missing: ImportError) -> ConfigurationError:
    """The error to raise where a package of the extra is not installed; its message ends with how to add it.

    ``what`` names the feature in the message, ``missing`` is the failed import.
    """
    return ConfigurationError(
        f'{what} needs the extra "{extra}", because {missing.name} is not installed. '
        f"In a checkout, run make install EXTRAS={extra}; elsewhere, install 'simulation-metrics-etl[{extra}]'"
    )


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, and in the groups within it; an error that is no group is its own only leaf."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
