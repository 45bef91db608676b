"""The only outgoing socket: sends one GET, and returns status, headers and the whole body. Never retries.

Owns connections, timeouts, the headers with the keys, TLS and the proxy; and ``Traffic``, the count of what went over
them.

Redirects, cookies, ``~/.netrc`` and the environment's proxies could carry the keys to another host: none of them is
followed, kept or read. Only aiohttp's public API is used.
"""

import ssl
import traceback
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import aiohttp
from yarl import URL

from etl.errors import ConfigurationError
from etl.extract.answers import clock_offset
from etl.extract.endpoints import Purpose, no_requests
from etl.settings import Settings

_READ_TIMEOUTS_OF_A_REQUEST = 5
"""A whole request may take so many read timeouts, once connected: a body that trickles in must end, too."""


@dataclass(slots=True)
class Traffic:
    """What was sent and received so far."""

    requests_by_purpose: dict[Purpose, int] = field(default_factory=no_requests)
    """How many requests were sent, each retry included, by what they were sent for."""
    call_requests: int = 0
    """How many of these were for one call by itself."""
    retries: int = 0
    """How many of these were sent again, after a failure or a refusal by the rate limit."""
    rejections: int = 0
    """How many the rate limit refused (429)."""
    redactions: int = 0
    """How many answers had a key in them, which was removed."""
    held_until: float = 0.0
    """When the rate limit's last hold ends, by the event loop's clock; 0 before the first hold."""
    clock_offset: timedelta | None = None
    """What to add to our time to get the source's; None before the first answer with a time.

    Of all answers the smallest: with a larger one, data would seem older than it is.
    """

    @property
    def requests(self) -> int:
        """How many requests were sent in all, each retry included."""
        return sum(self.requests_by_purpose.values())

    def received(self, answer: "Answer") -> None:
        """Count an answer that arrived just now."""
        offset = clock_offset(answer.headers, datetime.now(UTC))
        if offset is not None:
            self.clock_offset = offset if self.clock_offset is None else min(offset, self.clock_offset)

    def add(self, other: "Traffic") -> None:
        """Add the counts of another machine; not its times, since its clock and its event loop are not ours."""
        for purpose, requests in other.requests_by_purpose.items():
            self.requests_by_purpose[purpose] += requests
        self.call_requests += other.call_requests
        self.retries += other.retries
        self.rejections += other.rejections
        self.redactions += other.redactions


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer of the server."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str]
    """Header names are case-insensitive."""
    body: bytes
    """All of it, decompressed."""


