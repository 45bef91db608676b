"""What ``check`` and ``discover`` print: checks as lines; run tests as TOML to paste, and as JSON. Decides nothing."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape

from etl.cli.console import as_json, stdout_console
from etl.extract.run_tests import Discovered
from etl.model.keys import default_key
from etl.model.wording import shown
from etl.pipeline.preflight import Check

_WIDEST_NAME = 40
_STYLES = {"ok": "green", "problem": "bold red", "skipped": "dim"}


def print_checks(checks: Sequence[Check]) -> None:
    """Print one line for each check to stdout."""
    console = stdout_console()
    for check in checks:
        outcome = f"[{_STYLES[check.outcome]}]{check.outcome:<8}[/]"
        console.print(f"{outcome} {check.subject:<12} {escape(shown(check.detail))}", soft_wrap=True, highlight=False)


def run_tests_as_toml(discovered: Discovered) -> Iterator[str]:
    """The lines of ``run_tests`` for a settings file; the first and the last are its brackets.

    A comment after each name says its folder in the dataset.
    """
    names = {name: f"{as_json(name)}," for name in discovered.run_tests}  # a string in JSON is one in TOML, too
    width = min(_WIDEST_NAME, max(map(len, names.values())))
    yield "run_tests = ["
    for name, run_tests in discovered.run_tests.items():
        namesakes = f", {len(run_tests)} run tests have this name and are exported as one" if len(run_tests) > 1 else ""
        yield f"    {names[name]:<{width}} # folder {default_key(name)}{namesakes}"
    yield "]"


def run_tests_as_json(discovered: Discovered) -> dict[str, Any]:
    """The run tests as a JSON object."""
    return {
        "problems": discovered.problems,
        "run_tests": [
            {"name": name, "key": default_key(name), "run_test_ids": [run_test.run_test_id for run_test in run_tests]}
            for name, run_tests in discovered.run_tests.items()
        ],
    }
