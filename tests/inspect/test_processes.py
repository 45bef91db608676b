"""Work in processes of their own."""

import os

import pytest

from etl.errors import DestinationError
from etl.inspect.processes import in_processes


def test_results_come_in_the_order_of_the_shares_and_a_process_without_one_is_told() -> None:
    assert [*in_processes(str.upper, ["b", "a", "c"])] == ["B", "A", "C"]
    with pytest.raises(DestinationError, match=r"ended with code 9\. Try again with more memory"):
        [*in_processes(os._exit, [9])]
