"""How a signal ends the process while nothing is to be saved; at any moment of a command in ``tests/e2e/test_interrupted.py``."""

import subprocess
import sys

import pytest

from tests.e2e.command import UNREAD_STDERR

RAISE = "import signal; from etl.cli.app import end_on_signals; end_on_signals(); signal.raise_signal(signal.SIGTERM)"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("under", "said"), [((), b"error: interrupted by SIGTERM\n"), (UNREAD_STDERR, b"")])
def test_signal_ends_the_process_whether_or_not_somebody_reads_why(under: tuple[str, ...], said: bytes) -> None:
    ended = subprocess.run([*under, sys.executable, "-c", RAISE], capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (143, said)
