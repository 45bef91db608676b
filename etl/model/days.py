"""Read a day as people write it, for ``--since``, ``since=`` and ranges of days. Pure: today is a parameter."""

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

A_DAY = "such as 2026-11-01, yesterday, or 7d for seven days ago"
"""What a message offers in place of a text that is no day."""


def day_of(value: object, today: date) -> date | None:
    """The day meant by ``2026-11-01``, ``today``, ``yesterday`` or ``7d`` (seven days ago), or None.

    A date stands for itself. A datetime with an offset stands for its day in UTC, one without an offset for its own
    day.
    """
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).date()
    if isinstance(value, date):
        return value
    text = {"today": "0d", "yesterday": "1d"}.get(str(value), str(value))
    with suppress(ValueError, OverflowError):
        if re.fullmatch(r"[0-9]{1,5}d", text):
            return today - timedelta(days=int(text[:-1]))
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    return None
