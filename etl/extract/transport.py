"""The only outgoing socket: sends one GET, and gives status, headers and the whole body back.

Only aiohttp's public API is used. Redirects, cookies, ``~/.netrc`` and the environment's proxies could carry the keys to another
host: none of them is followed, kept or read. Never retries.
"""

import asyncio
import ssl
import traceback
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
from yarl import URL

from etl.errors import ConfigurationError
from etl.extract.bodies import AnswerTooLargeError, Bodies, NoAnswerError
from etl.extract.endpoints import Purpose, no_requests
from etl.extract.source_clock import clock_offset


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may take: requests at a time, seconds, tries of one request, bytes of one answer."""

    concurrency: int = 32
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    max_tries: int = 6
    max_response_bytes: int = 64 << 20


@dataclass(slots=True)
class Traffic:
    """What was sent and received so far; ``redactions`` counts answers from which a key was removed.

    ``held_until`` is the time of the loop's clock before which the rate limit lets nothing more through. ``clock_offset`` is what
    to add to our time to get the source's: the least that an answer told, so that nothing seems older than it is.
    """

    requests_by_purpose: dict[Purpose, int] = field(default_factory=no_requests)
    retries: int = 0
    rejections: int = 0
    received_bytes: int = 0
    redactions: int = 0
    held_until: float = 0.0
    clock_offset: timedelta | None = None

    @property
    def requests(self) -> int:
        """All that were sent, those that were sent again too."""
        return sum(self.requests_by_purpose.values())

    def received(self, answer: "Answer") -> None:
        """Note an answer that came now."""
        self.received_bytes += len(answer.body)
        offset = clock_offset(answer.headers, datetime.now(UTC))
        if offset is not None:
            self.clock_offset = offset if self.clock_offset is None else min(offset, self.clock_offset)

    def add(self, other: "Traffic") -> None:
        """Add that of another machine, whose clock and loop are not ours."""
        for purpose, requests in other.requests_by_purpose.items():
            self.requests_by_purpose[purpose] += requests
        self.retries += other.retries
        self.rejections += other.rejections
        self.received_bytes += other.received_bytes
        self.redactions += other.redactions


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that tunnels to the API, and the credentials for it. ``repr`` shows neither of them."""

    url: str
    user: Callable[[], str] | None = None
    password: Callable[[], str] | None = None

    def headers(self) -> dict[str, str]:
        """What the proxy is sent, and nobody else."""
        if self.user is None or self.password is None:
            return {}
        return {"Proxy-Authorization": f"Basic {b64encode(f'{self.user()}:{self.password()}'.encode()).decode()}"}


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and the keys to it. ``repr`` shows neither key."""

    base_url: str
    api_key: Callable[[], str]
    secret_key: Callable[[], str]
    ca_file: str | None = None
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sent, the body decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ConnectionLostError(NoAnswerError):
    """The connection ended before the answer began."""


class TlsError(NoAnswerError):
    """The server could not prove who it is, or does not speak TLS."""


class Transport:
    """Connections to one server. Belongs to the event loop in which it is made; ``close`` it in the end.

    Connections are kept for the next request, but where a request wants one of its own. ``has_kept`` tells whether a request may
    be sent on a connection that was used before.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        if any(character in line for pair in headers.items() for line in pair for character in "\r\n\0"):
            raise ValueError("a header holds a line break or a null character")
        self.has_kept = False
        self._base_url = base_url
        self._bodies = Bodies(max_bytes=limits.max_response_bytes, concurrency=limits.concurrency)
        self._total_seconds = limits.connect_timeout_seconds + 5 * limits.read_timeout_seconds
        self._is_cut_short = False
        self._host = URL(base_url, encoded=True).host
        self._server = f"{self._host} through [api] proxy {proxy.url}" if proxy else str(self._host)
        # A cache on the way would give yesterday's answer to some requests, and today's to others.
        self._headers = {**headers, "Accept-Encoding": "gzip, deflate", "Cache-Control": "no-cache"}
        self._proxy_url = proxy.url if proxy else None
        self._proxy_headers = proxy.headers() if proxy else None
        timeout = aiohttp.ClientTimeout(
            total=None,  # ``get`` has a deadline
            # A proxy that accepts the connection and then is silent: nothing else bounds the tunnel being made.
            connect=limits.connect_timeout_seconds if proxy else None,
            sock_connect=limits.connect_timeout_seconds,
            sock_read=limits.read_timeout_seconds,
        )

        def session(*, force_close: bool) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=tls or True, ttl_dns_cache=300, force_close=force_close),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=timeout,
                trust_env=False,
                auto_decompress=False,
                raise_for_status=False,
                middlewares=(self._send_once,),
            )

        self._new_session = session
        self._kept = session(force_close=False)
        # aiohttp takes what arrives on an idle connection for the answer to the next request. An answer that could be mistaken for
        # another is therefore awaited on a connection on which nothing else was ever asked.
        self._own = session(force_close=True)
        self._retired: list[aiohttp.ClientSession] = []

    def renew(self) -> None:
        """Use none of the connections that were kept again: on one of them an answer came that nobody awaits.

        Each request that follows there would get the answer to the one before.
        """
        self._retired.append(self._kept)
        self._kept = self._new_session(force_close=False)
        self.has_kept = False

    async def get(self, target: str, *, on_own_connection: bool) -> Answer:
        """The answer to a GET of ``target``: path and query, every special character escaped.

        Raises:
            NoAnswerError: no whole answer arrived.
            ConfigurationError: the proxy refused to connect.
        """
        session = self._own if on_own_connection else self._kept
        failure: Exception
        try:
            async with (
                asyncio.timeout(self._total_seconds) as deadline,
                session.get(
                    URL(self._base_url + target, encoded=True),
                    allow_redirects=False,
                    proxy=self._proxy_url,
                    proxy_headers=self._proxy_headers,
                ) as response,
            ):
                body = await self._bodies.read(response, deadline)
            answer = Answer(response.status, response.headers, body)
        except (AnswerTooLargeError, ConnectionLostError) as error:
            failure = error
            self._is_cut_short |= isinstance(error, ConnectionLostError) and not on_own_connection
        except (aiohttp.ClientError, NoAnswerError, TimeoutError, OSError) as exc:
            failure = self._failure(exc)
        except Exception as exc:  # noqa: BLE001 a bug in here or below, and its text may hold the headers
            place = traceback.extract_tb(exc.__traceback__)[-1]
            failure = RuntimeError(f"{type(exc).__name__} at {place.filename}:{place.lineno}")
        else:
            self.has_kept |= session is self._kept
            if self._is_cut_short:
                # A server that closes after its answer without saying so: a turn of the loop later, that has been noticed.
                await asyncio.sleep(0)
            return answer
        # Raised out here: inside, aiohttp's error would stay attached as its context.
        raise failure.with_traceback(None)

    async def close(self) -> None:
        """Close all connections."""
        for session in (*self._retired, self._kept, self._own):
            await session.close()

    async def _send_once(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A middleware: the last stop before a request is sent to the API itself.

        The headers are added here, since aiohttp sends those of a session to the proxy, too. After the errors below it would send
        the request again by itself, uncounted and past the quota.
        """
        request.headers.update(self._headers)
        try:
            return await send(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
            failure = ConnectionLostError(f"no complete answer from {self._server}: {_reason(exc)}")
        raise failure

    def _failure(self, exc: Exception) -> Exception:
        """The error to raise in place of aiohttp's."""
        if isinstance(exc, aiohttp.ClientSSLError):
            return TlsError(f"TLS failed at {self._server}: {type(exc).__name__}; see [api] ca_file")
        if isinstance(exc, aiohttp.ClientHttpProxyError) and exc.status < 500 and exc.status not in (408, 429):
            credentials = "check FI_PROXY_USER and FI_PROXY_PASSWORD, " if exc.status == 407 else ""
            return ConfigurationError(
                f"the proxy refused to connect to {self._host} ({exc.status}): {credentials}see [api] proxy {self._proxy_url}"
            )
        if isinstance(exc, aiohttp.ClientHttpProxyError):
            return NoAnswerError(f"no complete answer from {self._server}: the proxy answered {exc.status}")
        if isinstance(exc, aiohttp.ClientProxyConnectionError) or (
            self._proxy_url and isinstance(exc, aiohttp.ClientConnectorDNSError)
        ):
            return NoAnswerError(f"cannot connect to [api] proxy {self._proxy_url}: {_reason(exc)}")
        is_unreachable = isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        hint = "; check [api] base_url or FI_BASE_URL" if is_unreachable and not self._proxy_url else ""
        return NoAnswerError(f"no complete answer from {self._server}: {_reason(exc)}{hint}")


def _reason(exc: BaseException) -> str:
    """What happened, in the library's class names: its messages may hold headers."""
    if isinstance(exc, NoAnswerError):
        return str(exc)
    if isinstance(exc, TimeoutError):
        return "timeout"
    cause = exc.__cause__ or exc
    if isinstance(cause, ConnectionRefusedError):  # asyncio's own words hold the address once more
        return "connection refused"
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else type(exc).__name__
