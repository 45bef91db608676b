"""What the executions of a part that have not settled lack, beside those of their run test that have."""

from collections import Counter
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


def drift_in(
    dataset: Dataset,
    part: Part,
    table: schema.Table,
    rows: pa.Table,
    own: pa.Table,
    handled: Collection[str],
    stored: Mapping[str, StoredExecution],
) -> list[Drift]:
    """See ``find_drift``.

    ``rows`` are all that the part has, the ``own`` ones came now, of executions that are ``handled``; ``stored`` is what the
    dataset held before the run. Where too few of the part's executions had settled, those of another part are the measure.
    """
    final = _final(rows, stored) - {*handled}
    latest, settled = rows.filter(pc.invert(is_of(rows, final))), rows.filter(is_of(rows, final))
    if sum(stored[each].exported_calls for each in final) < ENOUGH:
        calls = Counter[str]()
        for known in stored.values():
            if known.run_test_key == part.run_test_key and known.place != part.place and _is_final(known):
                calls[known.place] += known.exported_calls
        if place := max((each for each in calls if calls[each] >= ENOUGH), default=None):
            with suppress(FileMissingError, UnreadableError):
                path = part_path(table.name, Part(part.run_test_key, place))
                older = dataset.read(table, path, table.names)
                settled = older.filter(is_of(older, _final(older, stored)))
    return [*find_drift(table, latest, settled, own["execution_id"].unique().to_pylist())]


def _final(rows: pa.Table, stored: Mapping[str, StoredExecution]) -> set[str]:
    return {each for each in rows["execution_id"].unique().to_pylist() if _is_final(stored.get(each))}


def _is_final(known: StoredExecution | None) -> bool:
    return known is not None and known.export_state == ExportState.EXPORTED
