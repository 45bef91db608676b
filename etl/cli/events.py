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
