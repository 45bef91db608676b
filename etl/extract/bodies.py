"""The bodies of answers: read to their end, unpacked, and bounded, each alone and all together.

A body may have ``max_bytes``, as it is sent and unpacked; all that are being read, four times that. One of these four shares is
divided among the requests: a body that fits its part waits for nobody. One that outgrows it needs a place before it is read on.
There are three, each with room for the largest body: so one that has a place needs nothing else, and leaves it at the latest when
its server is silent for too long or its time is over. Every body gets its turn.

Nothing waits between the end of reading and that of decoding, so that these take their memory for one body at a time.
"""

import asyncio
import zlib

import aiohttp

_PLACES = 3
_GZIP = b"\x1f\x8b"


class NoAnswerError(Exception):
    """No whole answer arrived. The text holds no header: aiohttp's own errors, which do, are never passed on."""


class AnswerTooLargeError(NoAnswerError):
    """The body is larger than allowed, as it was sent or decompressed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the answer is too large ({status})")
        self.status = status


class Bodies:
    """Reads the bodies of one server's answers, of ``concurrency`` at a time. Belongs to the event loop in which it is made."""

    def __init__(self, *, max_bytes: int, concurrency: int) -> None:
        self._max_bytes = max_bytes
        self._small_bytes = max_bytes // concurrency
        self._places = asyncio.Semaphore(_PLACES)

    async def read(self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> bytes:
        """The whole body. The time for which it waits for a place does not count for the ``deadline``.

        Raises:
            AnswerTooLargeError: it is larger than allowed.
            NoAnswerError: it cannot be unpacked.
        """
        chunks = []
        size_bytes, free_bytes = 0, self._small_bytes
        try:
            while not response.content.at_eof():
                chunk = await response.content.readany()
                size_bytes += len(chunk)
                if size_bytes > free_bytes:
                    if size_bytes > self._max_bytes:
                        raise AnswerTooLargeError(response.status)
                    await self._take_place(deadline)
                    free_bytes = self._max_bytes
                chunks.append(chunk)
            body = b"".join(chunks)
            del chunks
            encoding = response.headers.get("Content-Encoding")
            return _unpacked(body, encoding, response.status, self._max_bytes) if encoding and body else body
        finally:
            if free_bytes > self._small_bytes:
                self._places.release()

    async def _take_place(self, deadline: asyncio.Timeout) -> None:
        """Wait for a place. Meanwhile nothing is read: TCP holds the server back, and aiohttp does not time its silence."""
        now, ends_at = asyncio.get_running_loop().time, deadline.when()
        began_at = now()
        deadline.reschedule(None)
        await self._places.acquire()
        if ends_at is not None:
            deadline.reschedule(ends_at + now() - began_at)


def _unpacked(body: bytes, encoding: str, status: int, max_bytes: int) -> bytes:
    """By hand: aiohttp knows no ``x-gzip``, and its versions differ in how they limit what comes out."""
    for name in reversed(encoding.lower().split(",")):
        try:
            match name.strip():
                case "gzip" | "x-gzip":
                    body = _gunzipped(body, max_bytes)
                case "deflate":
                    # Some servers leave out the two bytes of zlib's header, of which the first ends in 8.
                    has_header = body[:1] and body[0] & 0x0F == 8
                    body, _ = _inflated(body, zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS, max_bytes)
                case "br" | "zstd" as other:
                    raise NoAnswerError(f"Content-Encoding {other}, which was not offered")
                case _:
                    pass  # names that are none, such as utf-8: the body is as it is
        except (EOFError, zlib.error):
            raise NoAnswerError("damaged Content-Encoding") from None
        if len(body) > max_bytes:
            raise AnswerTooLargeError(status)
    return body


def _gunzipped(body: bytes, max_bytes: int) -> bytes:
    """All members. What follows them is ignored."""
    content, rest = _inflated(body, zlib.MAX_WBITS | 16, max_bytes)
    while rest.startswith(_GZIP) and len(content) <= max_bytes:
        more, rest = _inflated(rest, zlib.MAX_WBITS | 16, max_bytes - len(content))
        content += more
    return content


def _inflated(body: bytes, wbits: int, max_bytes: int) -> tuple[bytes, bytes]:
    """The content, at most a byte more than allowed however much is packed into it, and what follows it."""
    stream = zlib.decompressobj(wbits)
    content = stream.decompress(body, max_bytes + 1)
    if not stream.eof and len(content) <= max_bytes:
        raise EOFError
    return content, stream.unused_data
