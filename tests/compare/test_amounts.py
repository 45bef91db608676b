"""Values are short, and never so short that a change cannot be seen."""

import pytest

from etl.compare.amounts import value_text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "-"),
        (1310.4, "ms", "1,310 ms"),
        (17.25, "US cents", "17.2 ct"),
        (0.0, "1/min", "0.00 1/min"),
        (0.35, "1/min", "0.35 1/min"),
        (0.0034, "1/min", "0.0034 1/min"),
        (-0.004, "score", "-0.004"),
        (0.93, "share", "93.0%"),
        (1.7e308, "ms", "1.7e+308 ms"),
    ],
)
def test_value_keeps_two_digits_however_small_it_is(value, unit, text):
    assert value_text(value, unit) == text
