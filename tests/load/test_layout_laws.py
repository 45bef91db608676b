"""A path gives back what it was made of, whatever the run test is called."""

from hypothesis import given
from hypothesis import strategies as st

from etl.load.layout import Partition, parse_partition_path, partition_path
from tests.strategies import run_test_keys


@given(
    st.sampled_from(["executions", "calls", "evals", "errors"]),
    run_test_keys,
    st.dates().map(lambda day: day.isoformat()),
)
def test_a_path_gives_back_the_partition_that_it_was_made_of(table, key, date):
    partition = Partition(key, date)
    assert parse_partition_path(partition_path(table, partition)) == (table, partition)
