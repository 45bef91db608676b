"""A real HTTP proxy on loopback: it tunnels what CONNECT asks for, and keeps all that it could see."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """``seen`` is each request made to the proxy itself, ``tunnelled`` all bytes that passed from clients to servers.

    With ``refusal`` it answers with this status in place of connecting; with ``credentials``, 407 to whoever sends
    others.
    """

    def __init__(self, *, credentials: str | None = None, refusal: int | None = None) -> None:
        self.url = ""
        self.seen: list[bytes] = []
        self.tunnelled = b""
        self._authorization = f"Basic {b64encode(credentials.encode()).decode()}" if credentials else None
        self._refusal = refusal
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.seen.append(head)
            method, target, _ = head.decode().splitlines()[0].split()
            status = self._refusal_of(head.decode())
            if status or method != "CONNECT":
                writer.write(f"HTTP/1.1 {status or 405} No\r\nContent-Length: 0\r\n\r\n".encode())
                return
            host, _, port = target.rpartition(":")
            upstream, downstream = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, downstream, is_seen=True))
                group.create_task(self._pass(upstream, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _refusal_of(self, head: str) -> int | None:
        if self._authorization and f"Proxy-Authorization: {self._authorization}" not in head.splitlines():
            return 407
        return self._refusal

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_seen: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                self.tunnelled += data if is_seen else b""
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxying(*, credentials: str | None = None, refusal: int | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy(credentials=credentials, refusal=refusal)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()
        if proxy.tasks:
            await asyncio.wait(proxy.tasks)
