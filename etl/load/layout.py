"""Paths of the dataset's files, and scopes: parts of a dataset by run test and day. Pure.

``<table>/run_test=<key>/date=<YYYY-MM-DD>/part-0.parquet``; export runs lie by date alone.
"""

import re
from dataclasses import dataclass
from datetime import date

from etl.model.keys import is_key

PART = "part-0.parquet"
STATE = "_state"
LOCK = f"{STATE}/lock"
STAGING = f"{STATE}/staging"
QUARANTINE = f"{STATE}/quarantine"
ATTEMPT = f"{STATE}/attempt.json"
LAST_RUN = f"{STATE}/last_run.json"

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_RUN_PATH = re.compile(r"runs/date=([^/]+)/([0-9A-Za-z-]+)\.parquet", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One run test's executions of one UTC day."""

    run_test_key: str
    date: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Part of the dataset: these run tests (None: all), from the first day to the last, both included."""

    run_test_keys: frozenset[str] | None = None
    since: date = date.min
    until: date = date.max

    def has(self, partition: Partition) -> bool:
        """Whether the partition is in the scope."""
        return self.has_day(partition.date) and (
            self.run_test_keys is None or partition.run_test_key in self.run_test_keys
        )

    def has_day(self, day: str) -> bool:
        """Whether the day is in the scope."""
        return self.since.isoformat() <= day <= self.until.isoformat()


def partition_path(table: str, partition: Partition) -> str:
    """Path of the partition's one file, relative to the dataset."""
    return f"{table}/run_test={partition.run_test_key}/date={partition.date}/{PART}"


def parse_partition_path(path: str) -> tuple[str, Partition] | None:
    """The table and partition of a path that ``partition_path`` gave, else None."""
    parts = path.split("/")
    if len(parts) != 4 or parts[3] != PART or not (parts[1].startswith("run_test=") and parts[2].startswith("date=")):
        return None
    key, date = parts[1].removeprefix("run_test="), parts[2].removeprefix("date=")
    return (parts[0], Partition(key, date)) if is_key(key) and _is_day(date) else None


def run_path(date: str, export_run_id: str) -> str:
    """Path of the file that describes one export run, relative to the dataset."""
    return f"runs/date={date}/{export_run_id}.parquet"


def parse_run_path(path: str) -> tuple[str, str] | None:
    """The date and the export_run_id of a path that ``run_path`` gave, else None."""
    match = _RUN_PATH.fullmatch(path)
    return (match[1], match[2]) if match and _is_day(match[1]) else None


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
