"""Hashes that tell whether something changed, and say the same tomorrow and in the next version."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model.digest import fingerprint, row_hashes, rows_digest, voucher

STARTED_AT = datetime(2026, 3, 1, 9, 0, 1, 123456, tzinfo=UTC)
ROW = {
    "call_execution_id": "call",
    "duration_seconds": 88.0,
    "cost_total_cost_cents": 24,
    "output_passed": True,
    "execution_started_at": STARTED_AT,
    "csat": None,
}


def hash_of(row):
    return row_hashes({name: [value] for name, value in row.items()})[0]


def test_fingerprint_is_the_same_in_every_version():
    """A changed value here would fetch every execution of every dataset again."""
    assert fingerprint({"b": 1, "a": [2.5, None, "é"]}) == "b246151fb7c80978996508a5411f49fe"


def test_row_hash_is_the_same_in_every_version():
    assert hash_of(ROW) == "044c17d48e2ebf2aa3958fd843470173"


def test_rows_digest_is_the_same_in_every_version():
    assert rows_digest(["b", "a"]) == "0c84cf75ee142f818515ab54bd107d86"


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


def test_a_column_added_later_changes_no_row_hash():
    assert hash_of(ROW) == hash_of({**ROW, "new_metric": None})
    assert hash_of(dict.fromkeys(ROW)) == hash_of(dict.fromkeys([*ROW, "new_metric"]))


def test_row_hash_disregards_the_order_of_columns():
    assert hash_of(ROW) == hash_of(dict(reversed(ROW.items())))


def test_row_hash_sees_every_change():
    for name, value in ROW.items():
        assert hash_of({**ROW, name: "other" if value is None else None}) != hash_of(ROW)
    assert hash_of({**ROW, "execution_started_at": STARTED_AT.replace(microsecond=123457)}) != hash_of(ROW)


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
