"""Every column that is declared, one by one."""

import pytest

from etl.model import schema

COLUMNS = [(table, column) for table in schema.TABLES.values() for column in table.columns]
COLUMN_IDS = [f"{table.name}.{column.name}" for table, column in COLUMNS]


def every_column(function):
    return pytest.mark.parametrize(("table", "column"), COLUMNS, ids=COLUMN_IDS)(function)
