"""What the command's own streams promise; with real pipes and files in ``tests/e2e/test_printing.py``."""

import os
import subprocess
import sys

from etl.cli import streams


def shown_by(program: str, redirections: str = "") -> subprocess.CompletedProcess[str]:
    words = ["bash", "-c", f'"$0" -c "$1" {redirections}', sys.executable, f"from etl.cli import streams\n{program}"]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)


def test_number_of_a_closed_stream_is_not_given_to_the_next_file() -> None:
    program = "streams.take_over(); import os, sys; sys.stderr.write(str(os.open('/', os.O_RDONLY) > 2))"
    assert shown_by(program, "<&- >&-").stderr == "True"


def test_what_is_left_in_the_buffer_at_the_end_is_written() -> None:
    assert shown_by("streams.take_over(); print('last', end='')").stdout == "last"


def test_last_flush_of_the_interpreter_does_not_fail() -> None:
    result = shown_by("streams.take_over(); print('last', end='')", ">/dev/full")
    assert (result.returncode, result.stderr) == (0, "")


def test_failure_is_told_of_stdout_but_not_of_a_reader_that_has_gone() -> None:
    program = "import sys; streams.take_over(); print('last'); sys.stderr.write(str(streams.stdout_failure()))"
    assert shown_by(program, ">/dev/full").stderr == "No space left on device"
    assert shown_by(program, "| true").stderr == "None"
    assert shown_by(program).stderr == "None"


def test_stream_that_is_not_the_commands_own_has_no_failure() -> None:
    """As under a test runner."""
    assert streams.stdout_failure() is None
