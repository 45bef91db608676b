"""How a signal ends the process while nothing is to be saved; at any moment of a command in ``tests/e2e/test_interrupted.py``."""

import subprocess
import sys

RAISE = "import signal; from etl.cli.app import end_on_signals; end_on_signals(); signal.raise_signal(signal.SIGTERM)"


def test_signal_ends_the_process_with_its_exit_code_and_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", RAISE], capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (143, b"error: interrupted by SIGTERM\n")
