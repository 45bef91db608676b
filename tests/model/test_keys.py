"""The key of a run test: nothing that a reader, a file system or a name could turn against us."""

from itertools import islice

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etl.model.keys import KEY_MAX_BYTES, default_key, is_key, numbered_keys
from tests.strategies import run_test_names

KEYS_FROM = run_test_names | st.sampled_from(
    [
        "caf\u00e9", "cafe\u0301", "STRASSE", "\u0131stanbul", "007", "true", "nan", "2026-01-01", "", ".",
        "../../etc/passwd", "a\x00b", "run_test=x", "--help", "_state", "CON", "__HIVE_DEFAULT_PARTITION__", "a-" * 128,
        "\ufdfa" * 255, "\ud800", "٣", "½",
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Checkout flow", "checkout-flow-858f2c8d"),
        ("Ünïcode / Agent Test #1", "unicode-agent-test-1-"),
        ("007", "run-test-007-"),
        ("客", "run-test-"),
        ("--help", "help-"),
        ("a" * 255, f"{'a' * 71}-"),
        (f"{'a' * 70} b", f"{'a' * 70}-"),
    ],
)
def test_default_key_is_readable_and_ends_in_8_hexadecimal_digits(name, key):
    assert default_key(name).startswith(key)
    assert len(default_key(name).rpartition("-")[2]) == 8


@pytest.mark.parametrize("key", ["a", "checkout", "checkout-flow-858f2c8d", "a_b-c", "v2", "a1-2026-01-01", "a" * 80])
def test_plain_words_are_keys(key):
    assert is_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "", "A", "Checkout", "7", "007", "1.5", "1e5", "0x1f", "2026-01-01", "2026-01", "true", "false", "null", "none",
        "nan", "inf", "infinity", "na", "nat", "t", "f", "epoch", "-a", "a-", "a" * 81, "_state",
        "_a", "a_", "a--b", "a__b", "a-_b", "a b", " a", "a ", "a\n", "__hive_default_partition__",
        "a/b", "a\\b", ".", "..", "a.b", "a=b", "a%b", "é", "\uff41", "ß", "a'b", 'a"b',
    ],
)  # fmt: skip
def test_what_a_reader_would_take_for_a_value_or_a_system_would_change_is_no_key(text):
    assert not is_key(text)


@given(KEYS_FROM)
def test_every_default_key_is_a_short_key_and_always_the_same(name):
    key = default_key(name)
    assert is_key(key)
    assert len(key.encode()) <= KEY_MAX_BYTES
    assert default_key(name) == key
    others = [*islice(numbered_keys(key), 12)]
    assert (others[0], len({*others}), all(map(is_key, others))) == (key, 12, True)


@given(KEYS_FROM, KEYS_FROM)
def test_different_names_have_different_keys(name, other):
    assume(name != other)
    assert default_key(name) != default_key(other)


@given(KEYS_FROM, st.sampled_from([str.upper, str.lower, str.swapcase, str.strip, " {}".format, "{}\n".format]))
def test_a_name_that_looks_alike_has_another_key(name, change):
    assume(change(name) != name)
    assert default_key(name) != default_key(change(name))


@given(KEYS_FROM)
def test_a_key_survives_file_systems_that_fold_case_and_readers_that_guess_types(text):
    if is_key(text):
        assert text.isascii()
        assert text == text.lower()
        assert text[0].isalpha()
        assert not set(text) & set("/\\.=% \n'\"")
