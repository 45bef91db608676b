"""How messages count and list things."""

import pytest

from etl.model.wording import first_few


@pytest.mark.parametrize(("things", "text"), [(["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b and 1 more")])
def test_of_many_things_the_first_are_named(things, text):
    assert first_few(things) == text
