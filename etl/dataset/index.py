"""What each part holds, as far as a plan needs it, kept in ``_state/index.parquet`` by the versions of the files.

Owns that file. It is a cache: a part whose files have the same versions is not opened again, and nothing else depends
on it. If it is missing, damaged, of another dataset or of an exporter with other columns, it counts as empty, and every
part is read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.layout import Part, parse_part_path, part_path
from etl.dataset.parquet import OpenPart, UnreadableError, pack, unpack
from etl.dataset.part_index import ROWS, PartIndex, index_part, versions_of
from etl.dataset.parts import Dataset, read_identity
from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.files.interface import Entry, Files, data_files, read_each
from etl.files.names import INDEX
from etl.model import schema
from etl.model.digest import fingerprint
from etl.model.values import arrow_array


def meaning_of(tables: Iterable[schema.Table]) -> str:
    """A hash of the columns of these tables and of the index: names, types and order, but not what is said about them.

    An index with another hash was made by a version of the exporter that reads other columns.
    """
    schemas = {table.name: table.arrow_schema for table in tables} | {"index": ROWS}
    options = {"show_field_metadata": False, "show_schema_metadata": False}
    return fingerprint({name: columns.to_string(**options) for name, columns in schemas.items()})


_MEANING = meaning_of(schema.OF_EXECUTIONS)


@dataclass(slots=True)
class Index:
    """What the parts of a dataset hold, and which files need not be opened again."""

    parts: dict[Part, PartIndex] = field(default_factory=dict)
    """What each part holds, sorted by part."""
    tables: set[str] = field(default_factory=set)
    """The names of the tables that have a file; empty in an index that was only read, see ``update_index``."""
    runs: dict[str, str] = field(default_factory=dict)
    """By path, the versions of the files of export runs that were found whole."""
    is_saved: bool = False
    """Whether ``_state/index.parquet`` says the same."""

    def count(self, table: schema.Table, entry: Entry) -> int | None:
        """How many rows the file has; None if the index does not know this version of it."""
        parsed = parse_part_path(entry.path)
        known = self.parts.get(parsed[1]) if parsed else None
        if known is None or known.versions is None or entry.is_fresh or not entry.version:
            return None
        number = schema.OF_EXECUTIONS.index(table)
        return known.counts[number] if known.versions[number] == entry.version else None

    def damaged(self) -> set[str]:
        """The ids of executions of which there are other calls or evals than were exported."""
        damaged = (part.rows.filter(is_damaged(part.rows)) for part in self.parts.values())
        return {execution_id for rows in damaged for execution_id in rows["execution_id"].to_pylist()}


class _Head(msgspec.Struct):
    """What the file's metadata says of the index, beside its rows."""

    dataset_id: str | None
    """The dataset that the index is of."""
    meaning: str
    """The result of ``meaning_of`` in the version that wrote the index."""
    parts: list[tuple[str, str, tuple[str, ...] | None, tuple[int, ...], int]]
    """Of each part: key, place, versions, counts, and how many of the following rows are its own."""
    runs: dict[str, str]
    """As in ``Index``."""


def read_index(files: Files) -> Index:
    """The saved index; an empty one if there is none that can be used.

    Raises:
        DestinationError: the file may not be read, which is another matter than a damaged one.
    """
    try:
        rows = unpack(files.where(INDEX), files.read(INDEX))
        head = msgspec.json.decode((rows.schema.metadata or {})[b"head"], type=_Head)
    except (FileMissingError, ForeignFileError, UnreadableError, KeyError, msgspec.MsgspecError):
        return Index()
    is_ours = head.meaning == _MEANING and head.dataset_id == _dataset_id(files) and rows.schema.equals(ROWS)
    if not is_ours or sum(count for *_, count in head.parts) != len(rows):
        return Index()
    index, first = Index(runs=head.runs, is_saved=True), 0
    for key, place, versions, counts, count in head.parts:
        index.parts[Part(key, place)] = PartIndex(versions, counts, rows.slice(first, count))
        first += count
    return index


def index_if_readable(files: Files, ignored: list[str]) -> Index:
    """The saved index; if it may not be read, an empty one, with which every file is read.

    ``ignored`` gets the reason.
    """
    try:
        return read_index(files)
    except DestinationError as error:
        ignored.append(f"{error}. This index is ignored, and each file is read instead")
        return Index()


