"""The columns that an engine must know of, and how names and texts are written for it. Pure."""

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
    """The columns in the files, then those in the paths."""
    return (*table.columns, *table.partitions)


def comment(column: Column) -> str:
    """Meaning and unit: as many whole sentences as a catalog keeps."""
    unit = f" Unit: {column.unit}." if column.unit else ""
    sentences = re.split(r"(?<=\.) ", column.meaning)
    while len(sentences) > 1 and len((" ".join(sentences) + unit).encode()) > _COMMENT_MAX_BYTES:
        sentences.pop()
    return " ".join(sentences) + unit


def indented(lines: Iterable[str]) -> str:
    """One line each, with a comma between them."""
    return ",\n".join(f"  {line}" for line in lines)


def listed(columns: Iterable[Column], quote: str = "") -> str:
    """The names in one line."""
    return ", ".join(f"{quote}{column.name}{quote}" for column in columns)


def doubled(text: str) -> str:
    """A text in SQL where a quote is doubled."""
    return "'" + text.replace("'", "''") + "'"


def escaped(text: str) -> str:
    """A text in SQL where a backslash escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def in_python(text: str) -> str:
    """A text in Python; JSON writes printable text alike."""
    return json.dumps(text, ensure_ascii=False)
