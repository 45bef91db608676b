"""What a load decides from two sets of digests, and how it says what it did; that it is done: ``test_laws.py``."""

from types import SimpleNamespace
from typing import Any

import pytest

from etl.errors import DestinationError
from etl.load.contents import Contents
from etl.load.interface import Loaded
from etl.load.synchronize import LoadResult, PendingItems, find_pending, missing_executions, refuse_another_copy
from etl.model.digest import rows_digest

NO_DATASET: Any = None
OURS = {"same": "1", "edited here": "2", "edited there": "3", "new": "4"}
THEIRS = {"same": "1", "edited here": "1", "edited there": None, "gone": "5", "damaged": "6", "gone and edited": None}
RUNS = {"run-1": "1", "run-2": "2"}
CONTENTS = Contents(NO_DATASET, "id", {"execution": OURS, "errors": {}, "run": {"run-1": "1"}}, damaged={"damaged"})
LOADED = Loaded("id", {"execution": THEIRS, "run": RUNS})


def test_items_that_differ_are_told_apart_by_who_changed_them() -> None:
    missing = missing_executions(CONTENTS, LOADED)
    assert missing == {"gone"}
    pending = find_pending(CONTENTS, LOADED, held_back=CONTENTS.damaged | missing)
    assert pending["execution"] == PendingItems({"new"}, {"edited here"}, {"edited there"}, {"gone and edited"})
    assert pending["run"].deleted == {"run-2"}
    full = find_pending(CONTENTS, LOADED, held_back=CONTENTS.damaged, is_full=True)["execution"]
    assert full == PendingItems({"new"}, {"same", "edited here"}, {"edited there"}, {"gone", "gone and edited"})


def test_runs_that_another_copy_has_loaded_are_refused_but_not_those_that_this_copy_left_and_lost() -> None:
    warehouse: Any = SimpleNamespace(where="duckdb://metrics.duckdb")
    refuse_another_copy(warehouse, LOADED, RUNS.keys(), "")
    refuse_another_copy(warehouse, LOADED, {"run-1"}, rows_digest(RUNS))
    with pytest.raises(DestinationError, match=r"another copy .* 1 run that this one lacks, such as run-2\. Load from"):
        refuse_another_copy(warehouse, LOADED, {"run-1"}, rows_digest(["run-1"]))


def test_result_names_only_what_there_was() -> None:
    assert LoadResult("", new=1200, altered=3).in_words == "executions: 1,200 new, 3 changed in the warehouse"
    assert LoadResult("", is_changed=True).in_words == "already up to date"
    assert LoadResult("").in_words == "already up to date"
