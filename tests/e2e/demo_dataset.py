"""The demo's dataset as it was in one week, for tests of what documents show of it."""

import asyncio
import contextlib
import io
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from etl.cli import demo
from etl.pipeline import job

FRIDAY = datetime(2026, 11, 20, 15, tzinfo=UTC)


def make_demo(path: Path, *, friday: datetime = FRIDAY) -> None:
    """Make the dataset of ``metrics-etl demo``, without warehouse and report, as it was made in the week of ``friday``.

    By default it is the dataset that the documents show.
    """
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        for name in ("_show_warehouse", "_show_report"):
            patch.setattr(demo, name, lambda *_: None)
        patch.setattr(job, "export", partial(job.export, clock=lambda: friday))
        asyncio.run(demo.run_demo(path, seed=1, now=friday))
