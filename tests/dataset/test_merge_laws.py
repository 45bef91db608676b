"""A merge does what a plain dictionary of rows would do: rows stay, but for dead letters, and marks come and go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.dataset.merge import Replacement, mark, merge
from etl.model import schema
from tests.support import examples

EXECUTIONS = ["e1", "e2", "e3"]
START = datetime(2026, 3, 1, tzinfo=UTC)
TABLES = [schema.EXECUTIONS, schema.CALLS, schema.EVALS, schema.ERRORS]
OF_CALLS = (schema.CALLS, schema.EVALS)
VERSION = {"export_run_id", "exported_at", "verified_at"}
STAMP, LATER = ({"export_run_id": run, "exported_at": START + timedelta(days=day)} for run, day in (("m", 3), ("n", 4)))
each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def keyed_rows(table, run, *, may_be_deleted=False):
    """Rows of unique keys; a call's execution follows from its name."""
    moment = START + timedelta(days=run)

    def row(number, config, value, is_deleted):
        execution_id, start = f"e{number % 3 + 1}", START + timedelta(hours=number % 3) if number % 3 else None
        fields = {
            "execution_id": execution_id,
            "call_execution_id": f"c{number}",
            "eval_config_id": config,
            "endpoint": config,
            "subject_id": f"c{number}" if number < 6 else execution_id,
            "status": (value if table.name != "errors" else None),
            "message": value,
            "extra": value,
            "started_at": start,
            "execution_started_at": start,
            "deleted_at": START if is_deleted and may_be_deleted else None,
            **dict.fromkeys(("first_seen_at", "last_seen_at", "exported_at", "verified_at"), moment),
            "export_run_id": f"run-{run}",
        }
        return {name: fields.get(name) for name in table.names}

    drawn = st.builds(row, st.integers(0, 8), st.sampled_from("xy"), st.sampled_from(["same", "other"]), st.booleans())
    return st.lists(drawn, max_size=12).map(lambda rows: {key_of(table, row): row for row in rows})


def key_of(table, row):
    return tuple(row[name] for name in table.key)


def content_of(row):
    return {name: value for name, value in row.items() if name not in VERSION}


def as_table(table, rows):
    return pa.Table.from_pylist(list(rows.values()), table.arrow_schema)


def by_key(table, rows):
    """The rows, none of which may stand twice."""
    listed = rows.to_pylist()
    found = {key_of(table, row): row for row in listed}
    assert len(found) == len(listed)
    assert rows.schema.equals(table.arrow_schema, check_metadata=True)
    return found


def unlisted_by_hand(table, row, replacement):
    """What becomes of an old row that no new one replaces; None when it goes."""
    is_of_replaced = row["execution_id"] in set(replacement.executions)
    if table is schema.ERRORS:
        subject = (row["execution_id"], row["subject_id"])
        is_of_call = subject[0] != subject[1]
        is_doubtful = is_of_call and subject[0] in replacement.unproved and subject not in replacement.listed_calls
        return row if is_doubtful or not is_of_replaced else None
    if table not in OF_CALLS or not is_of_replaced or row["execution_id"] in replacement.without_calls:
        return row
    call, was_deleted = (row["execution_id"], row["call_execution_id"]), row["deleted_at"] is not None
    is_deleted = was_deleted
    if call in replacement.deleted_calls:
        is_deleted = True
    elif call in replacement.listed_calls:
        is_deleted = table is schema.EVALS
    if is_deleted == was_deleted:
        return row
    return row | STAMP | {"deleted_at": STAMP["exported_at"] if is_deleted else None}


def merged_by_hand(table, old, new, replacement):
    result = {key: unlisted_by_hand(table, row, replacement) for key, row in old.items() if key not in new}
    for key, row in new.items():
        known, arriving = old.get(key), dict(row)
        if known is not None and table is schema.ERRORS:
            arriving["first_seen_at"] = known["first_seen_at"]
        is_execution, execution_id = table is schema.EXECUTIONS, row["execution_id"]
        if known is not None and is_execution and execution_id in replacement.heads:
            arriving["extra"] = known["extra"]
        is_renewed = is_execution and execution_id in replacement.renewed
        if known is None or is_renewed or content_of(known) != content_of(arriving):
            result[key] = arriving
        elif is_execution and execution_id in replacement.verified:
            result[key] = known | {name: row[name] for name in VERSION if name in row}
        else:
            result[key] = known
    return {key: row for key, row in result.items() if row is not None}


