"""How an error or a signal ends a command."""

import os
import signal

import pytest
import typer

from etl.cli.endings import report_errors, stop_on_signals
from etl.errors import DestinationError


def test_any_other_exception_is_reported_as_a_bug_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, report_errors(verbose=False):
        raise ZeroDivisionError("division by zero")
    assert raised.value.exit_code == 1
    assert capsys.readouterr().err == "error: a bug: ZeroDivisionError: division by zero (--verbose shows where)\n"


def test_error_raised_on_purpose_ends_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, report_errors(verbose=False):
        raise DestinationError("data: No space left on device")
    assert raised.value.exit_code == 6
    assert capsys.readouterr().err == "error: data: No space left on device\n"


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signal_asks_the_run_to_stop_with_its_exit_code(number: signal.Signals, exit_code: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        error = await stop
    assert (error.exit_code, str(error)) == (exit_code, f"interrupted by {number.name}; what had arrived is saved")
    assert signal.getsignal(number) is before