def update_index(dataset: Dataset, known: Index, unreadable: list[str]) -> Index:
    """The index as the files are now; reads only parts and export runs that are not ``known`` in these versions.

    A damaged file counts as empty, and its path is added to ``unreadable``.

    Raises:
        DestinationError: a file may not be read, is not one of this dataset, or was written by a newer version.
    """
    parts = sorted(list_parts(dataset.files).items())
    of_known = {part: part_index.versions for part, part_index in known.parts.items() if part_index.versions}
    unknown = [(part, entries) for part, entries in parts if of_known.get(part, ()) != versions_of(entries)]

    def read(part_and_entries: tuple[Part, dict[str, Entry]]) -> tuple[PartIndex, list[str]]:
        part, entries = part_and_entries
        return index_part(dataset, entries, _known_digests(dataset, known, part, entries))

    new: dict[Part, PartIndex] = {}
    for (part, _), (part_index, damaged) in zip(unknown, read_each(dataset.files, read, unknown), strict=True):
        new[part] = part_index
        unreadable += damaged
    tables = {name for _, entries in parts for name in entries}
    index = Index({part: new.get(part) or known.parts[part] for part, _ in parts}, tables)
    for entry in data_files(dataset.files, schema.RUNS_TABLE.name):
        is_known = known.runs.get(entry.path) == entry.version
        if parse_part_path(entry.path) and not is_known and _is_damaged_run(dataset.files, entry.path):
            unreadable.append(entry.path)
        elif not entry.is_fresh:
            index.runs[entry.path] = entry.version
    index.is_saved = known.is_saved and not new and len(parts) == len(known.parts) and index.runs == known.runs
    return index


def _is_damaged_run(files: Files, path: str) -> bool:
    """Whether the file of an export run is damaged; one that may not be read is not, since no run needs its row."""
    try:
        OpenPart(files, schema.RUNS_TABLE, path).read(schema.RUNS_TABLE.names, may_be_newer=True)
    except DestinationError as error:
        return isinstance(error, UnreadableError)
    return False


def write_index(files: Files, index: Index) -> None:
    """Save the index in ``_state/index.parquet``; only for the holder of the lock."""
    parts = [
        (part.run_test_key, part.place, part_index.versions, part_index.counts, len(part_index.rows))
        for part, part_index in index.parts.items()
    ]
    head = _Head(_dataset_id(files), _MEANING, parts, index.runs)
    rows = pa.concat_tables([pa.Table.from_batches([], ROWS), *(part.rows for part in index.parts.values())])
    files.publish(INDEX, pack(rows.replace_schema_metadata({"head": msgspec.json.encode(head)}), "zstd"))


def list_parts(files: Files) -> dict[Part, dict[str, Entry]]:
    """The files of each part, by the table's name.

    Raises:
        DestinationError: there is a data file that no export writes.
    """
    parts: dict[Part, dict[str, Entry]] = {}
    for table in schema.OF_EXECUTIONS:
        for entry in data_files(files, table.name):
            if parsed := parse_part_path(entry.path):
                parts.setdefault(parsed[1], {})[table.name] = entry
            elif entry.path.count("/") > 1:
                raise DestinationError(f"{files.where(entry.path)} is not a file of this dataset. Move it elsewhere")
    return parts


def is_damaged(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows of an index are of executions that have other or newer calls or evals than their own row says."""
    return pc.and_(rows["is_here"], pc.or_(rows["held_digest"].is_valid(), has_newer(rows)))


def has_newer(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows of an index are of executions that have newer calls or evals than their own row."""
    return pc.fill_null(pc.greater(rows["held_at"], rows["exported_at"]), arrow_array([False], schema.BOOL)[0])


def _known_digests(dataset: Dataset, known: Index, part: Part, entries: Mapping[str, Entry]) -> dict[str, str] | None:
    """The digests of the part's calls and evals, by execution, as the index knows them or this run wrote them since.

    None if they must be computed from the rows: somebody else wrote the files before this run did, or after it.
    """
    before = known.parts.get(part)
    known_versions = before.versions if before else ("",) * len(schema.OF_EXECUTIONS)
    digests = (before.digests if before else {}) | dataset.digests.get(part, {})
    for table, known_version in zip(schema.OF_CALLS, known_versions or (), strict=False):
        version = (entries[table.name].version or None) if table.name in entries else ""
        versions = dataset.versions.get(part_path(table.name, part), [version])
        if not (known_version in versions and version == versions[-1]):
            return None
    return digests if known_versions and all(digests.values()) else None


def _dataset_id(files: Files) -> str | None:
    identity = read_identity(files)
    return identity.dataset_id if identity else None
