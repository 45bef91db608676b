"""What each part holds, as far as a plan needs it, kept in ``_state/index.parquet`` by the versions of its files.

A part whose files are the same versions is not opened again. The index proves nothing else: one that is missing, damaged or of
another dataset or version of the exporter counts as empty, and a file that was lost, restored or altered has another version, and
is read. It remembers the executions whose rows were lost, what a row that is gone vouched for,
those of which no more than calls and evals is left and accepted, and those that were deleted at the source and whose row does not
say so, since nothing else could tell.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.load.dataset import Dataset
from etl.load.files.contract import Entry, Files, data_files, read_each
from etl.load.identity import read_identity
from etl.load.layout import INDEX, Part, parse_part_path
from etl.load.merge import is_of
from etl.load.parquet import UnreadableError, pack, unpack
from etl.load.part_index import ROWS, Hashes, PartIndex, index_part, versions_of
from etl.model import schema
from etl.model.digest import fingerprint, rows_digest
from etl.model.lifecycle import LONG_AGO, HeldRows

_OF_DELETION = ["execution_id", "deleted_at", "exported_at"]
_OF_WHAT_IS_HELD = ["execution_id", "listed_calls", "exported_calls", "calls_digest"]


def meaning_of(tables: Iterable[schema.Table]) -> str:
    """Tells apart versions that would find other columns in a file: by names, types and order, not by what the columns mean."""
    schemas = {table.name: table.arrow_schema for table in tables} | {"index": ROWS}
    shown = {
        name: each.to_string(show_field_metadata=False, show_schema_metadata=False) for name, each in schemas.items()
    }
    return fingerprint(shown)


_MEANING = meaning_of(schema.OF_EXECUTIONS)


@dataclass(slots=True)
class Index:
    """The parts, in order; ``is_saved``: the file says the same. ``is_there``: a file said what the last run left.

    ``lost`` are the executions, by the key of their run test, of which a run left a row, and no file has any but dead letters.
    ``accepted`` are those without a row of their own whose calls and evals are to stay so, each with the digest of these.
    ``deleted`` are those that were deleted at the source, and when, as a row said that is gone, forgotten ones too.
    ``vouched`` are those without a row of their own that had one, and what it said was exported, or what was accepted since.
    """

    parts: dict[Part, PartIndex] = field(default_factory=dict)
    lost: dict[str, set[str]] = field(default_factory=dict)
    accepted: dict[str, dict[str, str]] = field(default_factory=dict)
    deleted: dict[str, datetime] = field(default_factory=dict)
    vouched: dict[str, HeldRows] = field(default_factory=dict)
    is_saved: bool = False
    is_there: bool = False

    def count(self, table: schema.Table) -> Counter[str]:
        """How many rows the files of the table have, by the key of the run test."""
        number, counts = schema.OF_EXECUTIONS.index(table), Counter[str]()
        for part, each in self.parts.items():
            counts[part.run_test_key] += each.counts[number]
        return counts

    def damaged(self) -> dict[str, set[str]]:
        """The executions, by key, of which there are other calls or evals than were exported, or no row of their own.

        Neither those that are accepted, nor those that are whole in another part: a move between the two was killed.
        """
        found: defaultdict[str, set[str]] = defaultdict(set)
        for part, each in self.parts.items():
            found[part.run_test_key].update(each.rows.filter(is_damaged(each.rows))["execution_id"].to_pylist())
        for key, strays in self.strays().items():
            accepted = self.accepted.get(key, {})
            found[key] |= {each for each, digest in strays.items() if accepted.get(each) != digest}
        whole = self.which(chain(*found.values()), lambda rows: pc.and_not(rows["is_here"], is_damaged(rows)))
        return {key: left for key, ids in found.items() if (left := ids - whole)}

    def accepted_calls(self, key: str) -> int:
        """How many calls of the run test are accepted without their executions."""
        accepted = self.accepted.get(key, {})
        parts = [each.rows for part, each in self.parts.items() if accepted and part.run_test_key == key]
        return sum(pc.sum(rows.filter(is_of(rows, accepted))["held_calls"]).as_py() or 0 for rows in parts)

    def strays(self) -> dict[str, dict[str, str]]:
        """The executions, by key, that have calls or evals and no row of their own, in whatever part; with the digest of these."""
        strays: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for part, each in self.parts.items():
            rows = each.rows.filter(pc.and_not(_is_held(each.rows), each.rows["is_here"]))
            for row in rows.select(["execution_id", "held_digest"]).to_pylist():
                strays[part.run_test_key][row["execution_id"]].append(row["held_digest"])
        here = self.which(chain(*strays.values()), lambda rows: rows["is_here"])
        found = {key: {each: rows_digest(ids[each]) for each in ids.keys() - here} for key, ids in strays.items()}
        return {key: ids for key, ids in found.items() if ids}

    def which(self, ids: Iterable[str], is_so: Callable[[pa.Table], pa.ChunkedArray]) -> set[str]:
        """Those of the executions of which some part has a row that is so."""
        candidates, found = pa.array([*ids], pa.string()), set[str]()
        for each in self.parts.values() if len(candidates) else ():
            is_found = pc.and_(is_so(each.rows), pc.is_in(each.rows["execution_id"], value_set=candidates))
            found.update(each.rows.filter(is_found)["execution_id"].to_pylist())
        return found

    def miss(self, written: Mapping[str, AbstractSet[str]]) -> None:
        """Take those of the executions, by key, for lost of which no file has more than dead letters."""
        here = self.which(chain(*written.values()), _is_held)
        for key, ids in written.items():
            if gone := ids - here:
                self.lost[key] = self.lost.get(key, set()) | gone
                self.is_saved = False

    def restored(self) -> dict[tuple[Part, datetime], set[str]]:
        """The executions that rows are here of from before they were deleted at the source, by part and by when that was.

        These are their own, or dead letters, which a deletion takes away.
        """
        found: defaultdict[tuple[Part, datetime], set[str]] = defaultdict(set)
        for part, each in self.parts.items():
            if not (self.deleted or each.counts[schema.OF_EXECUTIONS.index(schema.ERRORS)]):
                continue
            is_older = pc.and_(each.rows["is_here"], _is_deleted(each.rows, self.deleted))
            has_letters = pc.and_(each.rows["has_errors"], pc.is_valid(each.rows["deleted_at"]))
            for row in each.rows.filter(pc.or_(is_older, has_letters)).select(_OF_DELETION).to_pylist():
                execution_id = row["execution_id"]
                found[part, self.deleted.get(execution_id) or row["deleted_at"]].add(execution_id)
        return found

    def trust(self, export_run_id: str | None) -> None:
        """Remember no deletion of what the last run wrote: that is newer, whatever the clocks say, even if no index was saved."""
        ids = self.deleted if export_run_id else ()
        of_run = self.which(ids, lambda rows: pc.equal(rows["export_run_id"], export_run_id))
        self.deleted = {each: at for each, at in self.deleted.items() if each not in of_run}
        self.is_saved = self.is_saved and not of_run

    def call_hashes(self) -> Hashes:
        """The hashes of all calls: two that are equal tell of a call that stands twice, or hardly ever of two calls."""
        return np.concatenate([np.empty(0, np.int64), *(each.call_hashes for each in self.parts.values())])


class _Head(msgspec.Struct):
    """What the index says of itself and of each part: key, place, versions, counts, and how many of the rows are its own."""

    dataset_id: str | None
    meaning: str
    parts: list[tuple[str, str, tuple[str, ...] | None, tuple[int, ...], int]]
    lost: dict[str, set[str]] = {}
    accepted: dict[str, dict[str, str]] = {}
    deleted: dict[str, datetime] = {}
    vouched: dict[str, HeldRows] = {}


def read_index(files: Files) -> Index:
    """The index; an empty one when there is none that can be used.

    After an upgrade every part is read again, for files with other columns than those of this version to be found.

    Raises:
        DestinationError: it, or what the dataset is, cannot be read.
    """
    try:
        rows = unpack(files.where(INDEX), files.read(INDEX))
        head = msgspec.json.decode((rows.schema.metadata or {})[b"head"], type=_Head)
    except (FileMissingError, ForeignFileError, UnreadableError, KeyError, msgspec.MsgspecError):
        return Index()
    if head.meaning != _MEANING or head.dataset_id != _dataset_id(files):
        return Index()
    index, first = Index({}, head.lost, head.accepted, head.deleted, head.vouched), 0
    index.is_saved = index.is_there = sum(count for *_, count in head.parts) == len(rows)
    if not index.is_there:
        return index
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


def is_known(known: Index, part: Part, entries: Mapping[str, Entry]) -> bool:
    """Whether the index knows the part in these versions of its files."""
    found = known.parts.get(part)
    return found is not None and found.versions is not None and found.versions == versions_of(entries)


def update_index(dataset: Dataset, known: Index, unreadable: list[str], *, strict_keys: Iterable[str] = ()) -> Index:
    """The index as the files are now: parts that the known one does not know, or not in these versions, are read.

    Raises:
        DestinationError: as ``list_parts`` and ``index_part``.
    """
    parts = sorted(list_parts(dataset.files, strict_keys=strict_keys).items())

    def read(found: tuple[Part, Mapping[str, Entry]]) -> tuple[PartIndex, list[str]]:
        damaged: list[str] = []
        return index_part(dataset, *found, damaged), damaged

    unknown = [each for each in parts if not is_known(known, *each)]
    new: dict[Part, PartIndex] = {}
    for (part, _), (found, damaged) in zip(unknown, read_each(dataset.files, read, unknown), strict=True):
        new[part] = found
        unreadable += damaged
    index = Index({part: new.get(part) or known.parts[part] for part, _ in parts})
    index.lost = _lost(known, index)
    if known.accepted:
        strays = index.strays()
        accepted = {key: dict(ids.items() & strays.get(key, {}).items()) for key, ids in known.accepted.items()}
        index.accepted = {key: ids for key, ids in accepted.items() if ids}
    index.deleted = _deleted(known, index)
    index.vouched = _vouched(known, index)
    told, before = ((each.lost, each.accepted, each.deleted) for each in (index, known))
    index.is_there = known.is_there
    index.is_saved = known.is_saved and not new and told == before and len(parts) == len(known.parts)
    return index


def _lost(known: Index, index: Index) -> dict[str, set[str]]:
    """The executions of which the known index has a row, or lost it before, and of which the other one has nothing."""
    lost = defaultdict(set, {key: {*ids} for key, ids in known.lost.items()})
    for part, before in known.parts.items():
        after = index.parts.get(part)
        if after is not before:
            lost[part.run_test_key].update(_held(before.rows).to_pylist())
            lost[part.run_test_key].difference_update(_held(after.rows).to_pylist() if after else ())
    found = index.which(chain(*lost.values()), _is_held)
    return {key: left for key, ids in lost.items() if (left := ids - found)}


def _deleted(known: Index, index: Index) -> dict[str, datetime]:
    """The executions that were deleted at the source, as the known index says, and of which no row says so or is newer."""
    deleted = {**known.deleted}
    for part, before in known.parts.items():
        if index.parts.get(part) is not before:
            marked = before.rows.filter(pc.is_valid(before.rows["deleted_at"]))
            deleted |= dict(zip(*(marked[name].to_pylist() for name in ("execution_id", "deleted_at")), strict=True))
    told = set[str]()
    for each in index.parts.values() if deleted else ():
        for row in each.rows.filter(_is_deleted(each.rows, deleted)).select(_OF_DELETION).to_pylist():
            if max(row["deleted_at"] or LONG_AGO, row["exported_at"] or LONG_AGO) >= deleted[row["execution_id"]]:
                told.add(row["execution_id"])
    return {each: at for each, at in deleted.items() if each not in told}


def _vouched(known: Index, index: Index) -> dict[str, HeldRows]:
    """What was exported of the executions of which the known index has a row, or had one before, and the other one has none."""
    vouched = {**known.vouched}
    for part, before in known.parts.items():
        after = index.parts.get(part)
        if after is not before:
            here = before.rows.filter(before.rows["is_here"])
            still = after.rows.filter(after.rows["is_here"])["execution_id"].to_pylist() if after else ()
            for row in here.filter(pc.invert(is_of(here, still))).select(_OF_WHAT_IS_HELD).to_pylist():
                vouched[row["execution_id"]] = HeldRows(row["listed_calls"], row["exported_calls"], row["calls_digest"])
    here_now = index.which(vouched, lambda rows: rows["is_here"])
    return {each: said for each, said in vouched.items() if each not in here_now}


def _is_deleted(rows: pa.Table, deleted: Mapping[str, datetime]) -> pa.Array:
    """Which rows are of these executions, which may be many: to make an Arrow array of them for each part would take longer."""
    return pa.array([each in deleted for each in rows["execution_id"].to_pylist()], pa.bool_())


def _is_held(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows are of executions that have more than dead letters."""
    return pc.or_(rows["is_here"], pc.or_(rows["has_calls"], rows["has_evals"]))


