"""The only outgoing socket: one wire, one gate, one place that retries.

Keys travel in two headers of its requests and nowhere else: redirects are not followed, proxies and netrc are not consulted,
and errors of the HTTP library are replaced, since their representations hold the request's headers.
"""

import asyncio
import ssl
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import backoff
from aiohttp.http import HttpProcessingError

from etl.errors import (
    ConfigurationError,
    NotFoundError,
    RequestRefusedError,
    SourceError,
    SourceUnavailableError,
    TransientError,
)
from etl.extract.endpoints import Request, decode, raise_for_status, retry_after_seconds
from etl.extract.quota import Quota
from etl.extract.redact import eraser
from etl.extract.watch import Watch, Watched
from etl.extract.wire import Wire

T = TypeVar("T")

_BACKOFF_MAX_SECONDS = 30.0
_sleep = asyncio.sleep
_GIVEN_UP_LIMIT = 25
_NEVER_ANSWERED_LIMIT = 100
_FEWEST_GROUPS = 3
_TOLD_HOLD_SECONDS = 5.0
_SLOW_ANSWER_SECONDS = 0.01
"""When answers are slower, time is lost waiting: whoever gets the place sends before the answer is looked at. When they are faster,
it is lost computing, and to change between requests costs a tenth of it."""
_SHORTEST_SECRET = 16  # a shorter key may be an ordinary word, which no data must lose


@dataclass(slots=True)
class Traffic:
    """What was sent and received so far; ``redactions`` counts answers in which a key stood that was taken out.

    ``held_until`` is the time of the loop's clock before which the rate limit lets nothing more through.
    """

    requests: int = 0
    retries: int = 0
    rejections: int = 0
    received_bytes: int = 0
    redactions: int = 0
    held_until: float = 0.0


