"""Where the files of a dataset lie, and scopes: the parts of it that a reader wants, by run test and day. Pure.

``<table>/run_test=<key>/month=<YYYY-MM>/part-<n>.parquet``
``runs/month=<YYYY-MM>/<export_run_id>.parquet``

Months are those of an execution's start, in UTC. Never decides which part takes an execution: see ``places``.
"""

import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from etl.model.keys import is_key

_FOLDER = r"month=(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])"
_PART_PATH = re.compile(rf"([a-z]+)/run_test=([^/]+)/({_FOLDER}/part-(?:0|[1-9][0-9]{{0,8}}))\.parquet", re.ASCII)
_RUN_PATH = re.compile(rf"(runs)()/({_FOLDER}/[0-9A-Za-z-]+)\.parquet", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The same place in each table: one file per table, with the rows of the same executions.

    An export run is a part of the table ``runs`` alone.
    """

    run_test_key: str
    """The key of the run test, as in ``run_test=KEY``; empty for an export run."""
    place: str
    """Where it lies below its run test, such as ``month=2026-11/part-0``; an export run's id stands in for part-0."""

    @property
    def folder(self) -> str:
        """The folder of the part's month, such as ``month=2026-11``."""
        return self.place.partition("/")[0]

    @property
    def number(self) -> int:
        """The part's number in its folder, from 0. Not for export runs."""
        return int(self.place.rpartition("-")[2])

    @property
    def month(self) -> str:
        """The month alone, such as ``2026-11``."""
        return self.folder.removeprefix("month=")


@dataclass(frozen=True, slots=True)
class Scope:
    """Some run tests of the dataset and some days; by default everything."""

    run_test_keys: frozenset[str] | None = None
    """The keys of the run tests; None for all."""
    since: date = date.min
    """The first UTC day on which an execution of the scope may start."""
    until: date = date.max
    """The last such day, included."""
    since_of: Mapping[str, date] = field(default_factory=dict)
    """By key, the first such day of a run test that has one of its own."""
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By key, the names of the only run tests that are meant: a folder may hold rows of several, after a rename."""

    def has(self, part: Part) -> bool:
        """Whether the part may hold executions of the scope. The run test does not matter for an export run."""
        first, last = days_of(part.folder)
        is_of_run_tests = not part.run_test_key or self.run_test_keys is None or part.run_test_key in self.run_test_keys
        return is_of_run_tests and self.since_of.get(part.run_test_key, self.since) <= last and first <= self.until


def folder_of(day: date) -> str:
    """The folder of executions and export runs that began on this UTC day, such as ``month=2026-11``."""
    return f"month={day.isoformat()[:7]}"


def place_of(folder: str, number: int) -> str:
    """The ``place`` of the part with this number in the folder."""
    return f"{folder}/part-{number}"


def days_of(folder: str) -> tuple[date, date]:
    """The first and the last day of the folder's month."""
    first = date.fromisoformat(f"{folder.removeprefix('month=')}-01")
    return first, first.replace(day=monthrange(first.year, first.month)[1])


def part_path(table: str, part: Part) -> str:
    """The path of the part's file in this table, relative to the dataset's root."""
    run_test = f"run_test={part.run_test_key}/" if part.run_test_key else ""
    return f"{table}/{run_test}{part.place}.parquet"


def parse_part_path(path: str) -> tuple[str, Part] | None:
    """The table and the part whose ``part_path`` this is; None if it is not one that this layout has."""
    match = _PART_PATH.fullmatch(path) or _RUN_PATH.fullmatch(path)
    return (match[1], Part(match[2], match[3])) if match and (not match[2] or is_key(match[2])) else None


def run_part(day: date, export_run_id: str) -> Part:
    """The part of ``runs`` that holds an export run which began on this UTC day."""
    return Part("", f"{folder_of(day)}/{export_run_id}")
