"""What is known to be gone of run tests: a judgement by the rows that are left must say so."""

from collections.abc import Collection
from datetime import UTC, datetime

from etl.inspect.status_files import COUNTED, changed_counts, table_files, unmatched_calls
from etl.load.attempt import Exporter, who_exports
from etl.load.files.contract import Files
from etl.load.index import index_if_readable
from etl.model.wording import counted

_TRIES = 3


def rows_gone(files: Files, keys: Collection[str] | None = None) -> list[str]:
    """How much is gone of the run tests with these keys, by default of all, in words.

    While somebody is at work, rows are on the move: then it is what the last run knew of, and what is gone for sure.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    for _ in range(_TRIES):
        before = who_exports(files)
        found, is_at_rest = _gone_at_once(files, keys, before)
        if is_at_rest or not found:
            break
    return found


def _gone_at_once(files: Files, keys: Collection[str] | None, before: Exporter) -> tuple[list[str], bool]:
    """And whether nobody was at work meanwhile."""
    index, now = index_if_readable(files, []), datetime.now(UTC)
    parts = {table.name: table_files(files, table, index, [], now=now) for table in COUNTED}
    is_at_rest = before.at_work is None and who_exports(files) == before
    gone, _ = changed_counts(index, parts, [], is_exporting=not is_at_rest)
    damaged = index.damaged()
    if keys is None:
        held = {each.key for found in parts.values() for each in found} | {part.run_test_key for part in index.parts}
        keys = sorted(held | index.lost.keys() | damaged.keys())
    found = []
    for key in keys:
        executions, calls, evals = (counts[key] for counts in gone)
        executions += len(index.lost.get(key, ()))
        unmatched = 0
        if is_at_rest:
            of_executions, of_calls = (
                [each for each in parts[name] if each.key == key] for name in ("executions", "calls")
            )
            unmatched = unmatched_calls(key, of_executions, sum(each.rows for each in of_calls), index)
        counts = {"execution": executions, "call": max(calls, unmatched), "eval": evals}
        found += [counted(number, noun) for noun, number in counts.items() if number]
        if unmatched < 0 and not executions:
            found.append(f"the executions of {counted(-unmatched, 'call')}")
        if key in damaged:
            found.append(f"rows of {counted(len(damaged[key]), 'execution')}")
    return found, is_at_rest
