"""Parts that the statements of several engines share: location, columns, comments, quoting. Pure."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from etl.errors import ConfigurationError
from etl.model import schema
from etl.model.schema import Column

KINDS = (schema.STRING, schema.INT, schema.FLOAT, schema.BOOL, schema.TIMESTAMP)
Types = Mapping[pa.DataType, str]

_COMMENT_MAX_BYTES = 255  # what Glue and the Hive metastore keep of a column's comment


def dataset_root(location: str, reader: str, schemes: Sequence[str], *, is_relative_allowed: bool = True) -> str:
    """The location of a dataset without a trailing slash. ``schemes`` are those that the reader knows; the empty one means a path.

    Raises:
        ConfigurationError: the reader cannot read the location, or would misread it.
    """
    where = f"--location {location!r}"
    scheme, separator, path = location.rpartition("://")
    if not path.strip("/ "):
        raise ConfigurationError(f"{where} does not name a folder")
    if not location.isprintable() or re.search(r"[*?\[\]{}\\]", location):
        raise ConfigurationError(
            f"{where} must not hold * ? [ ] {{ }} \\ or control characters: engines read them as patterns"
        )
    if re.search(r"(^|/)(run_test|month)=", path):
        raise ConfigurationError(
            f"{where} must be the folder that holds executions/, calls/, …, not one of their partitions"
        )
    if scheme not in schemes or bool(separator) != bool(scheme):
        known = ", ".join(f"{known}://" if known else "paths" for known in schemes)
        raise ConfigurationError(f"{where} cannot be read by {reader}, which reads {known}")
    if not (scheme or is_relative_allowed or path.startswith("/")):
        raise ConfigurationError(f"{where} must begin with / for {reader}, which has no working folder")
    return location.rstrip("/")


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
