"""GETs over aiohttp's connections: its TLS, its name look-ups, its parser with their limits; without its session.

A session prepares every request for what this API never needs: redirects, cookies, proxies, credentials from URLs or ~/.netrc,
timers, a second try. That is two thirds of what a request costs. Here none of it exists, so that none can carry the keys elsewhere.
Connections wait here for their next request, all of one server, and not in aiohttp's pool, which looks each up by its server.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

T = TypeVar("T")
Read = Callable[[int, Mapping[str, str], aiohttp.StreamReader], Awaitable[T]]
"""What is made of an answer: of its status, its headers, and its body as it arrives."""

_SWITCHING_PROTOCOLS = 101
_KEPT_SECONDS = 15.0
"""As long as aiohttp keeps them. A server that closes what was silent for a while may do so while a request is on its way."""


class Wire:
    """Connections to one server, as many as there are requests under way. Belongs to the event loop in which it is made."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        connect_timeout_seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = URL(base_url, encoded=True)
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self.host = url.host
        self._idle: list[tuple[float, Connection]] = []
        self._connector = aiohttp.TCPConnector(limit=0, ssl=tls or True, ttl_dns_cache=300)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds)
        # One request stands for all: they go to the same place with the same headers.
        self._request = aiohttp.ClientRequest("GET", url, headers=headers, loop=loop)
        lines = [f"{name}: {value}" for name, value in self._request.headers.items()]
        if any(character in line for line in lines for character in "\r\n\0"):
            raise ValueError("a header holds a line break or a null character")
        self._before = f"GET {url.raw_path.rstrip('/')}"
        self._after = "\r\n".join((" HTTP/1.1", *lines, "", ""))

    async def get(self, target: str, read: Read[T]) -> T:
        """What ``read`` makes of the answer; ``target`` is path and query, every special character escaped.

        Raises:
            aiohttp.ClientError, aiohttp.http.HttpProcessingError, TimeoutError, OSError: there was no whole answer.
        """
        connection, protocol, transport = await self._connect()
        try:
            protocol.set_response_params(read_until_eof=True)
            transport.write(f"{self._before}{target}{self._after}".encode())
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != _SWITCHING_PROTOCOLS:
                message, content = await protocol.read()  # only said that the answer will come
            result = await read(message.code, message.headers, content)
        except BaseException:
            connection.close()  # else its answer may come when the next one is waited for
            raise
        self._idle.append((self._now(), connection))
        return result

    async def _connect(self) -> tuple[Connection, ResponseHandler, asyncio.Transport]:
        """The connection that was used last, unless that is too long ago or something arrived on it since, else a new one.

        What arrived would be taken for the next answer.
        """
        earliest = self._now() - _KEPT_SECONDS
        while self._idle:
            used_at, connection = self._idle.pop()
            protocol, transport = connection.protocol, connection.transport
            if (
                used_at >= earliest
                and protocol is not None
                and transport is not None
                and not protocol.should_close
                and not transport.is_closing()
            ):
                return connection, protocol, transport
            connection.close()
        connection = await self._connector.connect(self._request, [], self._timeout)
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        return connection, protocol, transport

    async def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop()[1].release()  # to the connector, which waits for the end of those with TLS
        await self._connector.close()
