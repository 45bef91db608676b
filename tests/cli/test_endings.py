"""How an error ends a command."""

import pytest
import typer

from etl.cli.options import errors_reported
from etl.errors import DestinationError


def test_reader_of_the_output_that_has_seen_enough_is_no_bug() -> None:
    """As in ``metrics-etl status --json | head``: the command line library ends the process quietly."""
    with pytest.raises(BrokenPipeError), errors_reported(verbose=False):
        raise BrokenPipeError


def test_anything_else_is_a_bug_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, errors_reported(verbose=False):
        raise ZeroDivisionError("division by zero")
    assert raised.value.exit_code == 1
    assert capsys.readouterr().err == "error: a bug: ZeroDivisionError: division by zero (--verbose shows where)\n"


def test_error_raised_on_purpose_ends_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised, errors_reported(verbose=False):
        raise DestinationError("data: No space left on device")
    assert raised.value.exit_code == 6
    assert capsys.readouterr().err == "error: data: No space left on device\n"
