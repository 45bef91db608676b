"""The types of a column and a table, and the Arrow schema made from them. ``schema`` declares the tables."""

import json
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

STRING = pa.string()
INT = pa.int64()
FLOAT = pa.float64()
BOOL = pa.bool_()
TIMESTAMP = pa.timestamp("us", tz="UTC")
DATE = pa.date32()
TYPE_NAMES = {
    STRING: "string",
    INT: "int64",
    FLOAT: "double",
    BOOL: "bool",
    TIMESTAMP: "timestamp[us, UTC]",
    DATE: "date",
}
GIVEN = "null when the API gave no value that fits"
NEVER = "never null"
_NULLABLE_DTYPES = {INT: "Int64", BOOL: "boolean"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``source`` is the path in the payload, or several, split by ``|``; empty for what the exporter makes.

    ``null`` says when the column is null, if the default of ``null_rule`` does not hold. ``is_json`` marks an open-ended object
    that is stored as JSON text.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    source: str = ""
    null: str = ""
    is_key: bool = False
    is_json: bool = False

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """The payload paths that feed the column, in order of preference."""
        return tuple(tuple(path.split(".")) for path in self.source.split("|")) if self.source else ()

    @property
    def null_rule(self) -> str:
        """When the column is null. By default a value from the API may be missing, and one that the exporter makes is not."""
        return self.null or (GIVEN if self.source and not self.is_key else NEVER)

    @property
    def type_name(self) -> str:
        """The name of the type in the documentation."""
        return TYPE_NAMES[self.type]


DAY = Column(
    "date",
    DATE,
    "UTC day on which the row's execution was created, or the export run began.",
    null="null when the API does not say when the execution was created",
)


@dataclass(frozen=True)
class Table:
    """One table: its columns, its key, where its rows come from. ``partitions`` are columns in the path of its files only."""

    name: str
    one_row_per: str
    endpoint: str
    columns: tuple[Column, ...]
    partitions: tuple[Column, ...]

    @property
    def start(self) -> str:
        """The column that says when the row's execution, or the export run, began."""
        return "started_at" if "started_at" in self.names else "execution_started_at"

    @property
    def added_columns(self) -> tuple[Column, ...]:
        """What ``etl.read_table`` adds to the columns of the files."""
        return (*(column for column in self.partitions if column.name == "run_test"), DAY)

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row, and are never null."""
        return tuple(column.name for column in self.columns if column.is_key)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All column names, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The exact schema of every file of the table."""
        fields = [pa.field(column.name, column.type, nullable=not column.is_key) for column in self.columns]
        return pa.schema(fields, metadata={"table": self.name, "pandas": self._pandas_metadata})

    @cached_property
    def no_rows(self) -> pa.Table:
        """The schema without any rows."""
        return self.arrow_schema.empty_table()

    @property
    def _pandas_metadata(self) -> str:
        """Makes plain ``pandas.read_parquet`` use nullable dtypes for integers and booleans.

        By default pandas turns such a column into floats or objects as soon as one value is null.
        """
        names = ("name", "field_name", "pandas_type", "numpy_type", "metadata")
        columns = [
            dict(zip(names, (each.name, each.name, str(each.type), dtype, None), strict=True))
            for each in self.columns
            if (dtype := _NULLABLE_DTYPES.get(each.type))
        ]
        return json.dumps({"index_columns": [], "column_indexes": [], "columns": columns}, separators=(",", ":"))
