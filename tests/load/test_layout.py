"""Where partitions lie and how they are called: nothing that a reader, a file system or a name could turn against us."""

import unicodedata
from datetime import date, timedelta

import pytest

from etl.load.layout import Partition, Scope, parse_partition_path, parse_run_path, partition_path, run_path
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


def test_partition_path_is_the_documented_one():
    partition = Partition("checkout-flow-858f2c8d", "2026-03-01")
    path = "calls/run_test=checkout-flow-858f2c8d/date=2026-03-01/part-0.parquet"
    assert partition_path("calls", partition) == path
    assert parse_partition_path(path) == ("calls", partition)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "calls",
        "calls/run_test=a/date=2026-03-01",
        "calls/run_test=a/date=2026-03-01/part-1.parquet",
        "calls/run_test=a/date=2026-03-01/part-0.parquet.tmp",
        "calls/run_test=a/date=2026-03-01/part-0.parquet/",
        "/calls/run_test=a/date=2026-03-01/part-0.parquet",
        "calls/run_test=a/date=2026-03-01/x/part-0.parquet",
        "calls/date=2026-03-01/run_test=a/part-0.parquet",
        "calls/run_test=/date=2026-03-01/part-0.parquet",
        "calls/run_test=A/date=2026-03-01/part-0.parquet",
        "calls/run_test=007/date=2026-03-01/part-0.parquet",
        "calls/run_test=../date=2026-03-01/part-0.parquet",
        "calls/a/date=2026-03-01/part-0.parquet",
        "calls/run_test=a/2026-03-01/part-0.parquet",
        "calls/run_test=a/date=2026-3-1/part-0.parquet",
        "calls/run_test=a/date=2026-03-01\n/part-0.parquet",
        "calls/run_test=a/date=٢٠٢٦-03-01/part-0.parquet",
        "calls/run_test=a/date=2026-13-01/part-0.parquet",
        "calls/run_test=a/date=2026-02-30/part-0.parquet",
        "calls/run_test=a/date=__HIVE_DEFAULT_PARTITION__/part-0.parquet",
        "runs/date=2026-03-01/20260301T020000Z.parquet",
    ],
)
def test_a_path_that_the_exporter_never_wrote_is_no_partition(path):
    assert parse_partition_path(path) is None


def test_export_runs_lie_by_date_alone():
    path = run_path("2026-03-01", "20260301T020000Z-1a2b")
    assert path == "runs/date=2026-03-01/20260301T020000Z-1a2b.parquet"
    assert parse_run_path(path) == ("2026-03-01", "20260301T020000Z-1a2b")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "runs",
        "runs/x.parquet",
        "runs/date=2026-03-01/x.csv",
        "runs/date=20260301/x.parquet",
        "runs/day=2026-03-01/x.parquet",
        "calls/date=2026-03-01/x.parquet",
        "runs/run_test=a/date=2026-03-01/part-0.parquet",
        "runs/date=2026-02-30/x.parquet",
        "runs/date=2026-03-01/.parquet",
        "runs/date=2026-03-01/.x.parquet",
        "runs/date=2026-03-01/x y.parquet",
        "runs/date=2026-03-01/x.parquet.tmp",
        "runs/date=2026-03-01/x.parquet\n",
        "runs/date=2026-03-01/é.parquet",
    ],
)
def test_other_paths_are_no_export_runs(path):
    assert parse_run_path(path) is None


@pytest.mark.parametrize(
    ("scope", "has"),
    [
        (Scope(), [True, True, True, True]),
        (Scope(frozenset(["a"])), [True, True, False, False]),
        (Scope(frozenset()), [False, False, False, False]),
        (Scope(since=date(2026, 3, 2)), [False, True, False, True]),
        (Scope(until=date(2026, 3, 1)), [True, False, True, False]),
        (Scope(frozenset(["b"]), date(2026, 3, 1), date(2026, 3, 1)), [False, False, True, False]),
    ],
)
def test_a_scope_is_of_run_tests_and_of_days_both_included(scope, has):
    partitions = [Partition(key, day) for key in ("a", "b") for day in ("2026-03-01", "2026-03-02")]
    assert [scope.has(each) for each in partitions] == has


def test_partitions_sort_by_run_test_then_day():
    days = [(date(2026, 12, 30) + timedelta(days=number)).isoformat() for number in range(4)]
    partitions = [Partition(key, day) for key in ("a", "b") for day in days]
    assert sorted(set(partitions)) == partitions
