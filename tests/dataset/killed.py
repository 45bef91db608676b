"""A process that dies between two writes."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from unittest import mock

from etl.dataset.parts import Dataset
from etl.files.local import LocalFiles
from tests.datasets import a_dataset


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


def finished_after_each_kill(
    root: Path, folder: Path, work: Callable[[Dataset], object], *, may_be_idle: bool = False
) -> Iterator[Dataset]:
    """Copies of the dataset, in each of which the work was killed before another write and done again.

    In the last copy it was not killed.
    """
    for number in count():
        copy = folder / f"killed-{number}"
        shutil.copytree(root, copy)
        dataset = a_dataset(copy)
        is_done = False
        with killed_before(number):
            work(dataset)
            is_done = True
        work(a_dataset(copy))
        yield dataset
        if is_done:
            assert number or may_be_idle, "the work writes"
            return
