"""Every column that is declared."""

from collections.abc import Callable

from etl.model import schema

COLUMNS = [(table, column) for table in schema.TABLES.values() for column in table.columns]


def every_column(check: Callable[[schema.Table, schema.Column], None]) -> Callable[[], None]:
    """The check as one test over all columns; a failure says of which one."""

    def test() -> None:
        for table, column in COLUMNS:
            try:
                check(table, column)
            except AssertionError as error:
                error.add_note(f"{table.name}.{column.name}")
                raise

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test
