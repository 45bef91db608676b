"""Executions that lie in another month than they began in: the API gave their start later, or corrected it."""

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import DestinationError
from etl.load.files.contract import Entry, Files, read_each
from etl.load.index import Index, index_if_readable, is_known, list_parts
from etl.load.layout import Part, Scope
from etl.load.parquet import UnreadableError, open_part
from etl.model import schema


def with_later_starts(files: Files, scope: Scope, *, is_strict: bool = False) -> Scope:
    """The scope, and the parts that have an execution of its days which began in another month when the part took it.

    Of a part that the index does not know as it is, the starts are read. ``is_strict``: of every part, and one where nothing can
    be read of them is in the scope.

    Raises:
        DestinationError: a folder cannot be listed, or holds other data.
    """
    if not scope.has_bounds:
        return scope
    known = Index() if is_strict else index_if_readable(files, [])
    keys = scope.run_test_keys
    outside = {
        part: entries
        for part, entries in list_parts(files).items()
        if not scope.overlaps(part.folder) and (keys is None or part.run_test_key in keys)
    }

    def has_later(found: tuple[Part, Mapping[str, Entry]]) -> bool:
        starts = _starts(files, known, *found)
        if starts is None:
            return is_strict
        days = starts.cast(schema.DATE)
        is_in = pc.and_(pc.greater_equal(days, scope.since), pc.less_equal(days, scope.until))
        return bool(pc.any(is_in).as_py())

    others = [part for part, is_in in zip(outside, read_each(files, has_later, outside.items()), strict=True) if is_in]
    return replace(scope, others=frozenset(others))


def _starts(files: Files, known: Index, part: Part, entries: Mapping[str, Entry]) -> pa.ChunkedArray | None:
    """When the part's executions began; None where nothing can be read of them."""
    if is_known(known, part, entries):
        return known.parts[part].rows["started_at"]
    if schema.EXECUTIONS.name not in entries:
        return None
    try:
        rows = open_part(files, schema.EXECUTIONS, entries[schema.EXECUTIONS.name].path).read(["started_at"])
    except (DestinationError, UnreadableError):
        return None
    return rows["started_at"]
