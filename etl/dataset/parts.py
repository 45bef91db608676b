"""The dataset: what it is called, the rows of its parts, and what this run has written.

Owns reading and writing the rows of one part, and the identity in ``_state/dataset.json``. Never decides which parts
are written, nor in which order: see ``commit`` and ``renames``. Where the bytes go is for ``etl/files`` to say.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, TypeVar

import msgspec
import pyarrow as pa

from etl.dataset.layout import Part, parse_part_path, part_path, run_part
from etl.dataset.merge import Merged, Replacement, merge
from etl.dataset.parquet import OpenPart, UnreadableError, encode
from etl.dataset.receipt import Receipt
from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.files.interface import Files, version_of
from etl.files.names import IDENTITY
from etl.model import schema
from etl.model.lifecycle import HeldRows

T = TypeVar("T")

_LAYOUT = 2
"""The number of the layout that ``dataset/layout`` describes."""
_LAYOUT_FORGETFUL = 3
"""The same, once something was forgotten: versions that would fetch it again refuse the dataset."""
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(slots=True)
class Written:
    """How much a run has written so far."""

    rows: Counter[str] = field(default_factory=Counter)
    """By table, how many rows were added, replaced or unmarked; an execution that is saved in pieces counts once."""
    executions: set[str] = field(default_factory=set)
    """The ids of the executions that ``rows`` counts."""
    marked: Counter[str] = field(default_factory=Counter)
    """By table, how many rows got a ``deleted_at``."""
    files: int = 0
    """How many times a file of a part was written."""
    size_bytes: int = 0
    """The size of all these files."""


class Dataset:
    """The Parquet files of one dataset, and what was changed through this object.

    Writing is for the holder of the lock.
    """

    def __init__(self, files: Files, *, compression: str = "zstd") -> None:
        self.files = files
        """Where the files lie."""
        self.written = Written()
        """How much this object has written."""
        self.receipt = Receipt()
        """Which files and executions it has changed."""
        self.versions: dict[str, list[str]] = {}
        """By path, of each file of calls or evals that it wrote: the version before, and all since.

        Empty once unsure.
        """
        self.digests: dict[Part, dict[str, str]] = {}
        """By part and execution, the digest of the calls and evals that it wrote; empty text while it writes them."""
        self.compression = compression
        """How files are compressed."""
        self._outdated: set[str] = set()
        """The paths of files that were read and lack columns of this version."""

    def commit_rows(self, table: schema.Table, part: Part, rows: pa.Table, replacement: Replacement) -> Merged:
        """Merge the rows into the part, durably: see ``merge``.

        Raises:
            DestinationError: the file is damaged (and moved to the quarantine), or could not be written (and is
                unchanged).
        """
        merged = merge(table, self.rows(table, part), rows, replacement)
        self.write_if_changed(table, part, merged)
        if table is schema.EXECUTIONS and merged.changed:
            self.written.executions |= merged.changed
            self.written.rows[table.name] = len(self.written.executions)
        elif merged.arrived:
            self.written.rows[table.name] += merged.arrived
        return merged

    def write_if_changed(self, table: schema.Table, part: Part, merged: Merged) -> None:
        """Make the merged rows those of the part, durably, unless they are the same. Errors as for ``write``."""
        if merged.is_changed:
            self.write(table, part, merged.table, changed=merged.changed)
            self.written.marked[table.name] += merged.marked

    def rows(self, table: schema.Table, part: Part) -> pa.Table:
        """All rows of the part, with exactly the declared columns; none if there is no file.

        Raises:
            DestinationError: the file is damaged, and was moved to the quarantine; or a newer version wrote it.
        """
        try:
            return self.rows_if_readable(table, part)
        except UnreadableError as exc:
            # The file's other executions are not at hand: the next run misses their rows and fetches them again.
            aside = self.set_aside(part_path(table.name, part))
            raise DestinationError(f"{exc}. The file was moved to {aside}. Run again to fetch its rows") from exc

    def rows_if_readable(self, table: schema.Table, part: Part) -> pa.Table:
        """As ``rows``, but a damaged file stays where it is.

        Raises:
            UnreadableError: the file is damaged.
            DestinationError: the file may not be read, or a newer version wrote it.
        """
        try:
            return self.read(table, part_path(table.name, part), table.names)
        except FileMissingError:
            return table.no_rows

    def read(self, table: schema.Table, path: str, names: Sequence[str]) -> pa.Table:
        """Columns of one file.

        One that an older version of the exporter did not have is null, until ``complete`` adds it.

        Raises:
            FileMissingError: there is no such file.
            UnreadableError: the file is damaged, as far as these columns tell.
            DestinationError: the file may not be read, or a newer version wrote it.
        """
        part = OpenPart(self.files, table, path)
        rows = part.read(names)
        if part.is_outdated:
            self._outdated.add(path)
        return rows

    def write(self, table: schema.Table, part: Part, rows: pa.Table, *, changed: Collection[str] | None = None) -> None:
        """Make these the rows of the part, durably. ``changed`` are the executions whose rows differ; None if any may.

        Raises:
            DestinationError: the file could not be written, and is unchanged.
        """
        path = part_path(table.name, part)
        if table in schema.OF_CALLS:
            before = version_of(self.files, path)
            versions = self.versions.setdefault(path, [before])
            if changed is None or versions[-1:] != [before]:
                versions.clear()
                self.digests[part] = {}
            self.digests.setdefault(part, {}).update(dict.fromkeys(changed or (), ""))
        self.written.size_bytes += self._publish(table, path, rows)
        self.written.files += 1
        if table in schema.OF_CALLS:
            self.versions[path].append(version_of(self.files, path))

    def note_held(self, part: Part, held: Mapping[str, HeldRows]) -> None:
        """Remember the digests of the calls and evals that the part holds of these executions after a write."""
        self.digests.setdefault(part, {}).update({execution: own.calls_digest for execution, own in held.items()})

    def set_aside(self, path: str) -> str:
        """Move a damaged file to the quarantine; returns its new path."""
        aside = self.files.set_aside(path)
        self.receipt.note_removed(path)
        return aside

    def complete(self) -> int:
        """Give files that an older version wrote, and that were read since, this version's columns; returns how many.

        Columns that the older version did not export are null until their executions are fetched again. A damaged file
        is left alone until its rows are needed.

        Raises:
            DestinationError: a file could not be written; the next run completes it and the rest.
        """
        completed = 0
        for path in sorted(self._outdated):
            if parsed := parse_part_path(path):
                table = schema.TABLES[parsed[0]]
                with suppress(UnreadableError):
                    self.write(table, parsed[1], self.read(table, path, table.names), changed=())
                    completed += 1
        self._outdated.clear()
        return completed

    def record_run(self, day: date, export_run_id: str, rows: pa.Table) -> None:
        """Add the row of one export run that began on this UTC day."""
        self._publish(schema.RUNS_TABLE, part_path(schema.RUNS_TABLE.name, run_part(day, export_run_id)), rows)

    def _publish(self, table: schema.Table, path: str, rows: pa.Table) -> int:
        """Write the file and note it in the receipt; returns its size in bytes."""
        data = encode(table, rows, self.compression)
        self.files.publish(path, data)
        self.receipt.note_written(path, data, rows=len(rows))
        return len(data)


class Forgetting(msgspec.Struct, frozen=True, kw_only=True):
    """What is being removed on the owner's word, see ``dataset/forget``."""

    export_run_id: str
    """Under which id it stands in ``runs``."""
    started_at: _Moment
    """When it was asked for."""
    exported_at: _Moment
    """The time that changed rows get: after that of all rows, so that readers who follow it see them."""
    follows: str | None
    """The id of what wrote before, for the receipt."""
    message: str
    """How much goes, who forgot it, and by which options, in one line."""
    executions: frozenset[str]
    """The ids of the executions that go."""
    calls: frozenset[str]
    """The ids of the calls that go with their evals and dead letters although their execution stays."""
    deleted_before: _Moment
    """Evals that were marked before this time go, too."""
    parts: tuple[tuple[Part, dict[str, tuple[str, int]]], ...]
    """Where something goes, with each execution that it belongs to: its digest and number of calls afterwards."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What ``_state/dataset.json`` says of the dataset."""

    dataset_id: str
    """Random, and the same for as long as the dataset exists; a warehouse refuses another one."""
    layout: int
    """The number of the layout, see ``dataset/layout``; a newer version may have another."""
    created_at: _Moment
    """When the dataset was made."""
    forgetting: Forgetting | None = None
    """What is being removed; None if nothing is."""

    def while_forgetting(self, what: Forgetting | None) -> bytes:
        """The document while that is removed, and with None, after it."""
        return msgspec.json.encode(msgspec.structs.replace(self, layout=_LAYOUT_FORGETFUL, forgetting=what))


