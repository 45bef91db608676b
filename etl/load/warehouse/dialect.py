"""Parts that the statements of several engines share: columns, comments, quoting. Pure."""

import json
import re
from collections.abc import Iterable, Mapping

import pyarrow as pa

from etl.model import schema
from etl.model.schema import Column, Table

KINDS = (schema.STRING, schema.INT, schema.FLOAT, schema.BOOL, schema.TIMESTAMP, schema.DATE)
Types = Mapping[pa.DataType, str]

_COMMENT_MAX_BYTES = 255  # what Glue and the Hive metastore keep of a column's comment


def all_columns(table: Table) -> tuple[Column, ...]:
    """The columns of the files, then the partition columns."""
    return (*table.columns, *table.partitions)


def comment(column: Column) -> str:
    """Meaning and unit, cut to the whole sentences that a catalog keeps."""
    unit = f" Unit: {column.unit}." if column.unit else ""
    sentences = re.split(r"(?<=\.) ", column.meaning)
    while len(sentences) > 1 and len((" ".join(sentences) + unit).encode()) > _COMMENT_MAX_BYTES:
        sentences.pop()
    return " ".join(sentences) + unit


def indented(lines: Iterable[str]) -> str:
    """The lines, indented and separated by commas."""
    return ",\n".join(f"  {line}" for line in lines)


def joined_names(columns: Iterable[Column], quote: str = "") -> str:
    """The names of the columns, separated by commas."""
    return ", ".join(f"{quote}{column.name}{quote}" for column in columns)


def sql_quoted(text: str) -> str:
    """An SQL string literal, for engines that double quotes."""
    return "'" + text.replace("'", "''") + "'"


def backslash_quoted(text: str) -> str:
    """An SQL string literal, for engines that escape with a backslash."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def python_quoted(text: str) -> str:
    """A Python string literal; for printable text it is the same as in JSON."""
    return json.dumps(text, ensure_ascii=False)
