"""Where parts and export runs lie, and which of them a scope has."""

from datetime import date

import pytest

from etl.load.layout import Part, Scope, days_of, folder_of, parse_part_path, parse_run_path, part_path, run_path

MARCH = "month=2026-03/part-0"


@pytest.mark.parametrize("place", [MARCH, "month=2026-03/part-12"])
def test_part_path_is_the_documented_one(place):
    part = Part("checkout-flow-858f2c8d", place)
    path = f"calls/run_test=checkout-flow-858f2c8d/{place}.parquet"
    assert part_path("calls", part) == path
    assert parse_part_path(path) == ("calls", part)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "calls",
        "calls/run_test=a/month=2026-03",
        "calls/run_test=a/date=2026-03-01/part-0.parquet",
        "calls/run_test=a/month=2026-03/part-01.parquet",
        "calls/run_test=a/month=2026-03/part-.parquet",
        "calls/run_test=a/month=2026-03/part--1.parquet",
        "calls/run_test=a/month=2026-03/part-1e3.parquet",
        "calls/run_test=a/month=2026-03/part-9999999999.parquet",
        "calls/run_test=a/month=2026-03/part-0.parquet.tmp",
        "calls/run_test=a/month=2026-03/part-0.parquet/",
        "/calls/run_test=a/month=2026-03/part-0.parquet",
        "calls/run_test=a/month=2026-03/x/part-0.parquet",
        "calls/month=2026-03/run_test=a/part-0.parquet",
        "calls/run_test=/month=2026-03/part-0.parquet",
        "calls/run_test=A/month=2026-03/part-0.parquet",
        "calls/run_test=007/month=2026-03/part-0.parquet",
        "calls/run_test=../month=2026-03/part-0.parquet",
        "calls/a/month=2026-03/part-0.parquet",
        "calls/run_test=a/2026-03/part-0.parquet",
        "calls/run_test=a/month=2026-3/part-0.parquet",
        "calls/run_test=a/month=2026-03\n/part-0.parquet",
        "calls/run_test=a/month=٢٠٢٦-03/part-0.parquet",
        "calls/run_test=a/month=2026-13/part-0.parquet",
        "calls/run_test=a/month=0000-01/part-0.parquet",
        "calls/run_test=a/month=2026-03-01/part-0.parquet",
        "calls/run_test=a/month=__HIVE_DEFAULT_PARTITION__/part-0.parquet",
        "runs/month=2026-03/20260301T020000Z.parquet",
    ],
)
def test_a_path_that_the_exporter_never_wrote_is_no_part(path):
    assert parse_part_path(path) is None


def test_export_runs_lie_by_month_alone():
    path = run_path("month=2026-03", "20260301T020000Z-1a2b")
    assert path == "runs/month=2026-03/20260301T020000Z-1a2b.parquet"
    assert parse_run_path(path) == ("month=2026-03", "20260301T020000Z-1a2b")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "runs",
        "runs/x.parquet",
        "runs/month=2026-03/x.csv",
        "runs/month=202603/x.parquet",
        "runs/day=2026-03-01/x.parquet",
        "calls/month=2026-03/x.parquet",
        "runs/run_test=a/month=2026-03/part-0.parquet",
        "runs/month=2026-13/x.parquet",
        "runs/date=2026-03-01/x.parquet",
        "runs/month=2026-03/.parquet",
        "runs/month=2026-03/.x.parquet",
        "runs/month=2026-03/x y.parquet",
        "runs/month=2026-03/x.parquet.tmp",
        "runs/month=2026-03/x.parquet\n",
        "runs/month=2026-03/é.parquet",
    ],
)
def test_other_paths_are_no_export_runs(path):
    assert parse_run_path(path) is None


def test_folder_tells_its_days():
    assert folder_of(date(2026, 2, 3)) == "month=2026-02"
    assert days_of("month=2026-02") == (date(2026, 2, 1), date(2026, 2, 28))
    assert days_of("month=2028-02")[1] == date(2028, 2, 29)


@pytest.mark.parametrize(
    ("scope", "has"),
    [
        (Scope(), [True] * 4),
        (Scope(frozenset(["a"])), [True, True, False, False]),
        (Scope(frozenset()), [False] * 4),
        (Scope(since=date(2026, 3, 31)), [True] * 4),
        (Scope(since=date(2026, 4, 1)), [False, True, False, True]),
        (Scope(until=date(2026, 3, 1)), [True, False, True, False]),
        (Scope(until=date(2026, 2, 28)), [False] * 4),
        (Scope(frozenset(["b"]), date(2026, 3, 31), date(2026, 4, 1)), [False, False, True, True]),
    ],
)
def test_a_scope_is_of_run_tests_and_of_days_both_included(scope, has):
    parts = [Part(key, place) for key in ("a", "b") for place in (MARCH, "month=2026-04/part-3")]
    assert [scope.has(each) for each in parts] == has