def read_document(
    files: Files, path: str, kind: type[T], *, note: Callable[[str], object], set_aside: bool = False
) -> T | None:
    """The JSON document of this kind; None if there is none, or it is damaged.

    ``note`` is called with one line about a damaged one. With ``set_aside``, which is for the holder of the lock, that
    is moved to the quarantine; otherwise it is ignored.

    Raises:
        DestinationError: the file may not be read.
    """
    try:
        return msgspec.json.decode(files.read(path), type=kind)
    except FileMissingError:
        return None
    except ForeignFileError as exc:
        fault = str(exc)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        fault = f"{files.where(path)} is damaged, or was not written by metrics-etl: {exc}"
    note(f"{fault}. The file was moved to {files.set_aside(path)}" if set_aside else f"{fault}. The file is ignored")
    return None


def read_identity(
    files: Files, *, note: Callable[[str], object] = lambda _: None, set_aside: bool = False
) -> Identity | None:
    """The dataset's identity, as ``read_document`` gives it.

    Raises:
        DestinationError: the file may not be read, or its layout is one that this version does not know.
    """
    identity = read_document(files, IDENTITY, Identity, note=note, set_aside=set_aside)
    if identity and identity.layout not in (_LAYOUT, _LAYOUT_FORGETFUL):
        raise DestinationError(
            f"{files.where(IDENTITY)} has layout {identity.layout}, which a newer version wrote. Upgrade metrics-etl"
        )
    return identity


def require_whole(files: Files, *, note: Callable[[str], object] = lambda _: None) -> None:
    """Refuse a dataset that nobody can read now.

    Raises:
        DestinationError: rows are being removed; or as for ``read_identity``.
    """
    identity = read_identity(files, note=note)
    if identity and identity.forgetting:
        raise DestinationError(
            f"metrics-etl forget is removing rows from {files.where()}. "
            "Wait until it ends. If it was killed, repeat it, or run metrics-etl run"
        )


def identify(files: Files, now: datetime, *, note: Callable[[str], object] = lambda _: None) -> Identity:
    """Give the dataset an id, unless it has one. Only for the holder of the lock; errors as for ``read_identity``."""
    identity = read_identity(files, note=note, set_aside=True)
    if identity is None:
        identity = Identity(dataset_id=secrets.token_hex(16), layout=_LAYOUT, created_at=now)
        files.publish(IDENTITY, msgspec.json.encode(identity))
    return identity
