"""The dataset: says what it is, reads and writes the rows of one part, and knows what this run has written.

Never decides which parts are written, nor in which order: see ``commit`` and ``renames``.
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


@dataclass(slots=True)
class Written:
    """How much a run has written; ``rows`` and ``marked`` rows by table. An execution that is saved in pieces counts once."""

    rows: Counter[str] = field(default_factory=Counter)
    executions: set[str] = field(default_factory=set)
    marked: Counter[str] = field(default_factory=Counter)
    files: int = 0
    size_bytes: int = 0


class Dataset:
    """The Parquet files of one dataset; ``written`` and ``receipt`` say what was changed through this object.

    ``versions``: of each file of calls or evals that it wrote, by path, the one before and all since, as long as it knows what
    changed. ``digests`` are those of the calls and evals that it wrote, by part and execution; empty while it does.
    """

    def __init__(self, files: Files, *, compression: str = "zstd") -> None:
        self.files = files
        self.written = Written()
        self.receipt = Receipt()
        self.versions: dict[str, list[str]] = {}
        self.digests: dict[Part, dict[str, str]] = {}
        self._compression = compression
        self._outdated: set[str] = set()

    def commit_rows(self, table: schema.Table, part: Part, rows: pa.Table, replacement: Replacement) -> Merged:
        """Merge the rows into the part, durably (see ``merge``); the file is unchanged if that fails."""
        merged = merge(table, self.rows(table, part), rows, replacement)
        self.write_if_changed(table, part, merged)
        if table is schema.EXECUTIONS and merged.changed:
            self.written.executions |= merged.changed
            self.written.rows[table.name] = len(self.written.executions)
        elif merged.arrived:
            self.written.rows[table.name] += merged.arrived
        return merged

    def write_if_changed(self, table: schema.Table, part: Part, merged: Merged) -> None:
        """Make the merged rows those of the part, durably; errors as for ``write``."""
        if merged.is_changed:
            self.write(table, part, merged.table, changed=merged.changed)
            self.written.marked[table.name] += merged.marked

    def rows(self, table: schema.Table, part: Part) -> pa.Table:
        """All rows of the part, with the declared columns; none without a file. A damaged file is moved to the quarantine."""
        path = part_path(table.name, part)
        try:
            return self.read(table, path, table.names)
        except FileMissingError:
            return table.no_rows
        except UnreadableError as exc:
            # Its other executions are not at hand: the next run misses their rows and fetches them again.
            aside = self.set_aside(path)
            raise DestinationError(f"{exc}; moved to {aside}: run again to fetch its rows again") from exc

    def read(self, table: schema.Table, path: str, names: Sequence[str]) -> pa.Table:
        """Columns of one file, null where an older version of the exporter did not have one yet; ``complete`` then adds them.

        UnreadableError when it is damaged, as far as these columns tell; another DestinationError when a newer version wrote it.
        """
        part = OpenPart(self.files, table, path)
        rows = part.read(names)
        if part.is_outdated:
            self._outdated.add(path)
        return rows

    def write(self, table: schema.Table, part: Part, rows: pa.Table, *, changed: Collection[str] | None = None) -> None:
        """Make these the rows of the part, durably, or leave it as it is; ``changed`` are their executions, None: any may be."""
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
        """Remember the digests of what the part holds of these executions now."""
        self.digests.setdefault(part, {}).update({each: of.calls_digest for each, of in held.items()})

    def set_aside(self, path: str) -> str:
        """Move a damaged file to the quarantine; returns where it is then."""
        aside = self.files.set_aside(path)
        self.receipt.note_removed(path)
        return aside

    def complete(self) -> int:
        """Rewrite the files that an older version wrote, and that were read since, with this version's columns; returns how many.

        Columns that the older version did not export are null until their executions are fetched again. A damaged file stays where
        it is, until its rows are needed, and the next run completes one that could not be written.
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
        """Write the file, and note that; returns its size in bytes."""
        data = encode(table, rows, self._compression)
        self.files.publish(path, data)
        self.receipt.note_written(path, data, rows=len(rows))
        return len(data)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """``layout`` numbers the one that ``load.layout`` describes; a newer version may have another."""

    dataset_id: str
    layout: int
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]


def read_document(
    files: Files, path: str, kind: type[T], *, note: Callable[[str], object], set_aside: bool = False
) -> T | None:
    """The document; None when there is none, or something else, of which ``note`` is told, and that may be ``set_aside``."""
    try:
        return msgspec.json.decode(files.read(path), type=kind)
    except FileMissingError:
        return None
    except ForeignFileError as exc:
        fault = str(exc)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        fault = f"{files.where(path)}: damaged, or not written by metrics-etl: {exc}"
    note(f"{fault}; moved to {files.set_aside(path)}" if set_aside else f"{fault}; ignored")
    return None


def read_identity(
    files: Files, *, note: Callable[[str], object] = lambda _: None, set_aside: bool = False
) -> Identity | None:
    """The document, as ``read_document`` gives it; a layout that this version does not know is a DestinationError."""
    identity = read_document(files, IDENTITY, Identity, note=note, set_aside=set_aside)
    if identity and identity.layout != _LAYOUT:
        raise DestinationError(
            f"{files.where(IDENTITY)}: layout {identity.layout}, written by a newer version: upgrade the exporter"
        )
    return identity


def identify(files: Files, now: datetime, *, note: Callable[[str], object] = lambda _: None) -> None:
    """Give the dataset an id, unless it has one that can be read; errors as for ``read_identity``."""
    if read_identity(files, note=note, set_aside=True) is None:
        identity = Identity(dataset_id=secrets.token_hex(16), layout=_LAYOUT, created_at=now)
        files.publish(IDENTITY, msgspec.json.encode(identity))
