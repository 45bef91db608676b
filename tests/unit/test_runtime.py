"""How the command's process runs, with the extra ``fast`` and without."""

import asyncio
import gc
import os
import subprocess
import sys

import uvloop

from etl import runtime


async def loop_in_use() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_uvloop_runs_the_command_where_it_is_installed():
    assert issubclass(runtime.run(loop_in_use()), uvloop.Loop)


def test_asyncio_does_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert runtime.run(loop_in_use()).__module__.startswith("asyncio")


def test_command_prepares_its_process_and_a_library_user_keeps_his():
    show = "import gc, os; print(gc.get_threshold()[0], os.environ.get('ARROW_DEFAULT_MEMORY_POOL'))"
    for preparation, shown in (
        ("from etl import runtime; runtime.prepare()", "50000 system"),
        ("import etl.job, etl.cli", f"{gc.get_threshold()[0]} None"),
    ):
        bare = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
        result = subprocess.run(
            [sys.executable, "-c", f"{preparation}; {show}"], capture_output=True, text=True, check=True, env=bare
        )
        assert result.stdout.strip() == shown


def test_allocator_that_the_user_chose_is_kept(monkeypatch):
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "mimalloc")
    before = gc.get_threshold()
    try:
        runtime.prepare()
    finally:
        gc.set_threshold(*before)
    assert os.environ["ARROW_DEFAULT_MEMORY_POOL"] == "mimalloc"