some_executions = st.sets(st.sampled_from(EXECUTIONS))
# Of calls that lie there, and of calls that lie under another execution.
some_calls = st.sets(st.integers(0, 26).map(lambda each: (f"e{(each % 9 + each // 9) % 3 + 1}", f"c{each % 9}")))
replacements = st.builds(
    Replacement,
    executions=some_executions,
    without_calls=some_executions,
    listed_calls=some_calls,
    deleted_calls=some_calls,
    unproved=some_executions,
    heads=some_executions,
    verified=some_executions,
    renewed=some_executions,
    stamp=st.just(STAMP),
)


def drawn_rows(data, table, replacement):
    """Old rows, and new ones as a commit has them: each replaced execution has its row."""
    old = data.draw(keyed_rows(table, 1, may_be_deleted=True))
    ids = set(replacement.executions) - (set(replacement.without_calls) if table in OF_CALLS else set())
    new = {key: row for key, row in data.draw(keyed_rows(table, 2)).items() if row["execution_id"] in ids}
    if table is schema.EXECUTIONS:
        again = STAMP | {"deleted_at": None, "verified_at": START + timedelta(days=2)}
        new |= {key: row | again for key, row in old.items() if key[0] in ids and key not in new}
    return old, new


@each_table
@settings(max_examples=examples(200))
@given(data=st.data(), replacement=replacements)
def test_merge_does_what_a_dictionary_would_do(table, data, replacement):
    old, new = drawn_rows(data, table, replacement)
    replacement = replace(replacement, renewed=replacement.renewed & {row["execution_id"] for row in new.values()})
    before, arriving = as_table(table, old), as_table(table, new)
    merged = merge(table, before, arriving, replacement)
    expected = merged_by_hand(table, old, new, replacement)

    assert by_key(table, merged.table) == expected
    assert table is schema.ERRORS or expected.keys() >= old.keys() | new.keys(), "no row ever goes"
    assert merged.is_changed is (expected != old)
    assert merged.is_changed or merged.table is before
    differing = {key for key in old.keys() | expected.keys() if old.get(key) != expected.get(key)}
    if table is schema.EXECUTIONS:  # one that says the same was only verified
        renewed = {(each,) for each in replacement.renewed}
        differing -= {k for k in old.keys() - renewed if content_of(old[k]) == content_of(expected[k])}
    assert merged.changed == {(old.get(key) or expected[key])["execution_id"] for key in differing}
    marked = {key for key in differing & expected.keys() if expected[key].get("deleted_at")}
    assert (merged.marked, merged.arrived) == (len(marked), len((differing & expected.keys()) - marked))

    again = merge(table, merged.table, arriving, replace(replacement, renewed=(), stamp=LATER))
    assert not again.is_changed
    assert again.table is merged.table


@each_table
@settings(max_examples=examples(160))
@given(data=st.data(), executions=some_executions)
def test_what_is_deleted_is_marked_once_and_listed_again_is_as_it_was(table, data, executions):
    old = data.draw(keyed_rows(table, 1, may_be_deleted=True))
    before = as_table(table, old)
    marked = mark(table, before, executions, STAMP)
    theirs = {key for key, row in old.items() if row["execution_id"] in executions}
    if table is schema.ERRORS:
        expected = {key: row for key, row in old.items() if key not in theirs}
    else:
        fresh = {key for key in theirs if old[key]["deleted_at"] is None}
        told = STAMP | {"deleted_at": STAMP["exported_at"]}
        expected = old | {key: old[key] | told for key in fresh}
        assert (marked.marked, marked.changed) == (len(fresh), {old[key]["execution_id"] for key in fresh})
    assert by_key(table, marked.table) == expected
    assert marked.is_changed is (expected != old)
    assert not mark(table, marked.table, executions, LATER).is_changed

    listed = {key: row | LATER | ({"deleted_at": None} if "deleted_at" in row else {}) for key, row in old.items()}
    calls = {(row["execution_id"], row["call_execution_id"]) for row in old.values() if table in OF_CALLS}
    replacement = Replacement(EXECUTIONS, listed_calls=calls, stamp=LATER)
    again = merge(table, marked.table, as_table(table, listed), replacement)
    now = by_key(table, again.table)
    assert {key: content_of(row) for key, row in now.items()} == {key: content_of(row) for key, row in listed.items()}
    for key, row in now.items():
        was_there = key not in theirs and (table is schema.ERRORS or old[key]["deleted_at"] is None)
        assert (row["export_run_id"] == "n") is not was_there
