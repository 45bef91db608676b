"""What ``--since`` says of text that is no day; which text is, see ``tests/model/test_days.py``."""

import pytest
import typer

from etl.cli.options import parse_day


def test_what_is_no_day_is_refused_with_examples() -> None:
    assert parse_day("yesterday") < parse_day("0d")
    with pytest.raises(typer.BadParameter, match="'7' is not a date such as 2026-11-01, yesterday, or 7d"):
        parse_day("7")
