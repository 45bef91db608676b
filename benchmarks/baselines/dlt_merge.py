"""The rows of a dataset merged into a warehouse by dlt: ``DATASET URL FOLDER [EXECUTION_ID …]``."""

import os
import sys

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
import dlt

from benchmarks.baselines.plain_load import TABLES, rows_of

KEYS = {
    "calls": ["call_execution_id"],
    "evals": ["call_execution_id", "eval_config_id"],
    "executions": ["execution_id"],
}

if __name__ == "__main__":
    _, source, url, folder, *ids = sys.argv
    destination = (
        dlt.destinations.postgres(url.replace("@", ":none@", 1))  # it insists on a password
        if url.startswith("postgresql")
        else dlt.destinations.duckdb(url.removeprefix("duckdb://"))
    )
    pipeline = dlt.pipeline("metrics", destination=destination, dataset_name="dlt_metrics", pipelines_dir=folder)
    pipeline.run(
        [
            dlt.resource(
                rows_of(source, table, ids),
                name=table,
                write_disposition="merge",
                primary_key=KEYS[table],
                merge_key="execution_id",
            )
            for table in TABLES
        ]
    )
