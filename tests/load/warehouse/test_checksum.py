"""A checksum tells any two different sets of rows apart, and nothing else."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.load.warehouse.delta import added, checksums
from etl.model.schema import BOOL, DATE, FLOAT, INT, STRING, TIMESTAMP

SCHEMA = pa.schema(
    [
        ("id", STRING),
        ("text", STRING),
        ("whole", INT),
        ("number", FLOAT),
        ("flag", BOOL),
        ("at", TIMESTAMP),
        ("day", DATE),
    ]
)
values = {
    STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    INT: st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3),
    FLOAT: st.floats(allow_nan=False),
    BOOL: st.booleans(),
    TIMESTAMP: st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC)),
    DATE: st.dates(),
}
rows = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), *(st.none() | values[field.type] for field in list(SCHEMA)[1:])).map(
        lambda row: dict(zip(SCHEMA.names, row, strict=True))
    ),
    max_size=4,
)


def of(found):
    return checksums(pa.Table.from_pylist(found, schema=SCHEMA), "id")


def cells(found):
    """What is to be told apart: 0.0 and -0.0 are, too."""
    return {each: sorted(repr(row) for row in found if row["id"] == each) for each in "ab"}


@given(rows, rows)
def test_checksums_are_equal_exactly_if_the_rows_are(some, others):
    sums, other_sums = of(some), of(others)
    for item in "ab":
        assert (sums.get(item) == other_sums.get(item)) == (cells(some)[item] == cells(others)[item])


@given(rows, st.randoms())
def test_order_of_rows_and_columns_does_not_matter(some, random):
    table, shuffled = pa.Table.from_pylist(some, schema=SCHEMA), random.sample(some, len(some))
    names = random.sample(SCHEMA.names, len(SCHEMA.names))

    assert checksums(pa.Table.from_pylist(shuffled, schema=SCHEMA).select(names), "id") == checksums(table, "id")


@given(rows, rows)
def test_sums_of_pieces_add_up(some, others):
    total = dict(of(some))
    added(total, of(others))

    assert total == of(some + others)


@given(rows)
def test_chunks_do_not_matter(some):
    pieces = [pa.Table.from_pylist([row], schema=SCHEMA) for row in some]

    assert checksums(pa.concat_tables([SCHEMA.empty_table(), *pieces]), "id") == of(some)


def test_column_without_values_changes_nothing():
    table = pa.table({"id": ["a"], "whole": [1]})

    assert checksums(table.append_column("new", pa.nulls(1, STRING)), "id") == checksums(table, "id")


def test_value_in_another_column_is_another_row():
    first, second = ({"id": "a", "text": None, "other": "x"}, {"id": "a", "text": "x", "other": None})
    schema = pa.schema([("id", STRING), ("text", STRING), ("other", STRING)])

    assert len({*(checksums(pa.Table.from_pylist([row], schema=schema), "id")["a"] for row in (first, second))}) == 2


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ("", STRING),
        (0, INT),
        (0.0, FLOAT),
        (False, BOOL),
        (datetime(1970, 1, 1, tzinfo=UTC), TIMESTAMP),
        (date(1970, 1, 1), DATE),
    ],
)
def test_nothing_is_not_null(value, type_):
    with_value, without = (pa.table({"id": ["a"], "it": pa.array([each], type_)}) for each in (value, None))

    assert checksums(with_value, "id") != checksums(without, "id")


def test_hashes_stay_the_same_from_one_version_to_the_next():
    """Else the first load after an upgrade would find every execution altered."""
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    row = {"id": "a", "text": "é", "whole": 1, "number": 0.5, "flag": True, "at": moment, "day": moment.date()}

    assert of([row]) == {"a": 8090671053848192353}
