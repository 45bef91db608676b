"""One export after the other of a source that changes between them."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.dataset as ds

from etl import sandbox
from etl.model.findings import Kind
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.world import SimulatedExecution
from tests.support import settings_for

NIGHT = datetime.now(UTC)
FOLLOWED = ("executions", "calls", "evals")


class Nights:
    """One export after the other into one dataset, each a day later than the one before, without the sweep."""

    def __init__(self, server: Sandbox, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.now = NIGHT

    @property
    def world(self) -> sandbox.World:
        return self.server.world

    async def export(self, *, names: Any = None, only: Sequence[str] = (), **options: Any) -> Summary:
        self.now += timedelta(days=1)
        self.server.requests.clear()
        sections = {name: options.pop(name) for name in ("api", "export", "warehouse") if name in options}
        sections["export"] = {"sweep_days": 0} | sections.get("export", {})
        settings = settings_for(self.server, self.folder / "data", run_tests=names, **sections).only(only)
        return await job.export(settings, clock=lambda: self.now, **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        folder = self.folder / "data" / table
        found: list[dict[str, Any]] = ds.dataset(folder, partitioning="hive").to_table().to_pylist()
        return found

    def marked(self, table: str, execution: SimulatedExecution | None = None) -> int:
        """How many rows of the table are marked as deleted, of one execution or of all."""
        rows = [row for row in self.rows(table) if row["deleted_at"] is not None]
        return len(
            rows if execution is None else [row for row in rows if row["execution_id"] == execution.execution_id]
        )

    def files(self) -> dict[str, bytes]:
        data = self.folder / "data"
        return {str(path): path.read_bytes() for name in FOLLOWED for path in (data / name).rglob("*.parquet")}


def kinds(summary: Summary) -> list[Kind]:
    return [finding.kind for finding in summary.findings]


def short_list(keep: int) -> Callable[[SandboxRequest, int], Fault | None]:
    """The list of each run test has only its first rows tonight, and counts no others."""

    def cut(request: SandboxRequest, _nth: int) -> Fault | None:
        return Fault(edit=lambda body: _cut(body, keep)) if "run_test_name" in request.query else None

    return cut


def _cut(body: bytes, keep: int) -> bytes:
    document = msgspec.json.decode(body)
    result = document["result"]
    result["results"] = result["results"][:keep]
    result |= {"count": len(result["results"]), "total_pages": 1}
    return msgspec.json.encode(document)
