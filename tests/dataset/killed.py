"""A process that dies between two writes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from unittest import mock

from etl.files.local import LocalFiles


class KilledError(BaseException):
    """The process died."""


@contextmanager
def killed_before(write: int) -> Iterator[None]:
    """Die before the write of this number, counted from 0, and in any case at the end."""
    publish, done = LocalFiles.publish, count()

    def publish_or_die(files: LocalFiles, path: str, data: bytes) -> None:
        if next(done) == write:
            raise KilledError
        publish(files, path, data)

    with mock.patch.object(LocalFiles, "publish", publish_or_die), suppress(KilledError):
        yield
