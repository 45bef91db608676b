"""Work in the background gives its result or its error to whoever waits, and keeps nobody from leaving."""

import threading

import pytest

from etl.files.background import in_background


def test_result_and_error_of_the_work_are_those_of_the_future():
    assert in_background(lambda: 7).result() == 7
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0).result()


def test_work_that_never_ends_does_not_keep_the_process_alive():
    """The interpreter waits at its end for each thread that is no daemon."""
    assert in_background(lambda: threading.current_thread().daemon).result()
