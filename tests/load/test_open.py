"""Which warehouse a URL means, and what opening one leaves behind."""

from contextlib import closing

import pytest

from etl.load.open import open_warehouse


@pytest.mark.parametrize("purpose", ["read", "rehearse"])
def test_who_does_not_load_a_warehouse_that_is_not_there_yet_leaves_nothing_behind(tmp_path, purpose):
    with closing(open_warehouse(f"duckdb://{tmp_path}/new.duckdb", "metrics", purpose)) as warehouse:
        assert warehouse.loaded().dataset_id is None
    assert not any(tmp_path.iterdir())
