"""What ``check`` prints. Decides nothing."""

from collections.abc import Sequence

from rich.markup import escape

from etl.cli.console import stdout_console
from etl.model.wording import shown
from etl.pipeline.preflight import Check

FIELDS = {
    "exit_code": "that of the problem to fix first; 0 when there is none",
    "checks[].subject": "what was checked, in the order of the table below",
    "checks[].outcome": "`ok`, `problem` or `skipped`",
    "checks[].detail": "what was found, or what to fix",
    "checks[].exit_code": "what an export would exit with; 0 when it is fine or was skipped",
}
"""What each field of the JSON means."""
_STYLES = {"ok": "green", "problem": "bold red", "skipped": "dim"}


def print_checks(checks: Sequence[Check]) -> None:
    """One line for each check; to stdout."""
    console = stdout_console()
    for check in checks:
        outcome = f"[{_STYLES[check.outcome]}]{check.outcome:<8}[/]"
        console.print(f"{outcome} {check.subject:<12} {escape(shown(check.detail))}", soft_wrap=True, highlight=False)
