"""A comment on a column is whole sentences that a catalog keeps."""

import pytest

from etl.load.warehouse.tables import comment
from etl.model import schema

TABLES = list(schema.TABLES.values())


every_table = pytest.mark.parametrize("table", TABLES, ids=schema.TABLES)


@every_table
def test_a_comment_is_whole_sentences_that_a_catalog_keeps(table):
    for column in (*table.columns, *table.partitions):
        text = comment(column)
        assert len(text.encode()) <= 255
        assert text.endswith(".")
        assert column.meaning.startswith(text.removesuffix(f" Unit: {column.unit}."))
        assert not column.unit or text.endswith(f" Unit: {column.unit}.")


def test_a_long_comment_loses_its_last_sentences_and_not_its_unit():
    column = schema.Column("name", schema.INT, f"{'First.'} {'x' * 240}. Last.", "ms")
    assert comment(column) == "First. Unit: ms."
    assert comment(schema.Column("name", schema.INT, "First. Last.", "ms")) == "First. Last. Unit: ms."
