"""What is known to be gone of a run test: who judges by the rows that are left must say so."""

from datetime import UTC, datetime

from etl.inspect.status_files import COUNTED, changed_counts, table_files, unmatched_calls
from etl.load.attempt import who_exports
from etl.load.files.open import Files
from etl.load.index import index_if_readable
from etl.model.wording import counted


def rows_gone(files: Files, key: str) -> list[str]:
    """How much is gone of the run test with this key, in words; while somebody is at work, who moves rows, as the last run said.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    before = who_exports(files)
    index, now = index_if_readable(files, []), datetime.now(UTC)
    parts = {
        table.name: [each for each in table_files(files, table, index, [], now=now) if each.key == key]
        for table in COUNTED
    }
    executions, calls, evals, unmatched = len(index.lost.get(key, ())), 0, 0, 0
    if before.at_work is None and who_exports(files) == before:
        gone, calls, evals = (counts[key] for counts in changed_counts(index, parts, [])[0])
        executions += gone
        unmatched = unmatched_calls(key, parts["executions"], sum(each.rows for each in parts["calls"]), index)
    counts = {"execution": executions, "call": max(calls, unmatched), "eval": evals}
    found = [counted(number, noun) for noun, number in counts.items() if number]
    if unmatched < 0 and not executions:
        found.append(f"the executions of {counted(-unmatched, 'call')}")
    if damaged := index.damaged().get(key):
        found.append(f"rows of {counted(len(damaged), 'execution')}")
    return found
