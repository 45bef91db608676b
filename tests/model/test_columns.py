"""What follows from the declaration of a column and a table: the schema of files, and what pandas makes of it."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl.model import schema
from tests.model.test_schema import every_column, every_table


@every_column
def test_only_the_key_is_never_null(table, column):
    assert table.arrow_schema.field(column.name).nullable is not column.is_key


@every_column
def test_field_has_the_type_of_its_column_and_no_text(table, column):
    """Texts take more bytes than the rows of a small part."""
    field = table.arrow_schema.field(column.name)
    assert (field.type, field.metadata) == (column.type, None)


@every_table
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
