"""Settings that point at a sandbox, and its keys."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from etl.sandbox import Sandbox
from etl.settings import Settings

API_KEY, SECRET_KEY = "sandbox-key", "sandbox-secret"


def settings_for(server: Sandbox, path: Path, *, run_tests: Any = None, **sections: Any) -> Settings:
    """Settings of an export from the sandbox to the folder; ``sections`` are added to api, export, …"""
    names = list(dict.fromkeys(run_test.name for run_test in server.world.run_tests))
    return Settings.model_validate(
        {
            "run_tests": run_tests or names,
            "api": {"base_url": server.base_url} | sections.pop("api", {}),
            "destination": {"path": str(path)},
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
        }
        | sections
    )


def cap_pages(server: Sandbox, rows: int | None) -> None:
    """Let the server cut pages to so many rows, so that longer lists have many pages."""
    server._rules = replace(server._rules, max_limit=rows)
