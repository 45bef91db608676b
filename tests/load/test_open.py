"""Which warehouse a URL means, and what opening one leaves behind."""

from contextlib import closing

from etl.load.open import open_warehouse


def test_who_only_reads_a_warehouse_that_is_not_there_yet_leaves_nothing_behind(tmp_path):
    with closing(open_warehouse(f"duckdb://{tmp_path}/new.duckdb", "metrics", is_read_only=True)) as warehouse:
        assert warehouse.loaded().dataset_id is None
    assert not any(tmp_path.iterdir())
