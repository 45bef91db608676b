"""Comments that every catalog keeps."""

import pytest

from etl.load.texts import comment
from etl.model import schema


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=schema.TABLES)
def test_a_comment_is_whole_sentences_that_a_catalog_keeps(table):
    for column in (*table.columns, *table.partitions):
        text = comment(column)
        assert len(text.encode()) <= 255
        assert text.endswith(f" Unit: {column.unit}." if column.unit else ".")
        assert column.meaning.startswith(text.removesuffix(f" Unit: {column.unit}."))


def test_a_long_comment_loses_its_last_sentences_and_not_its_unit():
    column = schema.Column("name", schema.INT, f"{'First.'} {'x' * 240}. Last.", "ms")
    assert comment(column) == "First. Unit: ms."
    assert comment(schema.Column("name", schema.INT, "First. Last.", "ms")) == "First. Last. Unit: ms."
