"""What must hold for a file of the dataset, and for the rows of one part. Pure: schemas and tables in, faults out.

Nothing is fixed here: each fault is a kind of finding and a text; the kind says what to do about it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema
from etl.model.findings import Kind
from etl.model.lifecycle import ExportState, HeldRows
from etl.model.wording import counted
from etl.transform.frames import hash_rows

_BATCH_ROWS = 5_000


class Fault(NamedTuple):
    """What is wrong with a file, whichever it is."""

    kind: Kind
    text: str


def schema_fault(table: schema.Table, found: pa.Schema) -> Fault | None:
    """Why a file of this schema is not one of the table: unknown columns, a missing key, other types, another order."""
    if unknown := [name for name in found.names if name not in table.names]:
        return Fault(Kind.SCHEMA, f"has unknown columns: {', '.join(unknown)}")
    if missing := [name for name in table.key if name not in found.names]:
        return Fault(Kind.SCHEMA, f"is missing the column {missing[0]}, a part of its key")
    if found.names != (known := [name for name in table.names if name in found.names]):
        return Fault(Kind.SCHEMA, f"has its columns in another order than {', '.join(known)}")
    for each in found:
        declared = table.arrow_schema.field(each.name)
        if each.type != declared.type:
            return Fault(Kind.SCHEMA, f"has {each.name} as {each.type}, expected {declared.type}")
        if each.nullable != declared.nullable:
            return Fault(Kind.SCHEMA, f"declares {each.name} as {'' if each.nullable else 'not '}nullable")
    return None


def row_faults(table: schema.Table, rows: pa.Table) -> Iterator[Fault]:
    """Null keys, keys that stand twice, and rows whose values are not those that were hashed.

    A call that went to another execution stands once more where it was, marked as deleted: only what lives is unique.
    """
    keys = list(zip(*(rows[name].to_pylist() for name in table.key), strict=True))
    if nulls := sum(None in key for key in keys):
        yield Fault(Kind.ALTERED, f"{counted(nulls, 'row')} without {' or '.join(table.key)}")
    if twice := [key for key, count in Counter(_unique(table, rows, keys)).items() if count > 1]:
        yield Fault(Kind.ALTERED, f"{counted(len(twice), 'key')} more than once: {_key(table, twice[0])}")
    if "row_hash" in table.names:
        altered = list(_altered(table, rows))
        if altered:
            yield Fault(
                Kind.ALTERED,
                f"{counted(len(altered), 'row')} with other values than were exported: {_key(table, keys[altered[0]])}",
            )


def _unique(table: schema.Table, rows: pa.Table, keys: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """What may stand but once: the key of a row, with its execution if it is a call or an eval that is marked."""
    if "call_execution_id" not in table.key:
        yield from keys
        return
    marked = zip(rows["deleted_at"].is_valid().to_pylist(), rows["execution_id"].to_pylist(), strict=True)
    for key, (is_deleted, execution_id) in zip(keys, marked, strict=True):
        yield (*key, execution_id) if is_deleted else key


def _altered(table: schema.Table, rows: pa.Table) -> Iterator[int]:
    """Positions of the rows whose hash is not that of their values; rows without a hash are left to the digest."""
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows.slice(start, _BATCH_ROWS)
        pairs = zip(batch["row_hash"].to_pylist(), hash_rows(table, batch), strict=True)
        yield from (start + index for index, (stored, made) in enumerate(pairs) if stored not in (None, made))


def damage(row: Mapping[str, Any], held: HeldRows) -> str | None:
    """What an execution's row says of its calls and evals that is not true of the rows that are ``held``."""
    if held.exported_calls != row["exported_calls"]:
        return f"{held.exported_calls} of {row['exported_calls']} exported calls are there"
    if held.calls_digest != row["calls_digest"]:
        return "its calls or evals are not those that were exported"
    is_whole = row["export_state"] in (ExportState.EXPORTED, ExportState.SETTLING) and row["deleted_at"] is None
    if is_whole and row["listed_calls"] != held.exported_calls:
        return f"{row['export_state']}, but {row['listed_calls']} calls were listed and {held.exported_calls} exported"
    return None


def other_executions(rows: pa.Table, executions: Iterable[str]) -> list[str]:
    """The executions of the rows that are not among ``executions``."""
    others = pc.invert(pc.is_in(rows["execution_id"], value_set=pa.array(list(executions), pa.string())))
    return rows["execution_id"].filter(others).unique().to_pylist()  # type: ignore[no-any-return]


def _key(table: schema.Table, key: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(table.key, key, strict=False))
