"""What a column and a table are, and the Arrow schema that follows from their declaration.

``schema`` declares the tables themselves. Pure.
"""

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
_TYPE_NAMES = {TIMESTAMP: "timestamp[us, UTC]", DATE: "date"}
"""By Arrow type, its name in the documentation, if that is not Arrow's own."""
GIVEN = "null when the API gave no value that fits"
"""The null rule of a column that the API fills."""
_AS_FOR = {"latency": ", as for chats", "conversation": ", as for chats", "chat_metrics": ", as for most voice calls"}
"""By the part of a call's metrics, of which calls the API gives none of its values."""
NEVER = "never null"
"""The null rule of a key, and of a column that the exporter fills."""
_NULLABLE_DTYPES = {INT: "Int64", BOOL: "boolean"}
"""By Arrow type, the pandas dtype that holds nulls without turning the column into floats or objects."""


@dataclass(frozen=True, slots=True)
class Column:
    """The declaration of one column."""

    name: str
    """Its name in files, in frames and in every warehouse."""
    type: pa.DataType
    """Its Arrow type, one of those of this module."""
    meaning: str
    """What it means, as a sentence of the data dictionary."""
    unit: str = ""
    """The unit of its numbers; empty if they have none."""
    source: str = ""
    """The path of its value in the payload, or several, split by ``|``. Empty if the exporter makes the value."""
    null: str = ""
    """When it is null, if the default of ``null_rule`` does not hold."""
    is_key: bool = False
    """Whether it is part of its table's key."""
    is_json: bool = False
    """Whether it holds an open-ended object, or a list, as JSON text."""

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """The payload paths that feed the column, in order of preference; none if the exporter makes its values."""
        return tuple(tuple(path.split(".")) for path in self.source.split("|") if path)

    @property
    def null_rule(self) -> str:
        """When the column is null.

        By default a value from the API may be missing, and neither a key nor a value that the exporter makes may.
        """
        given = GIVEN + _AS_FOR.get(self.source.partition(".")[0], "")
        return self.null or (given if self.source and not self.is_key else NEVER)

    @property
    def type_name(self) -> str:
        """The name of the type in the documentation."""
        return _TYPE_NAMES.get(self.type, str(self.type))

    @property
    def described(self) -> dict[str, str]:
        """What a reference says of it beside its name, by title; an empty text where it has nothing of the kind."""
        texts = {"type": self.type_name, "unit": self.unit, "meaning": self.meaning}
        return texts | {"source": self.source, "null": self.null_rule}


DAY = Column(
    "date",
    DATE,
    "UTC day on which the row's execution was created or, in runs, the export run began.",
    null="null when the API does not say when the execution was created",
)
"""A column of no file: readers get it from the start of the execution, or of the export run."""


@dataclass(frozen=True)
class Table:
    """The declaration of one table."""

    name: str
    """Its name: that of its folder, and of its table in a warehouse."""
    one_row_per: str
    """What a row stands for, in words."""
    endpoint: str
    """The endpoint that its rows come from, with the query that asks for them; empty if the exporter makes the rows."""
    columns: tuple[Column, ...]
    """The columns of its files, in order."""
    partitions: tuple[Column, ...]
    """Columns that stand only in the path of its files, outermost first."""

    @property
    def start(self) -> str:
        """Name of the column that says when the row's execution, or the export run, began."""
        return "started_at" if "started_at" in self.names else "execution_started_at"

    @property
    def added_columns(self) -> tuple[Column, ...]:
        """The columns that ``etl.read_table`` adds to those of the files: the folder of the run test, and the day."""
        return (*(column for column in self.partitions if column.name == "run_test"), DAY)

    @cached_property
    def key(self) -> tuple[str, ...]:
        """Names of the columns that identify a row; they are never null."""
        return tuple(column.name for column in self.columns if column.is_key)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All column names, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The exact schema of every file of the table. Only a key is declared as not null."""
        fields = [pa.field(column.name, column.type, nullable=not column.is_key) for column in self.columns]
        return pa.schema(fields, metadata={"table": self.name, "pandas": self._pandas_metadata})

    @cached_property
    def no_rows(self) -> pa.Table:
        """A table of this schema without any row."""
        return pa.Table.from_batches([], self.arrow_schema)  # empty_table() imports pandas

    @property
    def _pandas_metadata(self) -> str:
        """What makes a plain ``pandas.read_parquet`` use nullable dtypes for integers and booleans.

        Without it, pandas turns such a column into floats or objects as soon as one value is null.
        """
        fields = ("name", "field_name", "pandas_type", "numpy_type", "metadata")
        columns = [
            dict(zip(fields, (column.name, column.name, str(column.type), dtype, None), strict=True))
            for column in self.columns
            if (dtype := _NULLABLE_DTYPES.get(column.type))
        ]
        return json.dumps({"index_columns": [], "column_indexes": [], "columns": columns}, separators=(",", ":"))


NOT_SHOWN = "null when the execution's detail was not read, or gave no value that fits"
"""The null rule of a column that only the execution's detail has."""


def field(path: str, type_: pa.DataType, meaning: str, unit: str = "", null: str = "") -> Column:
    """A column that has the name of its path in the payload, without what would only repeat the table."""
    name = path.removeprefix("metrics.").removeprefix("call_results.").replace(".", "_")
    return Column(name, type_, meaning, unit, path, null)


def shown(
    name: str, type_: pa.DataType, meaning: str, unit: str = "", *, null: str = NOT_SHOWN, is_json: bool = False
) -> Column:
    """A column of a field that only the execution's detail has, or the list of voice calls, which is joined to it."""
    return Column(name, type_, meaning, unit, f"detail.{name}", null, is_json=is_json)
