"""The client of the API: one quota, one place that retries, one count of what was sent.

What a try is: the quota lets it through, the transport sends it, and the answer becomes a value or the error that says what to do
next. No error holds a key: keys are taken out of all that the server sent.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from types import TracebackType
from typing import Any, Self, TypeVar

import backoff

from etl.errors import (
    ConfigurationError,
    ExporterError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    SourceError,
    SourceUnavailableError,
    TransientError,
)
from etl.extract.answers import decode, raise_for_status, retry_after_seconds
from etl.extract.bodies import AnswerTooLargeError, NoAnswerError
from etl.extract.endpoints import Request
from etl.extract.gate import Gate
from etl.extract.listing import LargestPage
from etl.extract.quota import WINDOW_SECONDS, Quota
from etl.extract.redact import eraser
from etl.extract.transport import Access, Answer, ConnectionLostError, Limits, TlsError, Traffic, Transport

T = TypeVar("T")

_BACKOFF_MAX_SECONDS = 30.0
_REFUSALS_OF_A_TRY = 5
_GIVEN_UP_LIMIT = 25
_NEVER_ANSWERED_LIMIT = 100
_FEWEST_GROUPS = 3
_SHORTEST_SECRET = 16  # a shorter key may be an ordinary word, which no data must lose


@dataclass(slots=True)
class _Record:
    """Requests of one kind: how many failed since one was answered, their groups, and the one that was answered last."""

    given_up_in_a_row: int = 0
    given_up_groups: set[str] = field(default_factory=set)
    answered_last: Request[Any] | None = None


class _ReusedConnectionError(Exception):
    """A connection that was used before ended before the answer began, or brought what may be the answer to an earlier request.

    A server may close a connection at any time: this is no failure to wait for.
    """

    def __init__(self, *, is_answered: bool) -> None:
        super().__init__(is_answered)
        self.is_answered = is_answered


class Client:
    """A session with the API: ``async with Client(…) as client: await client.get(request)``.

    At most ``limits.concurrency`` requests are under way; one that waits for a retry does not count. ``on_hold`` is told for how
    many seconds nothing will be sent, when that is long and something waits to be sent. Belongs to the event loop in which it is
    made.
    """

    def __init__(
        self,
        access: Access,
        *,
        version: str,
        limits: Limits | None = None,
        quota: Quota | None = None,
        on_hold: Callable[[float], None] | None = None,
    ) -> None:
        self.traffic = Traffic()
        self.quota = quota or Quota()
        self._access = access
        self.limits = limits or Limits()
        self._user_agent = f"simulation-metrics-etl/{version}"
        keys = (access.api_key(), access.secret_key())
        self._without_keys = eraser(keys)
        self._without_secrets = eraser(key for key in keys if len(key) >= _SHORTEST_SECRET)
        self._slots = asyncio.Semaphore(self.limits.concurrency)
        self.largest_page = LargestPage()
        self.gate = Gate(self.quota, self.traffic, on_hold)
        self._now = asyncio.get_running_loop().time
        self._records: defaultdict[tuple[str, str], _Record] = defaultdict(_Record)
        self._answered_last: Request[Any] | None = None
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        tls = None
        if self._access.ca_file:
            try:
                tls = ssl.create_default_context(cafile=self._access.ca_file)
            except OSError as exc:
                raise ConfigurationError(f"[api] ca_file: {self._access.ca_file}: {exc.strerror}") from None
        self._transport = Transport(
            self._access.base_url,
            {
                "X-Api-Key": self._access.api_key(),
                "X-Secret-Key": self._access.secret_key(),
                "Accept": "application/json",
                "User-Agent": self._user_agent,
            },
            limits=self.limits,
            tls=tls,
            proxy=self._access.proxy,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport:
            await self._transport.close()

    async def get(self, request: Request[T]) -> T:
        """The decoded answer, after as many tries as it takes and is allowed.

        Raises:
            KeyRefusedError: 401 or 403.
            NotFoundError: the subject does not exist (any more).
            RequestRefusedError: another answer that a retry cannot fix.
            TransientError: the last of ``max_tries`` failed as well.
            SourceUnavailableError: many requests of this kind in a row were given up, and not because of what they asked for; or
                the rate limit holds all of them for hours.
        """
        record = self._records[_kind(request)]
        try:
            value = await self._answer(request)
        except NotFoundError:
            self._note_answered(request, record)
            raise
        except SourceError as error:
            if _is_final(error) or request.is_optional:
                raise
            record.given_up_in_a_row += 1
            record.given_up_groups.add(request.group or request.target)
            if record.given_up_in_a_row % _GIVEN_UP_LIMIT == 0 and await self._is_down(record):
                raise SourceUnavailableError(
                    f"the API at {self._access.base_url} fails every request to {request.path}; the last error: {error}"
                ) from None
            raise
        self._note_answered(request, record)
        return value

    def _note_answered(self, request: Request[Any], record: _Record) -> None:
        self.gate.let_through()
        record.given_up_in_a_row = 0
        record.given_up_groups.clear()
        if request.retries_500:  # else it may be a page that has vanished when it is asked for again
            record.answered_last = self._answered_last = request

    async def _is_down(self, record: _Record) -> bool:
        """Whether a request that was answered before fails now, too: otherwise only some subjects fail, and may do so for ever.

        Where no request of this kind was ever answered, one of another kind is sent, which proves less: then so many failed
        subjects of several groups prove it.
        """
        is_general = len(record.given_up_groups) >= _FEWEST_GROUPS
        if record.answered_last is None and record.given_up_in_a_row >= _NEVER_ANSWERED_LIMIT and is_general:
            return True
        probe = record.answered_last or self._answered_last
        if probe is None:
            return True
        try:
            await self._answer(probe)
        except NotFoundError:
            return False
        except SourceError:
            return True
        return False

    async def _answer(self, request: Request[T]) -> T:
        """The decoded answer. The one place that retries: after each failure it waits, longer each time.

        Only the first try may use a connection that was used before. Nothing but a 200 that names its subject is believed of it: an
        error names nothing, and a late one would end the run, or drop a call that exists. When it fails, the request is sent again
        at once, and always.
        """
        # Not by ``backoff.on_exception``, which costs a quarter of the client's processor time where nothing fails.
        waits = islice(backoff.expo(max_value=_BACKOFF_MAX_SECONDS), 1, None)  # its first value is no wait
        is_answer_to_another = False
        for number in count(1):
            try:
                answer = await self._send_and_read(
                    request, number, on_own_connection=number > 1 or not request.names_subject
                )
                break
            except _ReusedConnectionError as error:
                is_answer_to_another = error.is_answered
                continue
            except TransientError as error:
                failure = error
            if request.is_optional or number >= self.limits.max_tries or _is_final(failure):
                raise failure
            self.traffic.retries += 1
            await asyncio.sleep(backoff.full_jitter(next(waits)))
        if is_answer_to_another:  # each request that follows on that connection would be answered with the last
            self._open_transport.renew()
        return answer

    async def _send_and_read(self, request: Request[T], tries: int, *, on_own_connection: bool) -> T:
        async with self._slots:
            answer, is_reused = await self._send_until_let_through(request, tries, on_own_connection=on_own_connection)
        status, failure = answer.status, None
        try:
            if status == 200:
                return self._decoded(request, answer.body, tries)
            raise_for_status(request, status, self._without_keys(answer.body), tries=tries)
        except ExporterError as error:
            failure = error
        if is_reused and (status == 200 or not isinstance(failure, TransientError)):
            raise _ReusedConnectionError(is_answered=True)
        # A retry keeps the error while it waits: not the body as well, which is in its context and the frames that it came through.
        failure.__context__ = None
        del answer
        raise failure.with_traceback(None)

    async def _send_until_let_through(
        self, request: Request[Any], tries: int, *, on_own_connection: bool
    ) -> tuple[Answer, bool]:
        """The answer, and whether it came on a connection that was used before.

        A request that the rate limit refuses keeps its place until it may be sent again, a few times: else chance could refuse
        the same one at each try.
        """
        refusals_left = _REFUSALS_OF_A_TRY
        while True:
            await self.gate.wait()
            self.quota.sent()
            is_reused = not on_own_connection and self._open_transport.has_kept
            answer = await self._send(request, tries, on_own_connection=on_own_connection)
            if answer.status != 200:
                self._heed(request, answer)
            if answer.status != 429 or self.quota.wait_seconds(self._now()) <= 0 or not refusals_left:
                return answer, is_reused
            del answer  # and its body, which may be large: the wait may be long
            refusals_left -= 1
            self.traffic.retries += 1

    def _decoded(self, request: Request[T], body: bytes, tries: int) -> T:
        data = self._without_secrets(body)
        self.traffic.redactions += data != body
        with suppress(TransientError):
            return decode(request, data, tries=tries)
        # Out here: inside, the first error and its excerpt would stay attached as the context of this one.
        return decode(request, self._without_keys(body), tries=tries)

    def _heed(self, request: Request[Any], answer: Answer) -> None:
        """Hold back for as long as the server says; what a run can do without holds it for no more than a minute."""
        retry_after = retry_after_seconds(answer.headers, answer.body)
        if request.is_optional and (answer.status == 503 or (retry_after or 0) > WINDOW_SECONDS):
            return
        if answer.status == 429:
            self.traffic.rejections += 1
            self.quota.refused(self._now(), retry_after)
        elif answer.status == 503 and retry_after is not None:
            self.quota.hold(self._now(), retry_after)
        else:
            return
        self.gate.refused()

    async def _send(self, request: Request[Any], tries: int, *, on_own_connection: bool) -> Answer:
        self.traffic.requests_by_purpose[request.purpose] += 1
        had_kept = self._open_transport.has_kept
        headers: Mapping[str, str] = {}
        try:
            answer = await self._open_transport.get(request.target, on_own_connection=on_own_connection)
            headers = answer.headers
        except AnswerTooLargeError as error:
            limit = self.limits.max_response_bytes >> 20
            raise RequestRefusedError(
                f"{request.subject}: the answer exceeds {limit} MiB; see [api] max_response_mb",
                status=error.status,
                tries=tries,
            ) from None
        except TlsError as error:
            raise RequestRefusedError(f"{request.subject}: {error}", tries=tries) from None
        except NoAnswerError as error:
            if isinstance(error, ConnectionLostError) and had_kept and not on_own_connection:
                raise _ReusedConnectionError(is_answered=False) from None
            raise TransientError(f"{request.subject}: {error}", tries=tries) from None
        except RuntimeError as bug:
            raise RuntimeError(f"{request.subject}: {bug}") from None
        finally:
            self.quota.answered(self._now(), headers)
        self.traffic.received(answer)
        return answer

    @property
    def _open_transport(self) -> Transport:
        if self._transport is None:
            raise RuntimeError("the client is used outside its session")
        return self._transport


def _kind(request: Request[Any]) -> tuple[str, str]:
    """What fails and recovers together: the endpoint, and what it is asked by."""
    return request.path, request.query[0][0]


def _is_final(error: Exception) -> bool:
    return isinstance(error, ServerFaultError) and error.is_final