@dataclass(slots=True)
class _Record:
    """How requests of one kind fared: how many were given up since one was answered, of which groups, and which that was."""

    given_up_in_a_row: int = 0
    given_up_groups: set[str] = field(default_factory=set)
    answered_last: Request[Any] | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and the keys to it. ``repr`` shows neither key."""

    base_url: str
    api_key: Callable[[], str]
    secret_key: Callable[[], str]
    ca_file: str | None = None


class Client:
    """A session with the API: ``async with Client(…) as client: await client.get(request)``.

    At most ``concurrency`` requests are under way; a request that waits for its next try is not. ``on_hold`` is told for how
    many seconds nothing will be sent, when that is long and something waits to be sent. Belongs to the event loop in which it is
    made.
    """

    def __init__(
        self,
        access: Access,
        *,
        version: str,
        concurrency: int = 32,
        quota: Quota | None = None,
        connect_timeout_seconds: float = 10.0,
        read_timeout_seconds: float = 60.0,
        max_tries: int = 6,
        max_response_bytes: int = 256 << 20,
        on_hold: Callable[[float], None] | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.quota = quota or Quota()
        self._access = access
        self._max_response_bytes = max_response_bytes
        self._on_hold = on_hold
        keys = (access.api_key(), access.secret_key())
        self._without_keys = eraser(keys)
        self._without_secrets = eraser(key for key in keys if len(key) >= _SHORTEST_SECRET)
        self._slots = asyncio.Semaphore(concurrency)
        self._turn = asyncio.Lock()
        self._user_agent = f"simulation-metrics-etl/{version}"
        self._connect_timeout_seconds = connect_timeout_seconds
        self._watch = Watch(
            silence_seconds=read_timeout_seconds, total_seconds=connect_timeout_seconds + 5 * read_timeout_seconds
        )
        self._watching: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._records: defaultdict[tuple[str, str], _Record] = defaultdict(_Record)
        self._answered_last: Request[Any] | None = None
        self._wire: Wire | None = None
        self._try_again = backoff.on_exception(
            backoff.expo,
            TransientError,
            max_tries=max_tries,
            max_value=_BACKOFF_MAX_SECONDS,
            giveup=lambda error: error.is_final,
            on_backoff=self._count_retry,
            on_giveup=_tell_tries,
            logger=None,
        )(self._try)

    async def __aenter__(self) -> Self:
        tls = None
        if self._access.ca_file:
            try:
                tls = ssl.create_default_context(cafile=self._access.ca_file)
            except OSError as exc:
                raise ConfigurationError(f"[api] ca_file: {self._access.ca_file}: {exc.strerror}") from None
        self._wire = Wire(
            self._access.base_url,
            {
                "X-Api-Key": self._access.api_key(),
                "X-Secret-Key": self._access.secret_key(),
                "Accept": "application/json",
                "User-Agent": self._user_agent,
            },
            connect_timeout_seconds=self._connect_timeout_seconds,
            tls=tls,
        )
        self._watching = asyncio.create_task(self._watch.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching:
            self._watching.cancel()
        if self._wire:
            await self._wire.close()

    async def get(self, request: Request[T]) -> T:
        """The decoded answer, after as many tries as it takes and is allowed.

        Raises:
            KeyRefusedError: 401 or 403.
            NotFoundError: the subject does not exist (any more).
            RequestRefusedError: another answer that asking again cannot mend.
            TransientError: the last of ``max_tries`` failed as well.
            SourceUnavailableError: many requests of this kind in a row were given up, and not because of what they asked for.
        """
        record = self._records[_kind(request)]
        try:
            value = await self._get(request)
        except NotFoundError:
            self._note_answered(request, record)
            raise
        except SourceError as error:
            if isinstance(error, TransientError) and error.is_final:
                raise
            record.given_up_in_a_row += 1
            record.given_up_groups.add(request.group or request.target)
            if record.given_up_in_a_row % _GIVEN_UP_LIMIT == 0 and await self._is_down(record):
                raise SourceUnavailableError(
                    f"the API at {self._access.base_url} fails whatever is asked of {request.path}, last: {error}"
                ) from None
            raise
        self._note_answered(request, record)
        return value

    def _note_answered(self, request: Request[Any], record: _Record) -> None:
        record.given_up_in_a_row = 0
        record.given_up_groups.clear()
        if request.retries_500:  # else it may be a page that has vanished when it is asked for again
            record.answered_last = self._answered_last = request

    async def _is_down(self, record: _Record) -> bool:
        """Whether what was answered before fails by now, too: else it is some subjects that fail for ever.

        Where no request of this kind ever was answered, one of another kind must do, and proves less: so many subjects of several
        groups are not all poisoned.
        """
        is_general = len(record.given_up_groups) >= _FEWEST_GROUPS
        if record.answered_last is None and record.given_up_in_a_row >= _NEVER_ANSWERED_LIMIT and is_general:
            return True
        probe = record.answered_last or self._answered_last
        if probe is None:
            return True
        try:
            await self._get(probe)
        except NotFoundError:
            return False
        except SourceError:
            return True
        return False

    async def _get(self, request: Request[T]) -> T:
        """The first try stands outside of ``backoff``, whose preparations cost more than all else here."""
        try:
            return await self._get_once(request)
        except TransientError as error:
            first = [error]
        value: T = await self._try_again(request, first)
        return value

    async def _try(self, request: Request[T], failed: list[TransientError]) -> T:
        if failed:
            raise failed.pop()
        return await self._get_once(request)

    async def _get_once(self, request: Request[T]) -> T:
        async with self._slots:
            # Nearly every request may go out at once: a lock and a coroutine for nothing would cost it a twentieth more.
            if self._turn.locked() or self.quota.wait_seconds(self._now()) > 0:
                await self._wait_for_quota()
            self.quota.sent()
            sent_at = self._now()
            status, headers, body = await self._send(request)
        now = self._now()
        if status == 200:
            if now - sent_at > _SLOW_ANSWER_SECONDS:
                await asyncio.sleep(0)
            data = self._without_secrets(body)
            self.traffic.redactions += data != body
            with suppress(TransientError):
                return decode(request, data)
            # Out here: inside, the first error and its excerpt would stay attached as the context of this one.
            return decode(request, self._without_keys(body))
        retry_after = retry_after_seconds(headers, body)
        if status == 429:
            self.traffic.rejections += 1
            self.quota.refused(now, retry_after)
        elif status == 503 and retry_after is not None:
            self.quota.hold(now, retry_after)
        try:
            raise_for_status(request, status, self._without_keys(body))
        except TransientError as error:
            error.is_final = status == 500 and not request.retries_500
            raise

    async def _wait_for_quota(self) -> None:
        async with self._turn:
            # Only time passing, or an answer that may come at any moment, lets more through: asking again is the plain way.
            while (seconds := self.quota.wait_seconds(self._now())) > 0:
                self.traffic.held_until = self._now() + seconds
                if self._on_hold and seconds >= _TOLD_HOLD_SECONDS:
                    self._on_hold(seconds)
                await _sleep(seconds)

    async def _send(self, request: Request[Any]) -> tuple[int, Mapping[str, str], bytes]:
        wire, task = self._wire, asyncio.current_task(self._loop)
        if wire is None or task is None:
            raise RuntimeError("the client is used outside its session, or outside a task")
        self.traffic.requests += 1
        headers: Mapping[str, str] = {}

        async def read(
            status: int, received: Mapping[str, str], content: aiohttp.StreamReader
        ) -> tuple[int, Mapping[str, str], bytes]:
            nonlocal headers
            headers = received
            return status, headers, await self._body(request, status, content, watched)

        try:
            with self._watch.over(task, self._now()) as watched:
                return await wire.get(request.target, read)
        except aiohttp.ClientSSLError as exc:
            failure: Exception = RequestRefusedError(
                f"{request.subject}: TLS failed at {wire.host}: {type(exc).__name__}; see [api] ca_file"
            )
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError) as exc:
            failure = TransientError(f"{request.subject}: no whole answer from {wire.host}: {_reason(exc)}")
        except SourceError:
            raise
        except Exception as exc:  # noqa: BLE001 a bug somewhere below, and its text may hold the headers, too
            place = traceback.extract_tb(exc.__traceback__)[-1]
            failure = RuntimeError(f"{request.subject}: {type(exc).__name__} at {place.filename}:{place.lineno}")
        finally:
            self.quota.answered(self._now(), headers)
        # Raised out here: inside, the library's error would stay attached as its context.
        raise failure

    async def _body(self, request: Request[Any], status: int, content: aiohttp.StreamReader, watched: Watched) -> bytes:
        """The decoded body, never more of it in memory than allowed."""
        chunks = []
        size_bytes = 0
        while not content.at_eof():
            chunk = await content.readany()
            watched.progress_at = self._now()
            size_bytes += len(chunk)
            if size_bytes > self._max_response_bytes:
                raise RequestRefusedError(
                    f"{request.subject}: the answer exceeds {self._max_response_bytes >> 20} MiB; see [api] max_response_mb",
                    status=status,
                )
            chunks.append(chunk)
        self.traffic.received_bytes += size_bytes
        return b"".join(chunks)

    def _count_retry(self, _details: Any) -> None:
        self.traffic.retries += 1


def _kind(request: Request[Any]) -> tuple[str, str]:
    """What fails and recovers together: the endpoint, and what it is asked by."""
    return request.path, request.query[0][0]


def _tell_tries(details: Any) -> None:
    details["exception"].tries = details["tries"]


def _reason(exc: BaseException) -> str:
    """What happened, in the library's class names: its messages may hold headers."""
    if isinstance(exc, TimeoutError):
        return "timeout"
    cause = exc.__cause__ or exc
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else type(exc).__name__
