"""Log events on stderr: one JSON object each, or one readable line.

Event names are stable. No event carries a key, a header or a body.
"""

import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from etl.model.wording import shown
from etl.settings import Log

EVENTS: dict[str, tuple[str, str]] = {
    "run_started": ("the run begins", "`export_run_id`, `dataset`"),
    "discovered": ('with `run_tests = "all"`: how many run tests the key sees', "`run_tests`"),
    "listed": ("the list of a run test was read: its executions, by reason", "`run_test`, `executions`, `reasons`"),
    "run_test_failed": ("a run test could not be listed", "`run_test`, `error`"),
    "planned": ("what is fetched, and with how many requests", "`executions`, `requests`"),
    "concurrency_reduced": (
        "the process may open too few files (`ulimit -n`) for `[api] concurrency`; below 34 the run exits with 2",
        "`concurrency`",
    ),
    "held": ("the rate limit blocks all requests for this many seconds", "`seconds`"),
    "moved": ("executions moved to this run test, from the key `source`", "`run_test`, `executions`, `source`"),
    "deleted": ("executions were deleted at the source", "`run_test`, `executions`"),
    "committed": (
        "what has arrived is saved; `requests_left` and `seconds_left` (null when unknown) until the end",
        "`executions`, `files`, `bytes`, `requests_left`, `seconds_left`",
    ),
    "run_finished": (
        "the run ended",
        "the fields of `run --json`, except `run_tests`, `receipt`, `dataset` and `version`",
    ),
    "run_failed": ("the run ended before its first request", "`error`, `exit_code`"),
    "metrics_file_failed": ("the export was saved, but not the file of `--metrics-file`", "`error`, `exit_code`"),
    "problem": ("with `--quiet`, which leaves out all other events: one of the `problems`", "`problem`"),
}
"""Each event: what it means, and its fields."""

_WARNINGS = {"run_test_failed"}
_ERRORS = {"problem", "run_failed", "metrics_file_failed"}
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def make_notify(log: Log, *, verbose: bool) -> Callable[..., None]:
    """A function that writes an event with its fields as one line."""
    level = 10 if verbose else _LEVELS[log.level]
    is_console = log.format == "console" or (log.format == "auto" and sys.stderr.isatty())
    is_colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=is_colored) if is_console else structlog.processors.JSONRenderer()
    )
    logger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_with_texts_shown] if is_console else []),  # JSON escapes by itself
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )

    def notify(event: str, **fields: Any) -> None:
        write = logger.error if event in _ERRORS else logger.warning if event in _WARNINGS else logger.info
        write(event, **fields)

    return notify


def _with_texts_shown(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The event with control characters escaped in its texts; in what else it holds, ``repr`` escapes them."""
    return {name: shown(value) if isinstance(value, str) else value for name, value in event.items()}
