"""The columns of a warehouse's tables: those of the files, and those that stand in their path."""

import re

import pytest

from etl.dataset import layout
from etl.model import schema


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=schema.TABLES)
def test_partition_columns_are_those_of_the_layout(table):
    key = "" if table.name == "runs" else "checkout"
    path = layout.part_path(table.name, layout.Part(key, "month=2026-11/part-0"))
    assert [column.name for column in table.partitions] == re.findall(r"/([a-z_]+)=", path)
