"""A path gives back what it was made of, whatever the run test is called."""

from hypothesis import given
from hypothesis import strategies as st

from etl.load.layout import Part, days_of, folder_of, parse_part_path, part_path, place_of
from tests.strategies import run_test_keys


@given(
    st.sampled_from(["executions", "calls", "evals", "errors"]),
    run_test_keys,
    st.dates(),
    st.integers(0, 999_999_999),
)
def test_a_path_gives_back_the_part_that_it_was_made_of(table, key, day, number):
    folder = folder_of(day)
    part = Part(key, place_of(folder, number))
    assert parse_part_path(part_path(table, part)) == (table, part)
    assert part.folder == folder
    first, last = days_of(folder)
    assert first <= day <= last
