"""GETs over aiohttp's connections: its pool, its TLS, its name look-ups, its parser with their limits; without its session.

A session prepares every request for what this API never needs: redirects, cookies, proxies, credentials from URLs or ~/.netrc,
timers, a second try. That is two thirds of what a request costs. Here none of it exists, so that none can carry the keys elsewhere.
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


class Wire:
    """Connections to one server, at most ``limit``. Belongs to the event loop in which it is made."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        limit: int,
        connect_timeout_seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = URL(base_url, encoded=True)
        self.host = url.host
        self._limit = limit
        self._connector = aiohttp.TCPConnector(limit=limit, ssl=tls or True, ttl_dns_cache=300)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds)
        # One request stands for all: they go to the same place with the same headers.
        self._request = aiohttp.ClientRequest("GET", url, headers=headers, loop=asyncio.get_running_loop())
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
        connection.release()
        return result

    async def _connect(self) -> tuple[Connection, ResponseHandler, asyncio.Transport]:
        """A connection on which nothing has arrived since its last answer: it would be taken for the next one."""
        for _ in range(self._limit + 1):
            connection = await self._connector.connect(self._request, [], self._timeout)
            protocol, transport = connection.protocol, connection.transport
            if protocol is not None and transport is not None and not protocol.should_close:
                return connection, protocol, transport
            connection.close()
        raise aiohttp.ServerDisconnectedError

    async def close(self) -> None:
        """Close all connections."""
        await self._connector.close()
