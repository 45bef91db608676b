"""Three questions to a dataset, as users of DuckDB, Polars, pandas or pyarrow put them, and wide calls in pandas.

``python -m benchmarks.engines ENGINE QUERY PATH``; PATH holds a folder of each table (the dataset) or one file of each
(compact). Prints as JSON the seconds without imports, the processor time of them, and how many rows the answer has.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LATENCY = "latency_avg_agent_latency_ms"
COST = "cost_total_cost_cents"
START = "execution_started_at"
PERCENTILE = "weekly p95 of latency"
EVAL_RATE = "pass rate by scenario"
MEAN_COST = "mean cost by run test and week"
QUERIES = (PERCENTILE, EVAL_RATE, MEAN_COST)
ENGINES = ("duckdb", "polars", "pandas", "pyarrow")
MONTH, YEAR = "2023-02", ""


def table_at(path: Path, name: str) -> str:
    """The one file of a table, or its folder."""
    file = path / f"{name}.parquet"
    return str(file if file.exists() else path / name)


def files_at(path: Path, name: str) -> str:
    """The same as a pattern of files."""
    place = table_at(path, name)
    return place if place.endswith(".parquet") else f"{place}/**/*.parquet"


def in_duckdb(query: str, path: Path) -> int:
    """SQL."""
    import duckdb  # noqa: PLC0415 so that no engine pays for another

    calls, evals = (f"read_parquet('{files_at(path, name)}', hive_partitioning = true)" for name in ("calls", "evals"))
    sql = {
        PERCENTILE: f"""
            select date_trunc('week', {START}) as week, quantile_cont({LATENCY}, 0.95) from {calls} group by week""",
        EVAL_RATE: f"""
            select scenario_name, avg(output_passed::int)
            from {evals} join (select call_execution_id, scenario_name from {calls}) using (call_execution_id)
            where output_passed is not null group by scenario_name""",
        MEAN_COST: f"""
            select run_test, date_trunc('week', {START}) as week, avg({COST}) from {calls} group by run_test, week""",
    }
    return len(duckdb.execute(sql[query]).fetchall())


def in_polars(query: str, path: Path) -> int:
    """Lazy frames."""
    import polars as pl  # noqa: PLC0415

    calls, evals = (pl.scan_parquet(files_at(path, name), hive_partitioning=True) for name in ("calls", "evals"))
    week = pl.col(START).dt.truncate("1w").alias("week")
    found = {
        PERCENTILE: calls.group_by(week).agg(pl.col(LATENCY).quantile(0.95, "linear")),
        EVAL_RATE: evals.filter(pl.col("output_passed").is_not_null())
        .join(calls.select("call_execution_id", "scenario_name"), on="call_execution_id")
        .group_by("scenario_name")
        .agg(pl.col("output_passed").mean()),
        MEAN_COST: calls.group_by("run_test", week).agg(pl.col(COST).mean()),
    }
    return found[query].collect().height


def in_pandas(query: str, path: Path) -> int:
    """``read_parquet`` and ``groupby``."""
    import pandas as pd  # noqa: PLC0415

    def read(name: str, *columns: str) -> pd.DataFrame:
        return pd.read_parquet(table_at(path, name), columns=list(columns))

    def week(frame: pd.DataFrame) -> pd.Series:
        days = frame[START].dt.floor("D")
        monday: pd.Series = days - pd.to_timedelta(days.dt.day_of_week, unit="D")
        return monday

    if query == PERCENTILE:
        calls = read("calls", START, LATENCY)
        return len(calls[LATENCY].groupby(week(calls)).quantile(0.95))
    if query == MEAN_COST:
        calls = read("calls", START, COST, "run_test")
        return len(calls.groupby(["run_test", week(calls)], observed=True)[COST].mean())
    evals = read("evals", "call_execution_id", "output_passed").dropna()
    judged = evals.merge(read("calls", "call_execution_id", "scenario_name"), on="call_execution_id")
    return len(judged["output_passed"].astype(float).groupby(judged["scenario_name"]).mean())


def in_pyarrow(query: str, path: Path) -> int:
    """Datasets and compute functions."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.dataset as ds  # noqa: PLC0415

    calls, evals = (ds.dataset(table_at(path, name), partitioning="hive") for name in ("calls", "evals"))
    week = pc.floor_temporal(pc.field(START), unit="week")
    if query == PERCENTILE:
        rows = calls.to_table({"week": week, LATENCY: pc.field(LATENCY)})
        return len(rows.group_by("week").aggregate([(LATENCY, "tdigest", pc.TDigestOptions(0.95))]))
    if query == MEAN_COST:
        rows = calls.to_table({"week": week, "run_test": pc.field("run_test"), COST: pc.field(COST)})
        return len(rows.group_by(["run_test", "week"]).aggregate([(COST, "mean")]))
    judged = evals.to_table(["call_execution_id", "output_passed"], filter=pc.field("output_passed").is_valid())
    of_calls = calls.to_table(["call_execution_id", "scenario_name"])
    places = pc.index_in(judged["call_execution_id"], value_set=of_calls["call_execution_id"])
    found = pa.table(
        {"scenario_name": of_calls["scenario_name"].take(places), "passed": judged["output_passed"].cast(pa.int8())}
    )
    return len(found.group_by("scenario_name").aggregate([("passed", "mean")]))


def wide(month: str, path: Path) -> int:
    """``etl.read_calls`` with a column for each eval, of a month or of everything."""
    import etl  # noqa: PLC0415

    since, until = (f"{month}-01", f"{month}-28") if month else (None, None)
    return len(etl.read_calls(path, evals="wide", since=since, until=until))


def wide_in_pandas(month: str, path: Path) -> int:
    """The same as far as pandas alone gives it: all calls, and the verdicts of their evals beside them."""
    import pandas as pd  # noqa: PLC0415

    def read(name: str, columns: list[str] | None = None) -> pd.DataFrame:
        filters = [("month", "=", month)] if month else None
        return pd.read_parquet(table_at(path, name), columns=columns, filters=filters, dtype_backend="pyarrow")

    outputs = ["output_passed", "output_score", "output_text"]
    evals = read("evals", ["call_execution_id", "eval_name", *outputs])
    verdicts = evals.pivot(index="call_execution_id", columns="eval_name", values=outputs)
    verdicts.columns = pd.Index(["_".join(each) for each in verdicts.columns])
    return len(read("calls").merge(verdicts, left_on="call_execution_id", right_index=True, how="left"))


ANSWERS: dict[str, Callable[[str, Path], int]] = {
    "duckdb": in_duckdb,
    "polars": in_polars,
    "pandas": in_pandas,
    "pyarrow": in_pyarrow,
    "etl": wide,
    "wide in pandas": wide_in_pandas,
}
IMPORTS = {"duckdb": ["duckdb"], "polars": ["polars"], "pandas": ["pandas", "pyarrow.parquet", "pyarrow.dataset"]}
IMPORTS |= {"pyarrow": ["pyarrow.dataset", "pyarrow.compute"], "etl": ["etl.inspect.joined_calls"]}
IMPORTS |= {"wide in pandas": IMPORTS["pandas"]}


def main(engine: str, query: str, path: Path) -> None:
    """Answer one question, and say what that took."""
    for name in IMPORTS[engine]:
        __import__(name)
    begun, begun_cpu = time.monotonic(), time.process_time()
    rows: Any = ANSWERS[engine](query, path)
    taken = {"seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - begun_cpu}
    print(json.dumps({**taken, "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
