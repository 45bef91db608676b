"""Days and moments as users write them: text, dates, datetimes, Timestamps. Pure."""

from datetime import UTC, date, datetime

import pandas as pd

from etl.errors import ConfigurationError


def moment(option: str, value: str | date | None) -> datetime | None:
    """A moment in UTC; one without a zone is in UTC, and a day means its first moment.

    Raises:
        ConfigurationError: it is no moment.
    """
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(found, pd.Timestamp):
            found = found.floor("us").to_pydatetime()
        if type(found) is date:
            found = datetime(found.year, found.month, found.day, tzinfo=UTC)
        if type(found) is datetime:
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise ConfigurationError(f"{option} must be a moment such as 2026-11-01T02:00:00Z, got {value!r}")


def day(option: str, value: str | date | None) -> date | None:
    """A UTC day; times without a zone count as UTC.

    Raises:
        ConfigurationError: it is not a day.
    """
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime) and not pd.isna(moment):
            return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
        if type(moment) is date:
            return moment
    except (ValueError, OverflowError):
        pass
    raise ConfigurationError(f"{option} must be a day such as 2026-11-01, got {value!r}")
