"""The bodies of answers: read to their end, unpacked, and bounded, each alone and all together.

A body may have ``max_bytes``, as it is sent and unpacked; all that are being read, four times that. One of these four shares is
divided among the requests: a body that fits its part waits for nobody. One that outgrows it needs a place before it is read on.
There are three, each with room for the largest body: so one that has a place needs nothing else, and leaves it at the latest when
its server is silent for too long or its time is over. Every body gets its turn.

Nothing waits between the end of reading and that of decoding, so that these take their memory for one body at a time.
"""

import asyncio
import re
import zlib

import aiohttp

from etl.extract.deadline import Deadline

_PLACES = 3
_PIECE_BYTES = 1 << 16
_MOST_MEMBERS = 10_000
_MOST_ENCODINGS = 4
_PADDING = re.compile(rb"\0+")
_UNKNOWN_ENCODINGS = {"br", "compress", "x-compress", "zstd"}


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

    async def read(self, response: aiohttp.ClientResponse, deadline: Deadline) -> bytes:
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

    async def _take_place(self, deadline: Deadline) -> None:
        """Wait for a place. Meanwhile nothing is read: TCP holds the server back, and aiohttp does not time its silence."""
        deadline.pause()
        await self._places.acquire()
        deadline.resume()


def _unpacked(body: bytes, encoding: str, status: int, max_bytes: int) -> bytes:
    """By hand: aiohttp knows no ``x-gzip``, and its versions differ in how they limit what comes out."""
    names = encoding.lower().split(",")
    if len(names) > _MOST_ENCODINGS:
        raise NoAnswerError(f"more than {_MOST_ENCODINGS} layers of Content-Encoding")
    for name in reversed(names):
        try:
            match name.strip():
                case "gzip" | "x-gzip":
                    body = _gunzipped(body, max_bytes)
                case "deflate":
                    body = _inflated(body, max_bytes)
                case other if other in _UNKNOWN_ENCODINGS:
                    raise NoAnswerError(f"Content-Encoding {other}, which was not offered")
                case _:
                    pass  # names that are none, such as utf-8: the body is as it is
        except (EOFError, zlib.error):
            raise NoAnswerError("damaged Content-Encoding") from None
        if len(body) > max_bytes:
            raise AnswerTooLargeError(status)
    return body


def _gunzipped(body: bytes, max_bytes: int) -> bytes:
    """All members, and at most a little more than allowed, however much is packed into them. What follows them is ignored.

    A member may be empty: their number is bounded, too, and none of them copies more than a piece of what follows it.
    """
    packed, chunks = memoryview(body), list[bytes]()
    size_bytes = at = 0
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not stream.eof:
            if not (piece := packed[at : at + _PIECE_BYTES]):
                raise EOFError
            chunks.append(stream.decompress(piece, max_bytes + 1 - size_bytes))
            size_bytes += len(chunks[-1])
            if size_bytes > max_bytes:
                return b"".join(chunks)
            at += len(piece) - len(stream.unused_data)
        if padding := _PADDING.match(body, at):
            at = padding.end()
        if not body.startswith(b"\x1f\x8b", at):
            return b"".join(chunks)
    raise NoAnswerError(f"Content-Encoding gzip of more than {_MOST_MEMBERS:,} members")


def _inflated(body: bytes, max_bytes: int) -> bytes:
    """As ``_gunzipped``; some servers leave out the two bytes of zlib's header, of which the first ends in 8."""
    if not body:
        raise EOFError
    stream = zlib.decompressobj(zlib.MAX_WBITS if body[0] & 0x0F == 8 else -zlib.MAX_WBITS)
    content = stream.decompress(body, max_bytes + 1)
    if not stream.eof and len(content) <= max_bytes:
        raise EOFError
    return content
