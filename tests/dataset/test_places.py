"""New executions fill one part after the other; what is stored stays where it is."""

from datetime import UTC, datetime

import pytest

from etl.dataset import places as module
from etl.dataset.layout import Part
from etl.dataset.places import Places
from etl.dataset.state import read_state
from tests.bundles import KEY, a_bundle, bundle_of, execution, fetched_call, flattened
from tests.datasets import assert_sound, export_by_places, part

NOW = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "FULL_ROWS", 4)


def places_in(dataset):
    return Places(dataset, read_state(dataset, set_aside=False), now=NOW)


def place_names(places, *bundles):
    return [each.place for each in places.parts_of(flattened(bundles))]


def export_to(dataset, *bundles):
    export_by_places(dataset, *bundles, now=NOW)


@pytest.mark.parametrize(
    ("started_at", "month"),
    [
        ("2026-02-27T23:59:59Z", "2026-02"),
        ("2026-02-28T23:59:59-01:00", "2026-03"),
        (None, "2026-12"),
        ("yesterday", "2026-12"),
    ],
)
def test_new_execution_lies_in_the_utc_time_of_its_start_else_of_now(dataset, started_at, month):
    new = bundle_of(of=execution(started_at=started_at))
    assert place_names(places_in(dataset), new) == [f"month={month}/part-0"]


def test_parts_are_counted_by_run_test_and_month(dataset):
    full = [f"c{number}" for number in range(9)]
    bundles = [
        a_bundle("e1", full),
        a_bundle("e2", full, key="booking"),
        a_bundle("e3", full, date="2026-09-02"),
        a_bundle("e4"),
    ]
    found = places_in(dataset).parts_of(flattened(bundles))
    assert found == [
        Part(KEY, "month=2026-08/part-0"),
        Part("booking", "month=2026-08/part-0"),
        Part(KEY, "month=2026-09/part-0"),
        Part(KEY, "month=2026-08/part-1"),
    ]


@pytest.mark.parametrize("wide", ["calls", "evals", "executions"])
def test_longest_table_fills_a_part(dataset, wide):
    listed = {"eval_outputs": {f"eval-{number}": {"output": 1} for number in range(4)}}
    calls = {"calls": [fetched_call(f"c{n}") for n in range(4)], "evals": [fetched_call("c", listed=listed)]}
    bundles = [bundle_of(*calls.get(wide, ()), of=execution(f"e{number}")) for number in range(5)]
    numbers = [each.number for each in places_in(dataset).parts_of(flattened(bundles))]
    assert numbers == ([0, 0, 0, 0, 1] if wide == "executions" else [0, 1, 2, 3, 4])


def test_part_is_continued_by_the_next_run_and_by_the_next_commit(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    export_to(dataset, a_bundle("e2", ["c3", "c4"]))
    assert not (tmp_path / part("calls").replace("part-0", "part-1")).exists()
    dataset.receipt.written.clear()  # as another run
    export_to(dataset, a_bundle("e3", ["c5"]))
    assert (tmp_path / part("calls").replace("part-0", "part-1")).exists()
    assert len(assert_sound(tmp_path)["calls"]) == 5


def test_large_part_is_full_whatever_the_number_of_its_rows(dataset, monkeypatch):
    monkeypatch.setattr(module, "FULL_ROWS", 1_000)
    export_to(dataset, a_bundle("e1"))
    monkeypatch.setattr(module, "FULL_BYTES", 1_000)
    assert place_names(places_in(dataset), a_bundle("e2", ["c3"])) == ["month=2026-08/part-1"]
