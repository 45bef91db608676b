"""Where a partition lies in the dataset, and what a run test's partition is called. Pure.

``<table>/run_test=<key>/date=<YYYY-MM-DD>/part-0.parquet``; export runs lie by date alone. Keys are lower-case ASCII that
starts with a letter: no reader takes them for numbers, dates or null, and no file system folds two of them into one.
"""

import re
from dataclasses import dataclass

from etl.model.keys import is_key

PART = "part-0.parquet"
STATE = "_state"
LOCK = f"{STATE}/lock"
STAGING = f"{STATE}/staging"
QUARANTINE = f"{STATE}/quarantine"

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One run test's executions of one UTC day."""

    run_test_key: str
    date: str


def partition_path(table: str, partition: Partition) -> str:
    """Path of the partition's one file, relative to the dataset."""
    return f"{table}/run_test={partition.run_test_key}/date={partition.date}/{PART}"


def parse_partition_path(path: str) -> tuple[str, Partition] | None:
    """The table and partition of a path that ``partition_path`` gave, else None."""
    parts = path.split("/")
    if len(parts) != 4 or parts[3] != PART or not (parts[1].startswith("run_test=") and parts[2].startswith("date=")):
        return None
    key, date = parts[1].removeprefix("run_test="), parts[2].removeprefix("date=")
    return (parts[0], Partition(key, date)) if is_key(key) and _DATE.fullmatch(date) else None


def run_path(date: str, export_run_id: str) -> str:
    """Path of the file that describes one export run, relative to the dataset."""
    return f"runs/date={date}/{export_run_id}.parquet"


def parse_run_path(path: str) -> str | None:
    """The date of a path that ``run_path`` gave, else None."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != "runs" or not (parts[1].startswith("date=") and parts[2].endswith(".parquet")):
        return None
    date = parts[1].removeprefix("date=")
    return date if _DATE.fullmatch(date) else None
