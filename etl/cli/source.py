"""``check`` and ``discover``: what the API and the settings say before an export."""

import sys

import typer

from etl.cli import process
from etl.cli.options import AsJson, Config, Verbose, errors_reported, print_json, tell_hold


def check(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Look whether an export would work: settings, server, key, run tests, destination, lock. Changes nothing.

    Example: metrics-etl check
    """
    with errors_reported(verbose=verbose):
        from etl.cli.show_health import print_checks  # noqa: PLC0415
        from etl.pipeline import preflight as command  # noqa: PLC0415

        checks = process.run(command.check(config))
        if as_json:
            print_json(command.as_json(checks))
        else:
            print_checks(checks)
        raise typer.Exit(command.exit_code(checks))


def discover(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the run tests that the key sees, to paste into the settings file. Needs the keys, but no settings file.

    Example: metrics-etl discover
    """
    with errors_reported(verbose=verbose):
        from etl.cli import show_run_tests as command  # noqa: PLC0415
        from etl.settings import Settings  # noqa: PLC0415

        settings = Settings.load(config, needs_run_tests=False)
        found = process.run(command.discover_run_tests(settings, on_hold=tell_hold))
        if as_json:
            print_json(command.as_json(found))
        else:
            print("\n".join(command.as_toml(found)))
            for problem in found.problems:
                print(f"problem: {problem}", file=sys.stderr)
        raise typer.Exit(3 if found.problems else 0)
