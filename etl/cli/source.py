"""``check`` and ``discover``: test the settings and list the run tests, before an export."""

from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.console import print_json, print_message, print_rate_limit_wait, print_result
from etl.cli.options import AsJson, Config, Verbose
from etl.cli.process import end, report_errors, run_async
from etl.errors import ExitCode

if TYPE_CHECKING:
    from etl.extract.run_tests import Discovered
    from etl.settings import Settings


def check(
    config: Config = None,
    *,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Do not write test files to the destination: check only that it can be read."),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check that an export would work.

    Tests the settings, the server, the key, the run tests, the destination, the lock and the warehouse, and leaves nothing
    changed. It sends one request, and one more for each run test that is not on the first page of the list. The exit code
    is that of the problem to fix first.

    Example: metrics-etl check
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_source import print_checks
        from etl.pipeline import preflight

        checks = run_async(preflight.check(config, on_hold=print_rate_limit_wait, is_read_only=read_only))
        if as_json:
            print_json(preflight.as_json(checks))
        else:
            print_checks(checks)
        end(preflight.exit_code(checks))


def discover(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the run tests that your key can see, ready to paste.

    Prints run_tests for the settings file: paste it above the first section and remove the lines you do not want. Needs no
    settings file. Exits with 2 when the key sees no run test, with 3 when the list may be incomplete.

    Example: metrics-etl discover
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_source import run_tests_as_json, run_tests_as_toml
        from etl.settings import Settings

        discovered = run_async(_discover(Settings.load(config, needs_run_tests=False)))
        if as_json:
            print_json(run_tests_as_json(discovered))
        else:
            print_result("\n".join(run_tests_as_toml(discovered)))
            for problem in discovered.problems:
                print_message(f"problem: {problem}")
        end(ExitCode.PARTIAL if discovered.problems else ExitCode.COMPLETE)


async def _discover(settings: "Settings") -> "Discovered":
    from etl.extract.client import Client
    from etl.extract.run_tests import discover

    async with Client(settings, on_hold=print_rate_limit_wait) as client:
        return await discover(client, page_limit=settings.api.page_limit)
