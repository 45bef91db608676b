"""Hashes that tell whether something changed, and say the same tomorrow and in the next version."""

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model.digest import fingerprint, row_hashes, rows_digest, voucher
from tests.independent_reader import voucher as stored_as


def test_fingerprint_is_the_same_in_every_version():
    """A changed value here would fetch every execution of every dataset again."""
    assert fingerprint({"b": 1, "a": [2.5, None, "é"]}) == "b246151fb7c80978996508a5411f49fe"


def test_fingerprint_disregards_the_order_of_keys_at_every_depth():
    assert fingerprint({"a": 1, "b": {"c": [{"x": 1, "y": 2}], "d": 2}}) == fingerprint(
        {"b": {"d": 2, "c": [{"y": 2, "x": 1}]}, "a": 1}
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"a": 1, "b": [1]}, {"a": 1, "b": [2, 1]}, {"a": 1, "b": [1, 2, None]}, {"a": None, "b": [1, 2]}, {"b": [1, 2]},
        {"a": "1", "b": [1, 2]}, {"a": 1.5, "b": [1, 2]}, {"a": True, "b": [1, 2]}, {"a": 1, "b": [1, 2], "c": None},
        {"a": 1, "B": [1, 2]}, {},
    ],
)  # fmt: skip
def test_fingerprint_sees_every_change(changed):
    assert fingerprint(changed) != fingerprint({"a": 1, "b": [1, 2]})


@pytest.mark.parametrize("text", ['{"a":"\\ud800","b":1}', '{"\\udfff":{"b":1,"a":2}}', '{"a":NaN}', '{"a":[1e400]}'])
def test_fingerprint_exists_for_every_payload_that_can_be_decoded(text):
    payload = parse_json(text.encode())
    assert fingerprint(payload) == fingerprint(dict(reversed(payload.items())))
    assert fingerprint(payload) != fingerprint({**payload, "c": 1})


doubles = st.floats(allow_nan=False, allow_infinity=False) | st.floats(1e-7, 1e-3)
values = st.none() | doubles | st.integers() | st.booleans() | st.text() | st.datetimes(timezones=st.just(UTC))


@given(st.dictionaries(st.text("abc", min_size=1), values, min_size=1, max_size=5))
def test_row_hash_is_the_documented_one_whatever_is_null_and_in_any_order(row):
    """Another one would make every row of every dataset look damaged."""
    assert row_hashes({name: [value] for name, value in row.items()}) == [stored_as(row | {"deleted_at": None})]


@pytest.mark.parametrize("hashes", [[], ["a"], ["a", "b", "b"], ["a", "c"], ["ab"], ["a\nb", "c"]])
def test_rows_digest_sees_every_row(hashes):
    assert rows_digest(hashes) != rows_digest(["a", "b"])


@given(st.lists(st.tuples(st.integers(0, 2**128 - 1).map("{:032x}".format), st.booleans()), max_size=5), st.data())
def test_vouchers_tell_each_row_and_its_mark_whatever_the_order(rows, data):
    vouchers = [voucher(row_hash, is_deleted=is_deleted) for row_hash, is_deleted in rows]
    digest = rows_digest(vouchers)
    assert digest == rows_digest(data.draw(st.permutations(vouchers)))
    for number, (row_hash, is_deleted) in enumerate(rows):
        others = vouchers[:number] + vouchers[number + 1 :]
        assert digest != rows_digest(others)
        assert digest != rows_digest([*others, voucher(row_hash, is_deleted=not is_deleted)]), "a mark is news"
