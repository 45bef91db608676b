"""What ``check`` prints. Decides nothing."""

from collections.abc import Sequence

from rich.markup import escape

from etl.cli.console import stdout_console
from etl.model.wording import shown
from etl.pipeline.preflight import Check

_STYLES = {"ok": "green", "problem": "bold red", "skipped": "dim"}


def print_checks(checks: Sequence[Check]) -> None:
    """One line for each check; to stdout."""
    console = stdout_console()
    for check in checks:
        outcome = f"[{_STYLES[check.outcome]}]{check.outcome:<8}[/]"
        console.print(f"{outcome} {check.subject:<12} {escape(shown(check.detail))}", soft_wrap=True, highlight=False)
