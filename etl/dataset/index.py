"""What each part holds, as far as a plan needs it, kept in ``_state/index.parquet`` by the versions of its files.

A cache: a part whose files are the same versions is not opened again, and that is all. An index that is missing, damaged, of
another dataset or of another version of the exporter counts as empty, and every part is read.
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


def meaning_of(tables: Iterable[schema.Table]) -> str:
    """Tells apart versions that would find other columns in a file: by names, types and order, not by what the columns mean."""
    schemas = {table.name: table.arrow_schema for table in tables} | {"index": ROWS}
    told = {key: each.to_string(show_field_metadata=False, show_schema_metadata=False) for key, each in schemas.items()}
    return fingerprint(told)


_MEANING = meaning_of(schema.OF_EXECUTIONS)


@dataclass(slots=True)
class Index:
    """The parts, in order, the tables that have files, and the versions of whole ``runs`` by path; ``is_saved``: all as saved."""

    parts: dict[Part, PartIndex] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    runs: dict[str, str] = field(default_factory=dict)
    is_saved: bool = False

    def count(self, table: schema.Table, entry: Entry) -> int | None:
        """How many rows the part's file has; None when the index does not know it in this version."""
        parsed = parse_part_path(entry.path)
        known = self.parts.get(parsed[1]) if parsed else None
        if known is None or known.versions is None or entry.is_fresh or not entry.version:
            return None
        number = schema.OF_EXECUTIONS.index(table)
        return known.counts[number] if known.versions[number] == entry.version else None

    def damaged(self) -> set[str]:
        """The executions of which there are other calls or evals than were exported."""
        found = (each.rows.filter(is_damaged(each.rows)) for each in self.parts.values())
        return {execution_id for rows in found for execution_id in rows["execution_id"].to_pylist()}


class _Head(msgspec.Struct):
    """What the index says of itself and of each part: key, place, versions, counts, and how many of the rows are its own."""

    dataset_id: str | None
    meaning: str
    parts: list[tuple[str, str, tuple[str, ...] | None, tuple[int, ...], int]]
    runs: dict[str, str]


def read_index(files: Files) -> Index:
    """The index; an empty one when there is none that can be used."""
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
    """The index; where it cannot be read, an empty one, which saves no reading, and why is added to ``ignored``."""
    try:
        return read_index(files)
    except DestinationError as error:
        ignored.append(f"{error}; ignored: each file is read instead")
        return Index()


def update_index(dataset: Dataset, known: Index, unreadable: list[str]) -> Index:
    """The index as the files are now: parts and runs that the known one does not know, or not in these versions, are read.

    A damaged file holds nothing, and is added to ``unreadable``; one that may not be read is a DestinationError.
    """
    parts = sorted(list_parts(dataset.files).items())
    of_known = {part: each.versions for part, each in known.parts.items() if each.versions}
    unknown = [(part, entries) for part, entries in parts if of_known.get(part, ()) != versions_of(entries)]
    new: dict[Part, PartIndex] = {}
    read = read_each(dataset.files, lambda each: index_part(dataset, each[1], _digests(dataset, known, *each)), unknown)
    for (part, _), (found, damaged) in zip(unknown, read, strict=True):
        new[part] = found
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
    try:
        OpenPart(files, schema.RUNS_TABLE, path).read(schema.RUNS_TABLE.names, may_be_newer=True)
    except DestinationError as error:  # one that may not be read need not be: no night needs it
        return isinstance(error, UnreadableError)
    return False


def write_index(files: Files, index: Index) -> None:
    """Replace the file."""
    parts = [(part.run_test_key, part.place, of.versions, of.counts, len(of.rows)) for part, of in index.parts.items()]
    head = _Head(_dataset_id(files), _MEANING, parts, index.runs)
    rows = pa.concat_tables([each.rows for each in index.parts.values()] or [ROWS.empty_table()])
    files.publish(INDEX, pack(rows.replace_schema_metadata({"head": msgspec.json.encode(head)}), "zstd"))


def list_parts(files: Files) -> dict[Part, dict[str, Entry]]:
    """The files of each part by table; DestinationError for data that is none of the dataset's."""
    parts: dict[Part, dict[str, Entry]] = {}
    for table in schema.OF_EXECUTIONS:
        for entry in data_files(files, table.name):
            if parsed := parse_part_path(entry.path):
                parts.setdefault(parsed[1], {})[table.name] = entry
            elif entry.path.count("/") > 1:
                raise DestinationError(f"{files.where(entry.path)}: not a file of this dataset; move it elsewhere")
    return parts


def is_damaged(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows are of executions that are there, with other or newer calls and evals than were exported."""
    is_newer = pc.fill_null(pc.greater(rows["held_at"], rows["exported_at"]), fill_value=False)
    return pc.and_(rows["is_here"], pc.or_(rows["held_digest"].is_valid(), is_newer))


def _digests(dataset: Dataset, known: Index, part: Part, entries: Mapping[str, Entry]) -> dict[str, str] | None:
    """The digests of the part's calls and evals: those that the index knows, and those of what this run has written since.

    None if anybody else wrote: then this run did not begin with what the index knows, or what is there is not what it wrote.
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
