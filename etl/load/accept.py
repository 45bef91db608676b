"""Let execution rows vouch for the calls and evals that are there, since what else was exported is not to come back."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import repeat
from typing import Any

import pyarrow.compute as pc

from etl.load.dataset import Dataset
from etl.load.index import Index
from etl.load.layout import Part
from etl.load.merge import is_of, with_column
from etl.load.receipt import Change
from etl.model import schema
from etl.model.lifecycle import HeldRows
from etl.transform.frames import ExportStamp


def accept_damaged(dataset: Dataset, index: Index, damaged: Mapping[str, AbstractSet[str]], stamp: ExportStamp) -> None:
    """Believe what the parts hold of these executions, given by the key of their run test; of ``index``, which is of the files now.

    One without a row of its own is noted in the index. One that a list shows again is fetched again: no fingerprint is that of
    the new rows.

    Raises:
        DestinationError: a part could not be written; the executions there are still damaged.
    """
    digests_of_strays = index.strays()
    for part, each in index.parts.items():
        mine = each.rows.filter(is_of(each.rows, damaged.get(part.run_test_key, ())))
        here = mine.filter(mine["is_here"])
        if len(here):
            ids, digests, counts = (here[name].to_pylist() for name in ("execution_id", "held_digest", "held_calls"))
            _vouch(dataset, part, dict(zip(ids, zip(digests, counts, strict=True), strict=True)), stamp)
        strays = mine.filter(pc.and_not(pc.or_(mine["has_calls"], mine["has_evals"]), mine["is_here"]))
        if len(strays):
            ids, digests, counts = (strays[name].to_pylist() for name in ("execution_id", "held_digest", "held_calls"))
            index.vouched |= dict(zip(ids, map(HeldRows, repeat(None), counts, digests), strict=True))
            of_run_test = digests_of_strays[part.run_test_key]
            index.accepted.setdefault(part.run_test_key, {}).update({each: of_run_test[each] for each in ids})
            index.is_saved = False


def _vouch(dataset: Dataset, part: Part, held: Mapping[str, tuple[str, int]], stamp: ExportStamp) -> None:
    """Write digest and number of calls into the execution rows of the part."""
    rows = dataset.rows(schema.EXECUTIONS, part)
    ids, listed = rows["execution_id"].to_pylist(), rows["listed_calls"].to_pylist()
    was_listed = {each for each, count in zip(ids, listed, strict=True) if count is not None}
    new: dict[str, dict[str, Any]] = {
        "calls_digest": {each: digest for each, (digest, _) in held.items()},
        "exported_calls": {each: calls for each, (_, calls) in held.items()},
        "listed_calls": {each: calls for each, (_, calls) in held.items() if each in was_listed},
        "fingerprint": dict.fromkeys(held, ""),
        **{name: dict.fromkeys(held, value) for name, value in stamp.columns.items()},
    }
    had = dict(zip(ids, rows["exported_calls"].to_pylist(), strict=True))
    for name, values in new.items():
        old = rows[name].to_pylist()
        rows = with_column(rows, name, [values.get(each, before) for each, before in zip(ids, old, strict=True)])
    dataset.write(schema.EXECUTIONS, part, rows)
    dataset.receipt.note(part.run_test_key, Change.REPLACED, held.keys())
    emptied = {each for each, (_, calls) in held.items() if had[each] and not calls}
    dataset.receipt.note(part.run_test_key, Change.EMPTIED, emptied)
