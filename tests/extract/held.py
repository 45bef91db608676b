"""What a dataset holds of executions whose calls are fetched."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from etl.extract.client import Client
from etl.extract.plan import Planned, Route
from etl.extract.settling import Settling
from etl.extract.voice_list import VoiceLists
from etl.model import schema
from etl.model.lifecycle import StoredCalls
from tests.bundles import EXPORT, as_listed, execution, planned, stored_of


def resumed(execution_id: str) -> Planned:
    """An execution that was left incomplete, and is listed as it was when that began."""
    listed = execution(execution_id)
    known = stored_of(listed, export_state="incomplete", verified_at=EXPORT.exported_at)
    return replace(planned(execution_id), execution=as_listed(listed), stored=known, route=Route.RESUME)


def settling_of(
    client: Client,
    stored: Mapping[str, bool] | None = None,
    *,
    failed: Collection[str] = (),
    stale: Collection[str] = (),
) -> Settling:
    """The dataset holds the ``stored`` calls of every execution, each with whether it is marked as deleted.

    Of those that ``failed`` it holds a dead letter; ``stale`` ones were fetched before the execution was found as it
    is listed now.
    """
    held = dict(stored or {})

    def row(key: str) -> list[Any]:
        exported_at = EXPORT.exported_at - timedelta(seconds=key in stale)
        return [exported_at if name == "exported_at" else None for name in schema.CALLS.names]

    async def read(_item: Planned) -> StoredCalls:
        rows = {key: row(key) for key, is_deleted in held.items() if not is_deleted}
        return StoredCalls(held, rows, failed=frozenset(failed))

    return Settling(client, read, VoiceLists(client))
