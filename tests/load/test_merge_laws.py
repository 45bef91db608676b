"""A merge does what a plain dictionary of rows would do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.load.merge import Replacement, merge
from etl.model import schema
from tests.support import examples

EXECUTIONS = ["e1", "e2", "e3"]
START = datetime(2026, 3, 1, tzinfo=UTC)
TABLES = [schema.EXECUTIONS, schema.CALLS, schema.EVALS, schema.ERRORS]
VERSION = {"export_run_id", "exported_at", "verified_at"}


def keyed_rows(table, run):
    """Rows of unique keys; a call's execution follows from its name, so that no key ever moves."""
    moment = START + timedelta(days=run)

    def row(number, config, value):
        execution_id = f"e{number % 3 + 1}"
        fields = {
            "execution_id": execution_id,
            "call_execution_id": f"c{number}",
            "eval_config_id": config,
            "endpoint": config,
            "subject_id": f"c{number}",
            "row_hash": value,
            "status": (value if table.name != "errors" else None),
            "message": value,
            "extra": value,
            "started_at": START + timedelta(hours=number % 3) if number % 3 else None,
            "execution_started_at": START + timedelta(hours=number % 3) if number % 3 else None,
            "first_seen_at": moment,
            "last_seen_at": moment,
            "exported_at": moment,
            "verified_at": moment,
            "export_run_id": f"run-{run}",
        }
        return {name: fields.get(name) for name in table.names}

    drawn = st.builds(row, st.integers(0, 8), st.sampled_from("xy"), st.sampled_from(["same", "other"]))
    return st.lists(drawn, max_size=12).map(lambda rows: {key_of(table, row): row for row in rows})


def key_of(table, row):
    return tuple(row[name] for name in table.key)


def content_of(row):
    return {name: value for name, value in row.items() if name not in VERSION}


def has_calls(table):
    return table in (schema.CALLS, schema.EVALS)


def replaced_in(table, replacement):
    return set(replacement.executions) - (set(replacement.without_calls) if has_calls(table) else set())


def outlasts(table, row, replacement):
    """Whether an old row stays that no new one replaces."""
    if row["execution_id"] not in replaced_in(table, replacement):
        return True
    if not has_calls(table):
        return False
    is_failed = row["call_execution_id"] in replacement.failed_calls
    may_stay = is_failed or row["execution_id"] in replacement.unproved
    return (table is schema.CALLS and is_failed) or (
        may_stay and row["call_execution_id"] not in replacement.listed_calls
    )


def merged_by_hand(table, old, new, replacement):
    result = {key: row for key, row in old.items() if key not in new and outlasts(table, row, replacement)}
    for key, row in new.items():
        known, arriving = old.get(key), dict(row)
        if known is not None and table is schema.ERRORS:
            arriving["first_seen_at"] = known["first_seen_at"]
        if known is not None and table is schema.EXECUTIONS and row["execution_id"] in replacement.heads:
            arriving["extra"] = known["extra"]
        is_renewed = table is schema.EXECUTIONS and row["execution_id"] in replacement.renewed
        if known is None or is_renewed or content_of(known) != content_of(arriving):
            result[key] = arriving
        elif table is schema.EXECUTIONS and row["execution_id"] in replacement.verified:
            result[key] = known | {name: row[name] for name in VERSION if name in row}
        else:
            result[key] = known
    return result


def only_verified(before, now, replacement):
    """Whether the row says the same as before, and no more than when it was verified."""
    return (
        before is not None and content_of(before) == content_of(now) and now["execution_id"] not in replacement.renewed
    )


def as_table(table, rows):
    return pa.Table.from_pylist(list(rows.values()), table.arrow_schema)


some_executions, some_calls = st.sets(st.sampled_from(EXECUTIONS)), st.sets(st.integers(0, 8).map("c{}".format))
replacements = st.builds(
    Replacement,
    executions=some_executions,
    without_calls=some_executions,
    unproved=some_executions,
    listed_calls=some_calls,
    failed_calls=some_calls,
    heads=some_executions,
    verified=some_executions,
    renewed=some_executions,
)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(max_examples=examples(200))
@given(data=st.data(), replacement=replacements)
def test_merge_does_what_a_dictionary_would_do(table, data, replacement):
    old, replaced = data.draw(keyed_rows(table, 1)), replaced_in(table, replacement)
    new = {key: row for key, row in data.draw(keyed_rows(table, 2)).items() if row["execution_id"] in replaced}
    replacement = replace(replacement, renewed=replacement.renewed & {row["execution_id"] for row in new.values()})
    before, arriving = as_table(table, old), as_table(table, new)
    merged = merge(table, before, arriving, replacement)
    expected = merged_by_hand(table, old, new, replacement)

    rows = merged.table.to_pylist()
    assert {key_of(table, row): row for row in rows} == expected
    assert len(rows) == len(expected)
    assert merged.is_changed is (expected != old)
    assert merged.is_changed or merged.table is before
    differing = {
        (old.get(key) or expected[key])["execution_id"]
        for key in old.keys() | expected.keys()
        if old.get(key) != expected.get(key)
    }
    if table is schema.EXECUTIONS:
        differing -= {key for (key,), row in expected.items() if only_verified(old.get((key,)), row, replacement)}
    assert merged.changed == differing
    assert merged.table.schema.equals(table.arrow_schema, check_metadata=True)

    again = merge(table, merged.table, arriving, replace(replacement, renewed=()))
    assert not again.is_changed
    assert again.table is merged.table


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(max_examples=40)
@given(data=st.data())
def test_the_result_does_not_depend_on_the_order_of_rows(table, data):
    old, new = data.draw(keyed_rows(table, 1)), data.draw(keyed_rows(table, 2))
    shuffled = dict(data.draw(st.permutations(list(new.items()))))
    one, other = (
        merge(table, as_table(table, old), as_table(table, rows), Replacement(EXECUTIONS)) for rows in (new, shuffled)
    )
    assert one.is_changed is other.is_changed
    assert one.table.equals(other.table)
