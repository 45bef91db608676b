"""``init``, ``check`` and ``discover``: before an export, write the settings, test them, and list the run tests.

What ``init`` asks and writes is in ``questions``; what ``check`` tests is in ``pipeline.preflight``.
"""

import os
from datetime import date
from functools import partial
from typing import Annotated

import typer

from etl.cli.console import print_in_form, print_json, print_message, print_rate_limit_wait, print_result
from etl.cli.options import AsJson, Config, Verbose, parse_day
from etl.cli.process import end, report_errors, run_async
from etl.errors import ConfigurationError, ExitCode

_answer = partial(typer.Option, rich_help_panel="Answers")


def init(  # noqa: PLR0913 one parameter for each option of the command
    config: Config = None,
    *,
    base_url: Annotated[str, _answer(metavar="URL", help="Address of a self-hosted API.", envvar="FI_BASE_URL")] = "",
    run_tests: Annotated[
        list[str] | None, _answer("--run-test", metavar="NAME", help="Run test to export. Repeat the option for more.")
    ] = None,
    path: Annotated[str, _answer(metavar="PLACE", help="Folder or bucket of the dataset.", show_default="data")] = "",
    since: Annotated[date | None, _answer(parser=parse_day, metavar="DATE", help="First day to export.")] = None,
    warehouse: Annotated[str, _answer(metavar="URL", help="Warehouse, such as duckdb://metrics.duckdb.")] = "",
    yes: Annotated[bool, _answer("--yes", "-y", help="Ask nothing, and take the keys from the environment.")] = False,
    verbose: Verbose = False,
) -> None:
    """Ask what an export needs, test it, and write the settings.

    Asks for the address and keys of the API, the run tests, a place for the dataset, the first day to export, and a
    warehouse. Writes the settings, which never hold a key, and keys.env if you want it. Then it runs check, and prints
    a line for cron. No file is ever overwritten. If a key or an address is wrong, or you press Ctrl-C before the end of
    the questions, nothing is written.

    Example: metrics-etl init
    """
    with report_errors(verbose=verbose):
        if not (yes or os.isatty(0)):
            raise ConfigurationError("init needs a terminal, or the keys in the environment and --yes")
        from etl.cli.questions import set_up

        given = {"file": config, "base_url": base_url, "run_tests": run_tests, "path": path, "warehouse": warehouse}
        answers = {name: value for name, value in (given | {"since": since}).items() if value}
        end(set_up(answers, is_asking=not yes))


def check(
    config: Config = None,
    *,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Do not check whether the dataset and the warehouse can be written.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check that an export would work.

    Tests the settings, server, key, run tests, destination, lock and warehouse, and leaves everything as it was. Sends
    one request, and one more for each run test that is not on the first page of the list. Exits with the code of the
    problem to fix first.

    Example: metrics-etl check
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_source import print_checks
        from etl.pipeline import preflight

        checks = run_async(preflight.check(config, on_hold=print_rate_limit_wait, is_read_only=read_only))
        print_in_form(checks, preflight.checks_as_json, print_checks, as_json=as_json, quiet=False)
        end(preflight.exit_code(checks))


def discover(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the run tests that your key can see, ready to paste.

    Prints run_tests for the settings file. Paste it above the first section, and remove the lines that you do not want.
    Needs no settings file. Exits with 2 if the key sees no run test, and with 3 if the list may be incomplete.

    Example: metrics-etl discover
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_source import run_tests_as_json, run_tests_as_toml
        from etl.extract.run_tests import discover_for
        from etl.settings import Settings

        settings = Settings.load(config, needs_run_tests=False)
        discovered = run_async(discover_for(settings, print_rate_limit_wait))
        if as_json:
            print_json(run_tests_as_json(discovered))
        else:
            print_result("\n".join(run_tests_as_toml(discovered)))
            print_message(*(f"problem: {problem}" for problem in discovered.problems))
        end(ExitCode.PARTIAL if discovered.problems else ExitCode.COMPLETE)
