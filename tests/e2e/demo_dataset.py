"""The demo's dataset as it was in one week, for tests of what documents show of it."""

import asyncio
import contextlib
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.cli import demo

FRIDAY = datetime(2026, 11, 20, 15, tzinfo=UTC)


def make_demo(path: Path, *, friday: datetime = FRIDAY) -> None:
    """Make the dataset that ``metrics-etl demo`` made in that week, by default that of which the documents tell, and no more."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        for name in ("_show_warehouse", "_show_report"):
            patch.setattr(demo, name, lambda *_: None)
        asyncio.run(demo.run_demo(path, seed=1, now=friday))
