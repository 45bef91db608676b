"""What ``--since`` and ``since=`` take."""

from datetime import date, datetime

import pytest

from etl.model.days import day_of

TODAY = date(2026, 11, 26)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-01", date(2026, 11, 1)),
        ("2027-01-01", date(2027, 1, 1)),
        ("today", TODAY),
        ("yesterday", date(2026, 11, 25)),
        ("7d", date(2026, 11, 19)),
        ("0d", TODAY),
        ("365d", date(2025, 11, 26)),
        (date(2026, 11, 1), date(2026, 11, 1)),
        (datetime.fromisoformat("2026-11-01T23:00:00-02:00"), date(2026, 11, 2)),
    ],
)
def test_days_are_given_as_people_say_them(text: object, day: date) -> None:
    assert day_of(text, TODAY) == day


@pytest.mark.parametrize(
    "text",
    [
        *(7, None, "", "tomorrow", "7", "d", "-7d", "7 d", "\u0667d", "1e3d", "999999d", "9999d"),
        *("2026-13-01", "20261101", "2026-W44-7"),
    ],
)
def test_anything_else_is_no_day(text: object) -> None:
    assert day_of(text, date(1, 1, 2)) is None
