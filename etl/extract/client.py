"""The client of the API: sends a request until it is answered or given up, and counts all that it sends (law 10).

Who owns what:

============  ==================================================================================================
tries         ``Client``: which failure is retried, how often, after which pause. Nothing else retries a request.
slots         ``Client``: at most ``[api] concurrency`` requests are under way. A request between two tries has none.
pace          ``Pace``: how many of these may be for whole lists of calls.
windows       ``Quota``: how many requests may be sent now, by what the server reported, refused or is configured.
holds         ``Client`` decides which answer causes one, ``Quota`` keeps its end, ``Gate`` waits for it.
connections   ``Transport``: sockets, timeouts, headers, the proxy. It sends each request once.
meanings      ``answers.py``: whether an answer is a value, or which error it is.
============  ==================================================================================================

A try takes a slot, waits at the gate, is sent, and gives its slot back. Which answer leads to which retry:

=====================================  ====================================================================
answer                                 what happens next
=====================================  ====================================================================
200 with the documented JSON           the decoded value is returned
200 with another body; 408, 421, 425;  retried; a 503 with Retry-After also holds all requests for that long
5xx; no complete answer
500 where ``retries_500`` is off       ``ServerFaultError``: the code that reads the list knows what it means
429                                    all requests are held for as long as it says, or 5 seconds; then it is
                                       sent again within the same try, up to five times; then retried
404, or 500, that says in the API's    ``NotFoundError``
own words that nothing was found
401 and 403 of the API                 ``KeyRefusedError``, but see below
any other 3xx or 4xx, a TLS failure,   ``RequestRefusedError``, but see below
an answer that is too large
=====================================  ====================================================================

*Retried*: until ``[api] max_tries`` tries have failed, after random pauses whose upper limit doubles up to 30 seconds.
If the API has answered anything before, a first refusal is retried, too: a proxy or a firewall on the way may have sent
it. An optional request (``Request.is_optional``) gets at most two tries and is not retried after a 429 or 503. Its 503
holds nobody, and neither does a 429 that asks for more than a minute.

No error holds a key: keys are removed from everything that the server sent before a message quotes it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext, suppress
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
from etl.extract.gate import Gate, OnHold
from etl.extract.listing import LargestPage
from etl.extract.pace import Pace
from etl.extract.quota import WINDOW_SECONDS, Quota
from etl.extract.redact import eraser
from etl.extract.transport import Answer, NoAnswerError, Traffic, Transport
from etl.model.leave_out import emptier
from etl.settings import Settings
from etl.version import __version__

T = TypeVar("T")

_BACKOFF_MAX_SECONDS = 30.0
_REFUSALS_OF_A_TRY = 5
"""How often a request that the rate limit refuses is sent again before its try counts as failed."""
_OPTIONAL_TRIES = 2
_BUSY = (429, 503)
_GIVEN_UP_LIMIT = 25
"""After so many given-up requests of a kind in a row, the client checks whether the source is down."""
_NEVER_ANSWERED_LIMIT = 100
"""After so many, if none of the kind was ever answered and they are of several groups, the source counts as down."""
_FEWEST_GROUPS = 3
_SECONDS_A_ROW = 0.0024  # of a page of executions: twice what a server that is not busy takes
_SHORTEST_SECRET = 16  # a shorter key may be an ordinary word, which no data must lose


@dataclass(slots=True)
class _KindHistory:
    """How the requests of one kind fared: what fails and recovers together."""

    given_up_in_a_row: int = 0
    """How many were given up since one was answered."""
    given_up_groups: set[str] = field(default_factory=set)
    """Their groups (``Request.group``)."""
    answered_last: Request[Any] | None = None
    """The last one that was answered and that must be answered again as long as the source is up."""


class Client:
    """A session with the API: ``async with Client(settings) as client: await client.get(request)``.

    It belongs to the event loop in which it is made.

    Args:
        settings: With both keys.
        quota: One that is used further, in place of a new one made from the settings.
        on_hold: Called with the number of seconds for which nothing will be sent, if that is long and a request waits.

    Raises:
        ConfigurationError: The settings were loaded without the keys.
    """

    def __init__(self, settings: Settings, *, quota: Quota | None = None, on_hold: OnHold | None = None) -> None:
        api = settings.api
        keys = _keys_of(settings)
        self.traffic = Traffic()
        """Everything that was sent and received."""
        self.quota = quota or Quota(requests_per_minute=api.requests_per_minute, share=api.quota_share)
        """How many requests may be sent now."""
        self.gate = Gate(self.quota, self.traffic, on_hold)
        """Where each request waits until the quota lets it through."""
        self.largest_page = LargestPage()
        """The largest page that is requested of any list; at first, one that fits the read timeout."""
        self.largest_page.shrink(int(api.read_timeout_seconds / _SECONDS_A_ROW))
        self.pace = Pace(api.concurrency)
        """How fast whole lists of calls are requested."""
        self._settings = settings
        self._without_keys = eraser(keys)
        self._without_secrets = eraser(key for key in keys if len(key) >= _SHORTEST_SECRET)
        self._empty = emptier(settings.export.leave_out)
        self._slots = asyncio.Semaphore(api.concurrency)
        self._now = asyncio.get_running_loop().time
        self._kinds: defaultdict[tuple[str, str], _KindHistory] = defaultdict(_KindHistory)
        """By the path and the name of the first parameter."""
        self._answered_last: Request[Any] | None = None
        """As ``_KindHistory.answered_last``, of any kind; None before the first answer."""
        self._transport: Transport

    async def __aenter__(self) -> Self:
        api_key, secret_key = _keys_of(self._settings)
        agent = f"simulation-metrics-etl/{__version__}"
        headers = {"X-Api-Key": api_key, "X-Secret-Key": secret_key, "Accept": "application/json", "User-Agent": agent}
        self._transport = Transport(self._settings, headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def get(self, request: Request[T]) -> T:
        """The decoded answer, after as many tries as it takes and is allowed (see the table above).

        Raises:
            ConfigurationError: The proxy refused to connect.
            KeyRefusedError: 401 or 403.
            NotFoundError: The subject does not exist (any more).
            RequestRefusedError: Another answer that a retry cannot fix.
            TransientError: The last of ``max_tries`` failed as well.
            SourceUnavailableError: Many requests of this kind in a row were given up, and not because of what they
                asked for; or the rate limit holds all of them for hours, or beyond the end of the run.
        """
        kind = self._kinds[request.path, request.query[0][0]]
        try:
            value = await self._answer(request)
        except NotFoundError:
            self._note_answered(request, kind)
            raise
        except SourceError as error:
            if _is_final(error) or request.is_optional:
                raise
            kind.given_up_in_a_row += 1
            kind.given_up_groups.add(request.group or request.target)
            if kind.given_up_in_a_row % _GIVEN_UP_LIMIT == 0 and await self._is_down(kind):
                url = self._settings.api.base_url
                raise SourceUnavailableError(
                    f"the API at {url} fails every request to {request.path}. The last error was: {error}"
                ) from None
            raise
        self._note_answered(request, kind)
        return value

    def _note_answered(self, request: Request[Any], kind: _KindHistory) -> None:
        self.gate.note_useful_answer()
        kind.given_up_in_a_row = 0
        kind.given_up_groups.clear()
        # A page may have vanished when it is requested again, and what is optional may fail for reasons of its own.
        if request.retries_500 and not request.is_optional:
            kind.answered_last = self._answered_last = request

    async def _is_down(self, kind: _KindHistory) -> bool:
        """Whether the source is down: a request that it answered before fails now.

        If it is answered again, only some subjects fail, and they may do so forever. Where no request of this kind was
        ever answered, one of another kind is sent, which proves less: then many failed requests of several groups prove
        it, too.
        """
        is_general = len(kind.given_up_groups) >= _FEWEST_GROUPS
        if kind.answered_last is None and kind.given_up_in_a_row >= _NEVER_ANSWERED_LIMIT and is_general:
            return True
        probe = kind.answered_last or self._answered_last
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
        """The decoded answer; the one place that retries, as the table above says."""
        # Not by ``backoff.on_exception``, which costs a quarter of the client's processor time where nothing fails.
        failure: SourceError | KeyRefusedError
        max_tries = self._settings.api.max_tries
        if request.is_optional:
            max_tries = min(max_tries, 1 if request.is_tried_once else _OPTIONAL_TRIES)
        tries = refusals = 0
        while True:
            tries += 1
            try:
                return await self._send_and_read(request, tries)
            except TransientError as error:
                failure = error
                is_spared = request.is_optional and error.status in _BUSY
                is_retried = not (is_spared or _is_final(error))
            except (KeyRefusedError, RequestRefusedError) as error:
                # One refusal among many answers may be a mishap, or come from what is on the way to the API.
                failure = error
                refusals += 1
                is_retried = refusals == 1 and self._answered_last is not None
            if tries >= max_tries or not is_retried:
                raise failure
            self.traffic.retries += 1
            waits = backoff.expo(max_value=_BACKOFF_MAX_SECONDS)  # its first value is no wait
            await asyncio.sleep(backoff.full_jitter(next(islice(waits, tries, None))))

    async def _send_and_read(self, request: Request[T], tries: int) -> T:
        async with self.pace if request.is_of_whole_calls else nullcontext(), self._slots:
            answer = await self._send_until_let_through(request, tries)
        if answer.status == 200:
            return self._decoded(request, answer.body, tries)
        raise error_of(request, answer.status, self._without_keys(answer.body), tries=tries)

    async def _send_until_let_through(self, request: Request[Any], tries: int) -> Answer:
        """The answer. One that the rate limit refuses keeps its slot and is sent again after the hold, a few times.

        A limit by the second lets some of each burst through: otherwise, chance could refuse the same request in each
        try.
        """
        for refusals_left in reversed(range(_REFUSALS_OF_A_TRY + 1)):
            await self.gate.wait()
            self.quota.sent()
            answer = await self._send(request, tries)
            if answer.status != 200:
                self._hold_if_asked(request, answer)
            if answer.status != 429 or self.quota.wait_seconds(self._now()) <= 0 or not refusals_left:
                break
            self.traffic.retries += 1
        return answer

    def _decoded(self, request: Request[T], body: bytes, tries: int) -> T:
        """The decoded value. Long keys are removed from the data, and every key from an error's excerpt.

        What ``[export] leave_out`` names is emptied in the data.
        """
        data = self._without_secrets(body)
        self.traffic.redactions += data != body
        with suppress(TransientError):
            return decode(request, data, tries=tries, empty=self._empty)
        # Outside of the with: else the first error, with its excerpt, would stay attached as the context of this one.
        return decode(request, self._without_keys(body), tries=tries, empty=self._empty)

    def _hold_if_asked(self, request: Request[Any], answer: Answer) -> None:
        """Hold all requests if the answer asks for it: a 429, or a 503 with Retry-After.

        An optional request's 503, or a long wait for it, holds nobody.
        """
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
        self.gate.note_refusal()

    async def _send(self, request: Request[Any], tries: int) -> Answer:
        """Send it once, and count it: the quota, too, is told of each request and of its end."""
        self.traffic.requests_by_purpose[request.purpose] += 1
        self.traffic.call_requests += bool(request.group)
        headers: Mapping[str, str] = {}
        began_at, size_bytes = self._now(), None
        try:
            answer = await self._transport.get(request.target)
            headers, size_bytes = answer.headers, None if answer.status >= 500 else len(answer.body)
        except NoAnswerError as error:
            error_class = RequestRefusedError if error.is_final else TransientError
            raise error_class(f"{request.subject}: {error}", status=error.status, tries=tries) from None
        finally:
            self.quota.answered(self._now(), headers)
            if request.is_of_whole_calls:
                self.pace.note(self._now() - began_at, size_bytes)
        self.traffic.received(answer)
        return answer


def _keys_of(settings: Settings) -> tuple[str, str]:
    if settings.api_key is None or settings.secret_key is None:
        raise ConfigurationError("the settings hold no keys. Load the settings with needs_keys=True")
    return settings.api_key.get_secret_value(), settings.secret_key.get_secret_value()


def _is_final(error: Exception) -> bool:
    return isinstance(error, ServerFaultError) and error.is_final
