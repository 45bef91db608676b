"""No test of the settings sees the environment of whoever runs it."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("METRICS_ETL_", "FI_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("FI_API_KEY", "api-canary")
    monkeypatch.setenv("FI_SECRET_KEY", "secret-canary")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prod.toml"
