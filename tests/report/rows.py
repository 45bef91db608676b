"""Rows of calls and evals, and the figures made of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from etl.compare.comparison import Row
from etl.compare.nightly import Worse
from etl.compare.samples import EVAL_COLUMNS, difference_of, eval_metrics, samples_of
from etl.model import schema
from etl.model.metrics import METRICS
from etl.report.figures import CALLS_READ, Standing, figures_of
from etl.settings.results import Compare
from tests.compare.executions import execution as compared_execution

MONDAY = datetime(2026, 11, 2, 9, tzinfo=UTC)
LATENCY, CHAT_LATENCY = "latency_avg_agent_latency_ms", "chat_metrics_avg_latency_ms"


def execution(execution_id, *, day=0):
    return compared_execution(execution_id, started_at=MONDAY + timedelta(days=day))


def call(number, *, day=0, of="e1", status="completed", **values):
    begun = (MONDAY + timedelta(days=day)).date()
    return {"call_execution_id": f"c{number}", "execution_id": of, "status": status, "date": begun} | values


def output(number, *, passed, name="Task", of="e1", **values):
    config = {"eval_config_id": f"config of {name}", "eval_name": name, "output_passed": passed}
    return {"call_execution_id": f"c{number}", "execution_id": of} | config | values


def table(declared, names, rows):
    columns = {each.name: each.type for each in (*declared.columns, schema.DAY)}
    wanted = dict.fromkeys([*declared.key, "execution_id", *names])
    return pa.Table.from_pylist(rows, pa.schema([(name, columns[name]) for name in wanted]))


def figures(calls, evals=(), executions=None, key="key", name="Name", *, worse=(), **values):
    """``worse``: metrics by name, which are worse since the second execution."""
    tables = table(schema.CALLS, CALLS_READ, list(calls)), table(schema.EVALS, EVAL_COLUMNS, list(evals))
    named = [replace(each, run_test=key, run_test_name=name) for each in executions or [execution("e1")]]
    found = [worse_since(each, named, tables) for each in worse]
    values = {"standing": Standing.WORSE if worse else Standing.AS_BEFORE, "rules": Compare()} | values
    return figures_of(named, *tables, found, **values)


def worse_since(name, executions, tables):
    sides = executions[:1], executions[1:]
    samples, pairing = samples_of(*tables, *sides, rules=Compare())
    metric = (METRICS | eval_metrics(samples))[name]
    row, since = Row(metric, difference_of(metric, samples)), executions[1].started_at.date()
    return Worse(
        run_test=executions[0].label,
        since=since,
        nights=len(sides[1]),
        row=row,
        sides=sides,
        samples=samples,
        pairing=pairing,
    )
