"""The client of the API: one quota, one place that retries, one count of what was sent.

What a try is: the quota lets it through, the transport sends it, and the answer becomes a value or the error that says what to do
next. No error holds a key: keys are taken out of all that the server sent.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self, TypeVar

import backoff

from etl.errors import (
    ConfigurationError,
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    SourceError,
    SourceUnavailableError,
    TransientError,
)
from etl.extract.answers import decode, error_of, retry_after_seconds
from etl.extract.endpoints import Request
from etl.extract.gate import Gate
from etl.extract.listing import LargestPage
from etl.extract.quota import WINDOW_SECONDS, Quota
from etl.extract.redact import eraser
from etl.extract.transport import Answer, NoAnswerError, Traffic, Transport
from etl.settings import Settings
from etl.version import __version__

T = TypeVar("T")

_BACKOFF_MAX_SECONDS = 30.0
_REFUSALS_OF_A_TRY = 5
_OPTIONAL_TRIES = 2
_BUSY = (429, 503)
_GIVEN_UP_LIMIT = 25
_NEVER_ANSWERED_LIMIT = 100
_FEWEST_GROUPS = 3
_SECONDS_A_ROW = 0.0024  # of a page of executions: twice what a server that is not busy takes
_SHORTEST_SECRET = 16  # a shorter key may be an ordinary word, which no data must lose


@dataclass(slots=True)
class _Record:
    """Requests of one kind: how many failed since one was answered, their groups, and the one that was answered last."""

    given_up_in_a_row: int = 0
    given_up_groups: set[str] = field(default_factory=set)
    answered_last: Request[Any] | None = None


class Client:
    """A session with the API: ``async with Client(settings) as client: await client.get(request)``.

    At most ``concurrency`` requests are under way; one that waits for a retry does not count. ``on_hold`` is told for how many
    seconds nothing will be sent, when that is long and something waits to be sent. A ``quota`` that was used before goes on, in
    place of one by the settings. Belongs to the event loop in which it is made.
    """

    def __init__(
        self, settings: Settings, *, quota: Quota | None = None, on_hold: Callable[[float], None] | None = None
    ) -> None:
        api, keys = settings.api, _keys_of(settings)
        self.traffic = Traffic()
        self.quota = quota or Quota(requests_per_minute=api.requests_per_minute, share=api.quota_share)
        self.gate = Gate(self.quota, self.traffic, on_hold)
        self.largest_page = LargestPage()
        self.largest_page.shrink(int(api.read_timeout_seconds / _SECONDS_A_ROW))
        self.lacks_details = self._knows_details = False
        self._first_detail = asyncio.Lock()
        self._settings = settings
        self._without_keys = eraser(keys)
        self._without_secrets = eraser(key for key in keys if len(key) >= _SHORTEST_SECRET)
        self._slots = asyncio.Semaphore(api.concurrency)
        self._now = asyncio.get_running_loop().time
        self._records: defaultdict[tuple[str, str], _Record] = defaultdict(_Record)
        self._answered_last: Request[Any] | None = None
        self._transport: Transport

    async def __aenter__(self) -> Self:
        api_key, secret_key = _keys_of(self._settings)
        headers = {"X-Api-Key": api_key, "X-Secret-Key": secret_key, "Accept": "application/json"}
        headers["User-Agent"] = f"simulation-metrics-etl/{__version__}"
        self._transport = Transport(self._settings, headers)
        return self

    async def __aexit__(self, *_: object) -> None:
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
        # What fails and recovers together: the endpoint, and what it is asked by.
        record = self._records[request.path, request.query[0][0]]
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
                    f"the API at {self._settings.api.base_url} fails every request to {request.path}; the last error: {error}"
                ) from None
            raise
        self._note_answered(request, record)
        return value

    async def get_detail(self, request: Request[T]) -> T:
        """As ``get``, for a list that not every API has: others wait for the first answer, and nothing is sent if it has none."""
        if not self._knows_details:
            async with self._first_detail:
                if not self._knows_details:
                    try:
                        return await self.get(request)
                    except RequestRefusedError as error:
                        if error.status != 404:
                            raise
                        self.lacks_details = True
                    finally:
                        self._knows_details = True
        if self.lacks_details:
            raise RequestRefusedError("the API has no details of executions (404)", status=404)
        return await self.get(request)

    def _note_answered(self, request: Request[Any], record: _Record) -> None:
        self.gate.let_through()
        record.given_up_in_a_row = 0
        record.given_up_groups.clear()
        # A page may have vanished when it is asked for again, and what is optional may fail for reasons of its own.
        if request.retries_500 and not request.is_optional:
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
        """The decoded answer. The one place that retries: after each failure it waits, longer each time."""
        # Not by ``backoff.on_exception``, which costs a quarter of the client's processor time where nothing fails.
        waits = islice(backoff.expo(max_value=_BACKOFF_MAX_SECONDS), 1, None)  # its first value is no wait
        failure: SourceError | KeyRefusedError
        number, refusals = 0, 0
        most = self._settings.api.max_tries
        most = min(most, _OPTIONAL_TRIES) if request.is_optional else most
        while True:
            number += 1
            try:
                return await self._send_and_read(request, number)
            except TransientError as error:
                is_spared = request.is_optional and error.status in _BUSY
                failure, may_pass = error, not (is_spared or _is_final(error))
            except (KeyRefusedError, RequestRefusedError) as error:
                # One refusal among many answers may be a mishap, or another's: what is on the way to the API.
                refusals += 1
                failure, may_pass = error, refusals == 1 and self._answered_last is not None
            if number >= most or not may_pass:
                raise failure
            self.traffic.retries += 1
            await asyncio.sleep(backoff.full_jitter(next(waits)))

    async def _send_and_read(self, request: Request[T], tries: int) -> T:
        async with self._slots:
            answer = await self._send_until_let_through(request, tries)
        if answer.status == 200:
            return self._decoded(request, answer.body, tries)
        raise error_of(request, answer.status, self._without_keys(answer.body), tries=tries)

    async def _send_until_let_through(self, request: Request[Any], tries: int) -> Answer:
        """The answer. A request that the rate limit refuses keeps its place until it may be sent again, a few times.

        Else chance could refuse the same one at each try.
        """
        for refusals_left in reversed(range(_REFUSALS_OF_A_TRY + 1)):
            await self.gate.wait()
            self.quota.sent()
            answer = await self._send(request, tries)
            if answer.status != 200:
                self._heed(request, answer)
            if answer.status != 429 or self.quota.wait_seconds(self._now()) <= 0 or not refusals_left:
                break
            self.traffic.retries += 1
        return answer

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

    async def _send(self, request: Request[Any], tries: int) -> Answer:
        self.traffic.requests_by_purpose[request.purpose] += 1
        headers: Mapping[str, str] = {}
        try:
            answer = await self._transport.get(request.target)
            headers = answer.headers
        except NoAnswerError as error:
            kind = RequestRefusedError if error.is_final else TransientError
            raise kind(f"{request.subject}: {error}", status=error.status, tries=tries) from None
        finally:
            self.quota.answered(self._now(), headers)
        self.traffic.received(answer)
        return answer


def _keys_of(settings: Settings) -> tuple[str, str]:
    if settings.api_key is None or settings.secret_key is None:
        raise ConfigurationError("the settings hold no keys: load them with needs_keys=True")
    return settings.api_key.get_secret_value(), settings.secret_key.get_secret_value()


def _is_final(error: Exception) -> bool:
    return isinstance(error, ServerFaultError) and error.is_final
