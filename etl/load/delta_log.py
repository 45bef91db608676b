"""The newest commits of a Delta table, read from the files of its log: two requests, however long the log is.

The library reads every commit since the last checkpoint, twice. A load that finds nothing to do needs only the last.
"""

import json
import re
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileInfo, FileSelector, PyFileSystem

LOAD_ID = "metrics_etl.load_id"
"""The key of the load's id in the metadata of each of its commits."""
_MAINTENANCE = ("OPTIMIZE", "VACUUM")
"""How the names of operations begin that change no row."""
_MAX_MAINTENANCE = 50
"""How many commits of maintenance may follow a load before it is no longer found."""
_VERSION = re.compile(r"(\d{20})\.")
"""Begins the name of a commit, and of a checkpoint."""


def files_below(url: str, folder: str, options: dict[str, str]) -> list[FileInfo]:
    """What is in a folder below the URL, by one request; nothing if one of the two does not exist."""
    try:
        storage = PyFileSystem(DeltaStorageHandler(url, options))
        return [*storage.get_file_info(FileSelector(folder, allow_not_found=True))]
    except TableNotFoundError:
        return []


class DeltaLog:
    """The log of the table at a URL, as it was when it was listed; empty if there is no table."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        self.url = url
        self.options = options
        self._sizes = {file.base_name: file.size for file in files_below(url, "_delta_log", options)}
        self.version = max((int(found[1]) for found in map(_VERSION.match, self._sizes) if found), default=-1)
        """The table's version; -1 if there is no table."""
        self._commits: dict[int, list[dict[str, Any]]] = {}
        """The actions of the commits that were read, by version."""

    @cached_property
    def last_change(self) -> str:
        """The id of the load that changed the table last; a text of its own for each change by another writer."""
        for version in range(self.version, max(self.version - _MAX_MAINTENANCE, -1), -1):
            info = next(iter(self._found("commitInfo", version)), {})
            if not str(info.get("operation")).startswith(_MAINTENANCE):
                return str(info.get(LOAD_ID, version))
        return f"before {self.version}"

    def rows(self) -> pa.Table | None:
        """All rows, if the last commit is of a load that replaced them all; else None."""
        files = self._found("add", self.version)
        if not (files and any(LOAD_ID in info for info in self._found("commitInfo", self.version))):
            return None
        # In this thread alone: a process that ends while another one lets go of Python's bytes is aborted.
        opened = (pq.ParquetFile(pa.BufferReader(self._read(file["path"], file["size"]))) for file in files)
        return pa.concat_tables(file.read(use_threads=False) for file in opened)

    def _found(self, kind: str, version: int) -> list[dict[str, Any]]:
        """The actions of this kind in a commit; none if the commit is gone."""
        if version not in self._commits:
            name = f"{version:020}.json"
            content = self._read(f"_delta_log/{name}", self._sizes[name]) if name in self._sizes else b""
            self._commits[version] = [*map(json.loads, content.splitlines())]
        return [action[kind] for action in self._commits[version] if kind in action]

    def _read(self, path: str, size: int) -> bytes:
        """A file of the table, whose size is known, by one request."""
        with PyFileSystem(DeltaStorageHandler(self.url, self.options, {path: size})).open_input_file(path) as file:
            return bytes(file.read())
