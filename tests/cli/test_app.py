"""What a process does before anything is to be saved: how a signal ends it, and what it does not import."""

import subprocess
import sys

RAISE = "import signal; from etl.cli.app import end_on_signals; end_on_signals(); signal.raise_signal(signal.SIGTERM)"
IMPORT = """
import sys
loaded = lambda *names: [each for each in sys.modules if each.startswith(names)]
import etl.cli.commands, etl.cli.compare
assert not loaded("numpy", "pandas", "pyarrow"), "help"
import etl.cli.run, etl.pipeline.job, etl.load.files.open
etl.load.files.open.open_files("data")
assert not loaded("altair", "vl_convert", "jinja2", "etl.report", "etl.compare.statistics", "etl.compare.samples"), "a night"
assert not loaded("obstore", "etl.load.files.bucket"), "a folder"
"""


def test_signal_ends_the_process_with_its_exit_code_and_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", RAISE], capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (143, b"error: interrupted by SIGTERM\n")


def test_help_and_a_quiet_night_in_a_folder_import_nothing_that_others_need() -> None:
    subprocess.run([sys.executable, "-c", IMPORT], check=True)
