"""Days as people say them. Pure."""

import re
from datetime import date, timedelta

A_DAY = "such as 2026-11-01, yesterday, or 7d for seven days ago"
"""What a message says of text that is no day."""


def day_of(text: str, today: date) -> date | None:
    """The day that is meant by ``2026-11-01``, ``today``, ``yesterday``, or ``7d`` for seven days ago; None if none is."""
    days = {"today": 0, "yesterday": 1}.get(text)
    if re.fullmatch(r"[0-9]{1,5}d", text):
        days = int(text[:-1])
    try:
        if days is not None:
            return today - timedelta(days=days)
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except (ValueError, OverflowError):
        pass
    return None
