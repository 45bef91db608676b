"""Limits of the process are met before the first request, with the fix, or fitted to."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from etl.errors import ConfigurationError
from etl.extract.capacity import fitting_concurrency
from tests.damages import NOBODY

LIMITED_THREADS = f"""
import os, resource
from etl.extract.capacity import require_threads

require_threads()
os.setuid({NOBODY})
resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))
try:
    require_threads()
except Exception as error:
    print(error)
"""


def open_files() -> int:
    descriptor = os.open("/", os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@contextmanager
def limit_of_files(count: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_there_is_room_the_concurrency_is_what_is_wanted():
    with limit_of_files(4096):
        assert fitting_concurrency(256) == 256


def test_where_there_is_less_it_is_what_fits():
    opened = [os.open("/", os.O_RDONLY) for _ in range(10)]
    try:
        with limit_of_files(200):
            fitting = fitting_concurrency(256)
        assert 1 <= fitting < (200 - 32 - 10) // 2
        with limit_of_files(202):
            assert fitting_concurrency(256) == fitting + 1
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_too_few_files_are_refused_with_the_fix():
    with (
        limit_of_files(open_files() + 20),
        pytest.raises(ConfigurationError, match="raise the limit, such as with ulimit -n"),
    ):
        fitting_concurrency(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without processes")
def test_too_few_threads_are_refused_with_the_fix():
    shown = subprocess.run([sys.executable, "-c", LIMITED_THREADS], capture_output=True, text=True, check=True)
    assert "more threads, but needs 16: raise the limit on processes" in shown.stdout
