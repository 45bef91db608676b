"""The key of a run test: nothing that a reader, a file system or a name could turn against us."""

import unicodedata

import pytest

from etl.model.keys import KEY_MAX_BYTES, default_key, is_key

NAMES = [
    "Checkout flow", "checkout flow", "Checkout  flow", " Checkout flow", "Checkout flow ", "Checkout-flow", "Checkout_flow",
    "Checkout flow\n", "caf\u00e9", "cafe\u0301", "cafe", "CAFÉ", "Straße", "STRASSE", "İstanbul", "\u0131stanbul", "ﬁn", "fin",
    "007", "7", "7.0", "0x7", "1e5", "true", "True", "null", "nan", "inf", "epoch", "2026-01-01", "2026-01-01T00:00:00Z",
    "", " ", ".", "..", "/", "\\", "../../etc/passwd", "a/b", "a\\b", "a\nb", "a\x00b", "a\tb", "'", '"', "''", "`", "$(x)", "%2F",
    "=SUM(1+1)", "run_test=x", "x=y", "-", "--help", "_", "_state", "CON", "nul", "__HIVE_DEFAULT_PARTITION__",
    "\u5ba2" * 255, "\u5ba2" * 254, "a" * 255, "a" * 256, "a-" * 128, "\u00e9" * 255, "\ufdfa" * 255, "😀" * 64,
    "\ud800", "\udfff", "\ud83d\ude00", "😀", "\u202egnp.exe", "\ufeff", "\u200b", "٣", "²", "Ⅷ", "½",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_default_key_is_a_key_of_at_most_80_bytes(name):
    key = default_key(name)
    assert is_key(key)
    assert len(key.encode()) <= KEY_MAX_BYTES


def test_names_that_differ_in_anything_have_different_keys():
    assert len(set(NAMES)) == len(NAMES)
    keys = [default_key(name) for name in NAMES]
    assert len(set(keys)) == len(keys)
    assert len({unicodedata.normalize("NFKC", key).casefold() for key in keys}) == len(keys)


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
        "", "A", "Checkout", "7", "007", "1.5", "1e5", "0x1f", "2026-01-01", "2026-01", "true", "false", "null", "none", "nan",
        "inf", "infinity", "na", "nat", "t", "f", "epoch", "-a", "a-",
        "_a", "a_", "a--b", "a__b", "a-_b", "a b", " a", "a ", "a\n",
        "a/b", "a\\b", ".", "..", "a.b", "a=b", "a%b", "é", "\uff41", "ß", "a'b", 'a"b',
        "a" * 81, "_state", "__hive_default_partition__",
    ],
)  # fmt: skip
def test_what_a_reader_would_take_for_a_value_or_a_system_would_change_is_no_key(text):
    assert not is_key(text)
