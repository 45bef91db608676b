"""Where a partition lies in the dataset, and what a run test's partition is called. Pure.

``<table>/run_test=<key>/date=<YYYY-MM-DD>/part-0.parquet``; export runs lie by date alone. Keys are lower-case ASCII that
starts with a letter: no reader takes them for numbers, dates or null, and no file system folds two of them into one.
"""

import re
import unicodedata
from dataclasses import dataclass
from hashlib import sha256

PART = "part-0.parquet"
STATE = "_state"
KEY_MAX_BYTES = 80

_KEY = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_READ_AS_VALUES = {"true", "false", "null", "none", "nan", "inf", "infinity", "na", "nat", "t", "f", "epoch"}
_HASH_DIGITS = 8


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


def is_key(text: str) -> bool:
    """Whether the text can name a partition."""
    return len(text) <= KEY_MAX_BYTES and bool(_KEY.fullmatch(text)) and text not in _READ_AS_VALUES


def default_key(run_test_name: str) -> str:
    """A readable slug of the name and the first digits of its SHA-256: ``Checkout flow`` → ``checkout-flow-858f2c8d``.

    Names that differ in any character (case, normalization, spaces) have different keys.
    """
    digest = sha256(run_test_name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    plain = unicodedata.normalize("NFKD", run_test_name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not slug or not slug[0].isalpha():
        slug = f"run-test-{slug}".rstrip("-")
    return f"{slug[: KEY_MAX_BYTES - _HASH_DIGITS - 1].rstrip('-')}-{digest}"
