"""What the declaration of a column makes of its Arrow field."""

import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.model import schema
from tests.model.declared import every_column


@every_column
def test_null_rule_says_when_a_column_is_null(table, column):
    assert re.fullmatch(r"never null|null (when|while|until|unless) .*[^.]", column.null_rule)
    assert not column.is_key or column.null_rule == schema.NEVER


@every_column
def test_field_metadata_carries_meaning_unit_source_and_null_rule(table, column):
    field = table.arrow_schema.field(column.name)
    declared = {"meaning": column.meaning, "unit": column.unit, "source": column.source, "null": column.null_rule}
    assert field.type == column.type
    assert {name.decode(): value.decode() for name, value in field.metadata.items()} == {
        name: value for name, value in declared.items() if value
    }


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=schema.TABLES)
def test_schema_names_its_table_and_keeps_the_order_of_columns(table):
    assert table.arrow_schema.metadata[b"table"] == table.name.encode()
    assert tuple(table.arrow_schema.names) == table.names


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=schema.TABLES)
def test_plain_pandas_keeps_whole_numbers_and_booleans(table, tmp_path):
    """Of its own accord pandas would read whole numbers with a null among them as floats."""
    path = tmp_path / "part-0.parquet"
    keys_alone = [dict.fromkeys(table.key, "key")]
    pq.write_table(pa.Table.from_pylist(keys_alone, table.arrow_schema), path)
    read = pd.read_parquet(path)
    nullable = {schema.INT: "Int64", schema.BOOL: "boolean"}
    assert {column.name: str(read.dtypes[column.name]) for column in table.columns if column.type in nullable} == {
        column.name: nullable[column.type] for column in table.columns if column.type in nullable
    }
