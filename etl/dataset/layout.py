"""Paths of the dataset's files, and scopes: parts of a dataset by run test and time. Pure.

``<table>/run_test=<key>/month=<YYYY-MM>/part-<n>.parquet``; export runs lie by month alone.
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
    """One file of each table, with the rows of the same executions; ``place`` is where below its run test.

    An export run is a part of ``runs`` alone, without a run test, whose place ends in its id.
    """

    run_test_key: str
    place: str

    @property
    def folder(self) -> str:
        """``month=2026-11``."""
        return self.place.partition("/")[0]

    @property
    def number(self) -> int:
        """Which one of its folder it is."""
        return int(self.place.rpartition("-")[2])

    @property
    def month(self) -> str:
        """``2026-11``."""
        return self.folder.removeprefix("month=")


@dataclass(frozen=True, slots=True)
class Scope:
    """Part of the dataset: these run tests (None: all), from the first day to the last, both included.

    ``names``: by key, the only run tests that are meant there; a partition may hold rows of several.
    """

    run_test_keys: frozenset[str] | None = None
    since: date = date.min
    until: date = date.max
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def has(self, part: Part) -> bool:
        """Whether executions that the part took when they began may be in the scope; an export run is of any run test."""
        first, last = days_of(part.folder)
        is_of = not part.run_test_key or self.run_test_keys is None or part.run_test_key in self.run_test_keys
        return is_of and self.since <= last and first <= self.until


def folder_of(day: date) -> str:
    """The folder of executions and export runs that began on this UTC day."""
    return f"month={day.isoformat()[:7]}"


def place_of(folder: str, number: int) -> str:
    """The ``place`` of a part."""
    return f"{folder}/part-{number}"


def days_of(folder: str) -> tuple[date, date]:
    """The first and the last day of a folder."""
    first = date.fromisoformat(f"{folder.removeprefix('month=')}-01")
    return first, first.replace(day=monthrange(first.year, first.month)[1])


def part_path(table: str, part: Part) -> str:
    """Path of the part's file in the table, relative to the dataset."""
    run_test = f"run_test={part.run_test_key}/" if part.run_test_key else ""
    return f"{table}/{run_test}{part.place}.parquet"


def parse_part_path(path: str) -> tuple[str, Part] | None:
    """The table and part of a path that ``part_path`` gave, else None."""
    match = _PART_PATH.fullmatch(path) or _RUN_PATH.fullmatch(path)
    return (match[1], Part(match[2], match[3])) if match and (not match[2] or is_key(match[2])) else None


def run_part(day: date, export_run_id: str) -> Part:
    """The part of an export run that began on this UTC day."""
    return Part("", f"{folder_of(day)}/{export_run_id}")
