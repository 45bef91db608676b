"""What ``--since`` takes, and what it says of the rest."""

from datetime import UTC, date, datetime

import pytest
import typer

from etl.cli.options import parse_day

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
    ],
)
def test_days_are_given_as_people_say_them(text: str, day: date) -> None:
    assert parse_day(text, today=TODAY) == day


def test_days_ago_are_counted_in_utc() -> None:
    before = datetime.now(UTC).date()
    assert before <= parse_day("today") <= datetime.now(UTC).date()


@pytest.mark.parametrize(
    "text",
    [
        *("", "tomorrow", "7", "d", "-7d", "7 d", "\u0667d", "1e3d", "999999d", "9999d"),
        *("2026-13-01", "20261101", "2026-W44-7"),
    ],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a date: use one such as 2026-11-01, yesterday, or 7d"):
        parse_day(text, today=date(1, 1, 2))
