"""What ``check`` prints. Writes to the terminal; decides nothing."""

from collections.abc import Sequence

from rich.markup import escape

from etl.check import Check
from etl.terminal import stdout_console

_STYLES = {"ok": "green", "problem": "bold red", "skipped": "dim"}


def print_checks(checks: Sequence[Check]) -> None:
    """One line for each; to stdout."""
    console = stdout_console()
    for check in checks:
        outcome = f"[{_STYLES[check.outcome]}]{check.outcome:<8}[/]"
        console.print(f"{outcome} {check.subject:<12} {escape(check.detail)}", soft_wrap=True, highlight=False)
