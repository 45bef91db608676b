"""What a process does before anything is to be saved: how a signal ends it, and what it does not import."""

import subprocess
import sys

import pytest

from etl.version import __version__

RAISE = "import signal; from etl.cli.app import end_on_signals; end_on_signals(); signal.raise_signal(signal.SIGTERM)"
IMPORT = """
import sys
loaded = lambda *names: [each for each in sys.modules if each.startswith(names)]
import etl.cli.commands, etl.cli.compare_command
assert not loaded("numpy", "pandas", "pyarrow"), "help"
import etl.cli.run_commands, etl.pipeline.job, etl.files.open
etl.files.open.open_files("data")
assert not loaded("altair", "vl_convert", "jinja2", "etl.report"), "a night"
assert not loaded("etl.compare.statistics", "etl.compare.samples"), "a night"
assert not loaded("obstore", "etl.files.bucket"), "a folder"
"""


HELP_OF_ALL = """
import contextlib, sys
from etl.cli.commands import app
from typer.main import get_command
for name in get_command(app).commands:
    with contextlib.suppress(SystemExit):
        app([name, "--help"])
print(*sys.modules, file=sys.stderr)
"""
HEAVY = {"numpy", "pandas", "pyarrow", "aiohttp", "altair", "etl.report", "etl.pipeline"}


def loaded_by(*arguments: str) -> tuple[int, str, set[str]]:
    """The exit code of the command, what it printed, and the modules that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "etl", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}


def test_signal_ends_the_process_with_its_exit_code_and_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", RAISE], capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (143, b"error: interrupted by SIGTERM\n")


def test_help_and_a_quiet_night_in_a_folder_import_nothing_that_others_need() -> None:
    subprocess.run([sys.executable, "-c", IMPORT], check=True)


def test_version_imports_little_beside_typer() -> None:
    code, printed, modules = loaded_by("--version")
    assert (code, printed) == (0, f"{__version__}\n")
    assert not modules & {*HEAVY, "asyncio", "logging", "msgspec", "pydantic", "rich"}


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_imports_as_little(option: str) -> None:
    code, printed, modules = loaded_by(option)
    assert (code, printed.startswith("Usage: python -m etl [OPTIONS]")) == (0, True)
    assert not modules & {*HEAVY, "asyncio", "logging", "msgspec", "pydantic", "rich"}


def test_help_of_a_command_imports_none_of_what_it_needs() -> None:
    ended = subprocess.run([sys.executable, "-c", HELP_OF_ALL], capture_output=True, text=True, check=True)
    assert ended.stdout.count("Usage: ") > 10
    assert not {*ended.stderr.split()} & {*HEAVY, "rich"}
