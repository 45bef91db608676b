"""How the command's process runs, where its text goes, and how an error or a signal ends it."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import uvloop

from etl.cli import process
from etl.cli.process import report_errors, stop_on_signals
from tests.support import run_to_end

NAMES = ("ARROW_DEFAULT_MEMORY_POOL", "OPENBLAS_NUM_THREADS")


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def loop_in_use() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_uvloop_runs_the_command_where_it_is_installed():
    assert issubclass(process.run_async(loop_in_use()), uvloop.Loop)


def test_asyncio_does_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert process.run_async(loop_in_use()).__module__.startswith("asyncio")


def test_command_prepares_its_process_and_a_library_user_keeps_his():
    show = f"import gc, os, etl.pipeline.job, etl.cli.app; print(gc.get_threshold()[0], *map(os.environ.get, {NAMES}))"
    for preparation, shown in (
        ("from etl.cli import process; process.prepare()", "200000 system 1"),
        ("import etl.pipeline.job, etl.cli.app", f"{gc.get_threshold()[0]} None None"),
    ):
        bare = {name: value for name, value in os.environ.items() if name not in NAMES}
        result = run_to_end([sys.executable, "-c", f"{preparation}; {show}"], env=bare)
        assert result.stdout.strip() == shown


def test_prepared_process_still_reads_every_file_system_of_arrow():
    program = """
from etl.cli import process
process.prepare()
from pyarrow.fs import FileSystem
print(FileSystem.from_uri("s3://bucket/key?region=eu-west-1")[0].type_name)
"""
    shown = run_to_end([sys.executable, "-c", program])
    assert shown.stdout == "s3\n"


async def garbage() -> int:
    """How much the collector may look at."""
    return len(gc.get_objects())


def test_collector_looks_often_while_something_runs_but_not_at_what_was_there_before():
    before = len(gc.get_objects())
    process.prepare()
    assert process.run_async(garbage()) < before / 10
    assert gc.isenabled()


def test_what_the_user_chose_is_kept(monkeypatch):
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "mimalloc")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    process.prepare()
    assert [os.environ[name] for name in NAMES] == ["mimalloc", "4"]


def test_any_other_exception_is_reported_as_a_bug_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised, report_errors(verbose=False):
        raise ZeroDivisionError("division by zero")
    assert raised.value.code == 1
    message = "ZeroDivisionError: division by zero (--verbose shows details)"
    assert capsys.readouterr().err == f"error: this is a bug in metrics-etl. Please report it: {message}\n"


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signal_asks_the_run_to_stop_with_its_exit_code(number: signal.Signals, exit_code: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        error = await stop
    said = f"interrupted by {number.name}, but everything received is saved"
    assert (error.exit_code, str(error)) == (exit_code, said)
    assert signal.getsignal(number) is before


def shown_by(program: str, redirections: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import os, sys; from etl.cli import process; process.take_over_streams(); {program}"
    words = ["bash", "-c", f'"$0" -c "$1" {redirections}', sys.executable, program]
    return run_to_end(words)


def test_pipe_that_the_parent_made_non_blocking_gets_every_byte() -> None:
    """Its reader is slower than the command."""
    program = "os.set_blocking(1, False); process.take_over_streams(); print('x' * 1_000_000)"
    assert len(shown_by(program, "| (head -c 1; sleep 0.3; cat)").stdout) == 1_000_001


def test_number_of_a_closed_stream_is_not_given_to_the_next_file() -> None:
    assert shown_by("sys.stderr.write(str(os.open('/', os.O_RDONLY) > 2))", "<&- >&-").stderr == "True"


@pytest.mark.parametrize(
    ("redirections", "stdout", "failure"),
    [("", "last", "None"), (">/dev/full", "", "No space left on device"), ("| true", "", "None")],
)
def test_failure_to_write_is_told_of_stdout_but_not_of_a_reader_that_has_gone(
    redirections: str, stdout: str, failure: str
) -> None:
    """Nor does the last flush of the interpreter fail."""
    result = shown_by("print('last', end=''); sys.stderr.write(str(process._stdout_failure()))", redirections)
    assert (result.returncode, result.stdout, result.stderr) == (0, stdout, failure)
