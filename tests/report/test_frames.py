"""The frames behind the page have the figures of the page."""

from datetime import date
from pathlib import Path

import pytest

import etl


@pytest.fixture(scope="module")
def settings(demo: Path) -> Path:
    folder = demo.parent
    (folder / "settings.toml").write_text('run_tests = "all"\n[destination]\npath = "data"\n', encoding="utf-8")
    return folder / "settings.toml"


def test_figures_are_those_that_the_documents_show_of_the_demo(settings: Path) -> None:
    frames = etl.report_data(settings)
    assert [*frames["run_tests"]["verdict"]] == ["worse", "no alarm", "no alarm"]
    is_latency = (frames["metrics"]["run_test"] == "Checkout flow") & (frames["metrics"]["metric"] == "latency_mean")
    (worse,) = frames["metrics"][is_latency].to_dict("records")
    assert (round(worse["before"]), round(worse["after"]), str(worse["since"])) == (1260, 1932, "2026-11-09")
    assert worse["low"] < worse["difference"] < worse["high"]
    assert {"nights", "scenarios", "rates", "failures", "worst_calls"} <= frames.keys()
    assert {*frames["worst_calls"].loc[lambda frame: frame["run_test"] == "Checkout flow", "agent_version"]} == {"v2"}
    of_metric = frames["scenarios"].loc[lambda frame: frame["metric"] == "latency_mean"]
    assert (of_metric["after"] > of_metric["before"]).all()
    only = etl.report_data(settings, run_tests=["Refund chat"])
    assert {name for frame in only.values() for name in frame["run_test"]} == {"Refund chat"}
    assert len(only) == len(frames) == 7
    nothing = etl.report_data(settings, until=date(2026, 1, 1))
    assert {name: [*frame] for name, frame in nothing.items()} == {name: [*frame] for name, frame in frames.items()}
    assert {len(frame) for frame in nothing.values()} == {0}