def _held(rows: pa.Table) -> pa.ChunkedArray:
    """The executions that have more than dead letters."""
    return rows.filter(_is_held(rows))["execution_id"]


def write_index(files: Files, index: Index) -> None:
    """Replace the file.

    Raises:
        DestinationError: it cannot be written.
    """
    parts = [
        (part.run_test_key, part.place, each.versions, each.counts, len(each.rows))
        for part, each in index.parts.items()
    ]
    head = _Head(_dataset_id(files), _MEANING, parts, index.lost, index.accepted, index.deleted, index.vouched)
    rows = pa.concat_tables([ROWS.empty_table(), *(each.rows for each in index.parts.values())])
    files.publish(INDEX, pack(rows.replace_schema_metadata({"head": msgspec.json.encode(head)}), "zstd"))


def list_parts(files: Files, *, strict_keys: Iterable[str] = ()) -> dict[Part, dict[str, Entry]]:
    """The files of each part by table.

    Raises:
        DestinationError: a folder cannot be listed, or data in that of a run test of ``strict_keys`` is none of the dataset's.
    """
    strict = {f"run_test={key}" for key in strict_keys}
    parts: dict[Part, dict[str, Entry]] = {}
    for table in schema.OF_EXECUTIONS:
        for entry in data_files(files, table.name):
            if parsed := parse_part_path(entry.path):
                parts.setdefault(parsed[1], {})[table.name] = entry
            elif "/" in entry.path and entry.path.split("/")[1] in strict:
                raise DestinationError(f"{files.where(entry.path)}: not a file of this dataset; move it elsewhere")
    return parts


def is_damaged(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows are of executions that are there, with other calls or evals than were exported."""
    is_other = pc.fill_null(pc.not_equal(rows["held_digest"], rows["calls_digest"]), fill_value=True)
    return pc.and_(rows["is_here"], is_other)


def _dataset_id(files: Files) -> str | None:
    identity = read_identity(files)
    return identity.dataset_id if identity else None
