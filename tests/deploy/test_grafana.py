"""The dashboard is one for Grafana, and its queries give what its panels draw."""

import json
import re
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

import etl
from etl.model.metrics import LINE_FAILURES
from tests.e2e.demo_dataset import FRIDAY
from tests.warehouses import Place, load_into

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8")
DASHBOARD = json.loads(TEXT)
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
SCHEMA = ROOT / "tests" / "grafana" / "dashboard-13.2.3.schema.json"
GRAFANA = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
SINCE = FRIDAY - timedelta(days=30)
AGE = "Age of the data"


def test_grafana_accepts_the_dashboard() -> None:
    GRAFANA.validate(DASHBOARD)


@pytest.mark.parametrize(("right", "wrong"), [("drawStyle", "draw"), ("timeseries", "plugin"), ("refresh", "fresh")])
def test_grafana_refuses_a_dashboard_with_a_mistake(right: str, wrong: str) -> None:
    """Else the test above could not fail."""
    assert right in TEXT
    assert not GRAFANA.is_valid(json.loads(TEXT.replace(right, wrong)))


def test_line_failures_are_those_of_the_gate() -> None:
    assert VARIABLES["line_failures"]["query"].split("|") == [*LINE_FAILURES]


def macro(found: re.Match[str]) -> str:
    """What Grafana's PostgreSQL data source makes of a macro. Its arguments end at the first parenthesis."""
    name, [column, *more] = found[1], [each.strip() for each in found[2].split(",")]
    if name == "timeFilter":
        return f"{column} BETWEEN '{SINCE.isoformat()}' AND '{FRIDAY.isoformat()}'"
    assert (name, more) == ("timeGroupAlias", ["'1d'"])
    return f'floor(extract(epoch from {column})/86400)*86400 AS "time"'


def rows_of(place: Place, query: str, run_tests: Iterable[str] = ()) -> list[dict[str, Any]]:
    """What a query gives for the 30 days before the demo, where these run tests are chosen, by the keys of folders."""
    chosen, words = ",".join(f"'{each}'" for each in run_tests), VARIABLES["line_failures"]["query"]
    values = {"schema": "{s}", "run_test:sqlstring": chosen, "line_failures": words}
    query = re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], query)
    query = re.sub(r"\$__([A-Za-z]+)\(([^)]*)\)", macro, query)
    assert "$_" not in query
    return place.query(query)


def by_day(data: Path, run_tests: Iterable[str]) -> dict[str, dict[str, pd.Series]]:
    """By panel and name of the series, the figures of each day and run test, as pandas has them."""
    calls = etl.read_calls(data, run_tests=[*run_tests], evals="wide")
    calls = calls[calls["execution_started_at"] >= SINCE]
    day = calls["execution_started_at"].dt.floor("D").astype("int64[pyarrow]") // 1_000_000
    latency = calls["latency_avg_agent_latency_ms"].fillna(calls["chat_metrics_avg_latency_ms"])
    ended, has_failed = calls["status"].isin(["completed", "failed"]), calls["status"].eq("failed")
    of_line = has_failed & calls["ended_reason"].eq("customer-did-not-answer").fillna(False)
    has_passed, dollars = calls["eval_task_completion_passed"], calls["cost_total_cost_cents"] / 100
    success = calls["status"].eq("completed") & has_passed.fillna(True)

    def grouped(values: pd.Series) -> Any:
        return values.astype("float64").groupby([day, calls["run_test_name"]])

    return {
        "Latency": {"mean": grouped(latency).mean(), "p95": grouped(latency).quantile(0.95)},
        "Pass rate by eval": {"passed": grouped(has_passed).mean()},
        "Failure rate": {
            "agent": grouped(has_failed.where(ended & ~of_line)).mean(),
            "line": grouped(of_line.where(ended)).mean(),
        },
        "Calls per day": {"calls": grouped(day).size()},
        "Cost per day": {"cost": grouped(dollars).sum()},
        "Cost per successful call": {"cost": grouped(dollars).sum() / grouped(success).sum()},
    }


def test_every_panel_draws_the_chosen_run_tests_by_day(demo: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, demo)
    *chosen, other = [row["__value"] for row in rows_of(in_postgresql, VARIABLES["run_test"]["query"])]
    expected = by_day(demo, chosen)
    assert ([AGE, *expected], len(chosen), other[:14]) == ([*PANELS], 2, "support-triage")
    for title, series in expected.items():
        rows = rows_of(in_postgresql, PANELS[title]["targets"][0]["rawSql"], chosen)
        by_key = {(int(row["time"]), row["metric"].partition(":")[0]): row for row in rows}
        for name, figures in series.items():
            found = {key: float(row[name]) for key, row in by_key.items()}
            assert found == pytest.approx(figures.dropna().to_dict()), (title, name)


def test_age_and_new_versions_are_shown(demo: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, demo)
    [age] = rows_of(in_postgresql, PANELS[AGE]["targets"][0]["rawSql"])
    [annotation] = DASHBOARD["annotations"]["list"]
    versions = rows_of(in_postgresql, annotation["target"]["rawSql"], ["checkout-flow-858f2c8d"])

    assert list(age) == ["Last load", "Last complete export"]
    assert 0 <= float(age["Last load"]) < float(age["Last complete export"])
    assert [(row["time"].date(), row["text"]) for row in versions] == [(date(2026, 11, 9), "Checkout flow: v2")]
