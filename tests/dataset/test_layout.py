"""Where parts and export runs lie, and which of them a scope has."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.dataset.layout import Part, Scope, days_of, folder_of, parse_part_path, part_path, place_of, run_part
from tests.strategies import run_test_keys

PART, RUN = "calls/run_test=a/month=2026-03/part-0.parquet", "runs/month=2026-03/20260301T020000Z-1a2b.parquet"
MARCH = "month=2026-03/part-0"


def test_paths_are_the_documented_ones():
    assert part_path("calls", Part("a", MARCH)) == PART
    assert part_path("runs", run_part(date(2026, 3, 1), "20260301T020000Z-1a2b")) == RUN


@given(st.sampled_from(["executions", "calls"]), run_test_keys, st.dates(), st.integers(0, 999_999_999))
def test_a_path_gives_back_what_it_was_made_of(table, key, day, number):
    folder = folder_of(day)
    part = Part(key, place_of(folder, number))
    assert parse_part_path(part_path(table, part)) == (table, part)
    assert (part.folder, part.number) == (folder, number)
    first, last = days_of(folder)
    assert first <= day <= last
    run = run_part(day, "1-a")
    assert parse_part_path(part_path("runs", run)) == ("runs", run)
    assert (run.folder, run.month) == (folder, folder.removeprefix("month="))


@given(st.data(), st.sampled_from([PART, RUN]), st.text("aA01-._=/\n٢é", max_size=3))
def test_a_path_that_is_told_apart_is_one_that_the_exporter_writes(data, path, text):
    start = data.draw(st.integers(0, len(path)))
    other = path[:start] + text + path[data.draw(st.integers(start, min(len(path), start + 3))) :]
    if parsed := parse_part_path(other):
        assert part_path(*parsed) == other


@pytest.mark.parametrize(
    "path",
    [
        PART.replace("month=2026-03", "date=2026-03-01"),
        PART.replace("part-0", "part-01"),
        PART.replace("part-0", "part-9999999999"),
        PART.replace("run_test=a", "run_test=A"),
        PART.replace("run_test=a", "run_test=.."),
        PART.replace("2026-03", "2026-13"),
        PART.replace("2026-03", "0000-01"),
        f"{PART}.tmp",
        f"/{PART}",
        RUN.replace("month=2026-03", "month=2026-13"),
        RUN.replace("2026-03/", "2026-03/."),
        f"{RUN}\n",
        RUN.replace("1a2b", "é"),
    ],
)
def test_other_paths_are_neither_parts_nor_export_runs(path):
    assert parse_part_path(path) is None


@pytest.mark.parametrize(
    ("scope", "has"),
    [
        (Scope(), [True] * 4),
        (Scope(frozenset(["a"])), [True, True, False, False]),
        (Scope(frozenset()), [False] * 4),
        (Scope(since=date(2026, 3, 31)), [True] * 4),
        (Scope(since=date(2026, 4, 1)), [False, True, False, True]),
        (Scope(since=date(2026, 4, 1), since_of={"a": date.max}), [False, False, False, True]),
        (Scope(until=date(2026, 2, 28)), [False] * 4),
        (Scope(frozenset(["b"]), date(2026, 3, 31), date(2026, 4, 1)), [False, False, True, True]),
    ],
)
def test_a_scope_is_of_run_tests_and_of_days_both_included(scope, has):
    parts = [Part(key, place) for key in ("a", "b") for place in (MARCH, "month=2026-04/part-3")]
    assert [scope.has(each) for each in parts] == has
