"""What the calls of a part lack that have not settled, beside those of their run test that have."""

from collections.abc import Collection, Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.layout import Part, part_path
from etl.load.merge import is_of
from etl.load.parquet import UnreadableError
from etl.model import schema
from etl.model.lifecycle import ExportState, StoredExecution
from etl.transform.drift import ENOUGH, Drift, find_drift

_MOST_ROWS = 5_000


def drift_in(
    dataset: Dataset,
    part: Part,
    rows: Mapping[schema.Table, pa.Table],
    fetched: Mapping[str, pa.Table],
    stored: Mapping[str, StoredExecution],
    handled: Collection[str],
) -> dict[str, list[Drift]]:
    """What ``find_drift`` finds in each table, by its name.

    ``rows`` are all of the part, ``fetched`` those that came now, of executions that are ``handled``; ``stored`` is what was there
    before the run. Where too few of the part's calls had settled, the part before it is the measure.
    """
    final = {each for each, known in stored.items() if _is_final(known, part)} - {*handled}
    here = {each for each in final if stored[each].place == part.place}
    older = max((stored[each].place for each in final if stored[each].place < part.place), default=None)
    found = {}
    for table, of_part in rows.items():
        is_settled = is_of(of_part, here)
        latest, settled = of_part.filter(pc.invert(is_settled)), _last(of_part, is_settled)
        if older and len(latest) >= ENOUGH > len(settled):
            path = part_path(table.name, Part(part.run_test_key, older))
            with suppress(FileMissingError, UnreadableError):
                before = dataset.read(table, path, table.names)
                settled = _last(before, is_of(before, final))
        ids = fetched[table.name]["execution_id"].unique().to_pylist()
        found[table.name] = [*find_drift(table, latest, settled, fetched=ids, seen=stored)]
    return found


def _last(rows: pa.Table, is_wanted: pa.ChunkedArray) -> pa.Table:
    """The last rows that are wanted: a measure takes no more, and the text of a part is large."""
    found = pc.indices_nonzero(is_wanted)
    return rows.take(found.slice(max(0, len(found) - _MOST_ROWS)))


def _is_final(known: StoredExecution, part: Part) -> bool:
    return known.run_test_key == part.run_test_key and known.export_state == ExportState.EXPORTED
