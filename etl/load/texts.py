"""Texts that several engines take alike: the comment of a column, and a text as a literal. Pure."""

import re

from etl.model.schema import Column

_COMMENT_MAX_BYTES = 255  # what Glue and the Hive metastore keep of a column's comment


def comment(column: Column) -> str:
    """A column's comment: its meaning, shortened by whole sentences until a catalog keeps all of it, and its unit."""
    unit = f" Unit: {column.unit}." if column.unit else ""
    sentences = re.split(r"(?<=\.) ", column.meaning)
    while len(sentences) > 1 and len((" ".join(sentences) + unit).encode()) > _COMMENT_MAX_BYTES:
        sentences.pop()
    return " ".join(sentences) + unit


def sql_quoted(text: str) -> str:
    """The text as an SQL literal, for engines that double quotes."""
    return "'" + text.replace("'", "''") + "'"


def backslash_quoted(text: str) -> str:
    """The text as an SQL literal, for engines that escape with a backslash."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