class NoAnswerError(Exception):
    """No whole answer arrived.

    Its text holds no header: aiohttp's own errors, which do, are never passed on.
    """

    def __init__(self, message: str, *, status: int = 0, is_final: bool = False) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status; 0 if none arrived."""
        self.is_final = is_final
        """Whether a retry would end the same way."""


class Transport:
    """Connections to one server, bound to the event loop in which it is made. Call ``close`` when done.

    Args:
        settings: Timeouts, TLS, proxy and the largest body.
        headers: Sent with each request, to the API and to nobody else.

    Raises:
        ConfigurationError: The file of certificates (``[api] ca_file``) cannot be used.
    """

    def __init__(self, settings: Settings, headers: Mapping[str, str]) -> None:
        api = settings.api
        self._base_url = api.base_url
        self._proxy = api.proxy
        self._max_response_mb = api.max_response_mb
        self._host = URL(api.base_url, encoded=True).host
        self._server = f"{self._host} through [api] proxy {api.proxy}" if api.proxy else str(self._host)
        # A cache on the way would give yesterday's answer to some requests, and today's to others.
        self._headers = {**headers, "Cache-Control": "no-cache"}
        self._proxy_headers = _proxy_headers(settings)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_trusting(settings) or True, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=api.connect_timeout_seconds + _READ_TIMEOUTS_OF_A_REQUEST * api.read_timeout_seconds,
                connect=api.connect_timeout_seconds,
                sock_read=api.read_timeout_seconds,
            ),
            trust_env=False,
            middlewares=(self._send,),
        )

    async def get(self, target: str) -> Answer:
        """The answer to a GET of ``target``: path and query, every special character escaped.

        Raises:
            NoAnswerError: None arrived whole.
            ConfigurationError: The proxy refused to connect.
        """
        failure: Exception
        try:
            async with self._session.get(
                URL(self._base_url + target, encoded=True),
                allow_redirects=False,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
            ) as response:
                return Answer(response.status, response.headers, await self._body_of(response))
        except NoAnswerError as error:
            failure = error
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            failure = self._failure(exc)
        except Exception as exc:  # noqa: BLE001 a bug in here or below, and its text may hold the headers
            place = traceback.extract_tb(exc.__traceback__)[-1]
            failure = RuntimeError(f"{type(exc).__name__} at {place.filename}:{place.lineno}")
        # Raised out here: inside, aiohttp's error would stay attached as its context.
        raise failure.with_traceback(None)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _body_of(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        while chunk := await response.content.readany():
            body += chunk
            if len(body) > self._max_response_mb << 20:
                text = f"the answer is larger than {self._max_response_mb} MiB. Raise [api] max_response_mb"
                raise NoAnswerError(text, status=response.status, is_final=True)
        return bytes(body)

    async def _send(self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """An aiohttp middleware: the last stop before a request goes to the API itself.

        It adds the headers here, since aiohttp sends a session's headers to the proxy, too. And it replaces the errors
        after which aiohttp would send the request again by itself, uncounted and past the quota.
        """
        request.headers.update(self._headers)
        try:
            return await send(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
            failure = self._failure(exc)
        raise failure

    def _failure(self, exc: Exception) -> Exception:
        """The error to raise in place of aiohttp's: what happened, where, and which setting to check."""
        if isinstance(exc, aiohttp.ClientSSLError):
            text = f"the TLS connection to {self._server} failed: {type(exc).__name__}. Check base_url and ca_file"
            return NoAnswerError(text, is_final=True)
        if isinstance(exc, aiohttp.ClientHttpProxyError):
            return self._proxy_failure(exc)
        is_proxy_unknown = self._proxy and isinstance(exc, aiohttp.ClientConnectorDNSError)
        if is_proxy_unknown or isinstance(exc, aiohttp.ClientProxyConnectionError):
            return NoAnswerError(f"cannot connect to the proxy {self._proxy} ([api] proxy): {reason_of(exc)}")
        is_unreachable = isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        hint = ". Check the network, then [api] base_url or FI_BASE_URL" if is_unreachable and not self._proxy else ""
        what = "cannot connect to" if is_unreachable else "got no complete answer from"
        return NoAnswerError(f"{what} {self._server}: {reason_of(exc)}{hint}")

    def _proxy_failure(self, exc: aiohttp.ClientHttpProxyError) -> Exception:
        """The error to raise if the proxy itself answered, instead of connecting to the API."""
        if exc.status >= 500 or exc.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS):
            return NoAnswerError(f"got no complete answer from {self._server}, because the proxy answered {exc.status}")
        what = "[api] proxy"
        if exc.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            what = "FI_PROXY_USER, FI_PROXY_PASSWORD and [api] proxy"
        return ConfigurationError(f"the proxy {self._proxy} denied access to {self._host} ({exc.status}). Check {what}")


def _trusting(settings: Settings) -> ssl.SSLContext | None:
    """A TLS context that trusts the certificates of ``[api] ca_file``; None to trust those of the system."""
    ca_file = settings.api.ca_file
    try:
        return ssl.create_default_context(cafile=ca_file) if ca_file else None
    except OSError as exc:
        raise ConfigurationError(f"cannot read [api] ca_file {ca_file}: {exc.strerror}. Name a PEM file") from None


def _proxy_headers(settings: Settings) -> dict[str, str]:
    """The header with the proxy's credentials, which is sent to the proxy only; empty without credentials."""
    user, password = settings.proxy_user, settings.proxy_password
    if user is None or password is None:
        return {}
    credentials = f"{user.get_secret_value()}:{password.get_secret_value()}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def reason_of(exc: Exception) -> str:
    """The reason of a failure, in a few words; never aiohttp's own message, which may hold headers."""
    if isinstance(exc, TimeoutError):
        return "timeout"
    cause = exc.__cause__ or exc
    if isinstance(cause, ConnectionRefusedError):  # asyncio's own words repeat the address
        return "connection refused"
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else type(exc).__name__
