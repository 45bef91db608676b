"""Where partitions and export runs lie, and which of them a scope has."""

from datetime import date, timedelta

import pytest

from etl.load.layout import Partition, Scope, parse_partition_path, parse_run_path, partition_path, run_path


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
