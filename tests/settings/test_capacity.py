"""Limits of the process are met before the first request, with the fix, or fitted to."""

import asyncio
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.extract.connect import client_of
from etl.load.warehouse.target import open_warehouse
from etl.settings import Settings
from etl.settings.capacity import fitting_concurrency
from tests.damages import NOBODY

ROOT = Path(__file__).parents[2]
LIMITED_THREADS = f"""
import os, resource, sys
from tests.settings.test_capacity import NEEDED

need = NEEDED[sys.argv[1]]
need()
os.setuid({NOBODY})
resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))
try:
    need()
except Exception as error:
    print(error)
"""


async def use_client_for(warehouse: str) -> None:
    settings = {"run_tests": ["x"], "api_key": "k", "secret_key": "s", "warehouse": {"url": warehouse}}
    async with client_of(Settings.model_validate(settings)):
        pass


NEEDED = {
    "16": lambda: asyncio.run(use_client_for("duckdb:///tmp/w.duckdb")),
    "36": lambda: asyncio.run(use_client_for("delta:///tmp/lake")),
    "20": lambda: open_warehouse("delta:///tmp/lake", "metrics"),
}
"""By how many threads it needs."""


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
@pytest.mark.parametrize("count", NEEDED)
def test_too_few_threads_are_refused_with_the_fix(count):
    command = [sys.executable, "-c", LIMITED_THREADS, count]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert f"more threads, but needs {count}: raise the limit on processes" in shown.stdout
