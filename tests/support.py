"""Settings that point at a sandbox, and its keys."""

import os
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etl.extract.client import Client
from etl.files.interface import Files, listed
from etl.model.records import DETAIL
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.world import listable_calls
from etl.settings import Settings

API_KEY, SECRET_KEY = "sandbox-key", "sandbox-secret"
IS_FULL = "FULL_FIGURES" in os.environ  # as make test-all sets it


def run_to_end(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with its output as text, whatever its exit code is."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def examples(full: int) -> int:
    """How many examples of a law are tried: all of them in full, a quarter otherwise."""
    return full if IS_FULL else full // 4


def settings_for(server: Sandbox, path: Path, *, run_tests: Any = None, **sections: Any) -> Settings:
    """Settings of an export from the sandbox to the folder; ``sections`` are added to api, export, …"""
    names = list(dict.fromkeys(run_test.name for run_test in server.world.run_tests))
    return Settings.model_validate(
        {
            "run_tests": run_tests or names,
            "api": {"base_url": server.base_url} | sections.pop("api", {}),
            # To begin a column costs zstd, the default, more than all else that writes a small file.
            "destination": {"path": str(path), "compression": "snappy"},
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
        }
        | sections
    )


def client_of(base_url: str, *, keys: dict[str, str] | None = None, **options: Any) -> Client:
    """A client with the sandbox's keys, or others.

    Of the options, a quota and ``on_hold`` are the client's own; the others belong in ``[api]``.
    """
    own = {name: options.pop(name) for name in ("quota", "on_hold") if name in options}
    credentials = {"api_key": API_KEY, "secret_key": SECRET_KEY} | (keys or {})
    api = {"base_url": base_url} | options
    return Client(Settings.model_validate({"run_tests": "all", "api": api} | credentials), **own)


def cap_pages(server: Sandbox, rows: int | None) -> None:
    """Let the server cut pages to so many rows, so that longer lists have many pages."""
    server._rules = replace(server._rules, max_limit=rows)


def poison_details(server: Sandbox, calls: Collection[str]) -> Callable[[SandboxRequest, int], Fault | None]:
    """What makes each page of a detail that holds one of these calls a 500, as one odd value of a call does."""

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        execution = server.world.execution(request.path.removeprefix(DETAIL).strip("/"))
        if execution is None or not request.path.startswith(DETAIL):
            return None
        page, limit = int(request.query["page"]), int(request.query["limit"])
        limit = min(limit, server._rules.max_limit or limit)
        rows = listable_calls(execution)[(page - 1) * limit : page * limit]
        return Fault(status=500) if any(call.call_execution_id in calls for call in rows) else None

    return fault


def paths_in(files: Files, folder: str) -> list[str]:
    """The paths of all files below the folder, sorted; an error when anything else lies there."""
    return [entry.path for entry in listed(files, folder)]
