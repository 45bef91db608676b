"""A general tool: dlt's rest_api source and filesystem destination in Parquet, parallel as its documentation shows.

``dlt_rest_api.py BASE_URL RUN_TEST FOLDER``; prints the number of calls that were loaded.
"""

import os
import sys
import tempfile
from pathlib import Path

WORKERS = {
    "EXTRACT__WORKERS": "50",
    "EXTRACT__MAX_PARALLEL_ITEMS": "100",
    "NORMALIZE__WORKERS": "2",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "100000",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}
METRICS, RUNS = "/sdk/api/v1/simulation/metrics/", "/sdk/api/v1/simulation/runs/"


def main(base_url: str, run_test: str, folder: str) -> None:
    """Load executions and calls, each call's metrics by a request of its own."""
    os.environ.update(WORKERS)
    import dlt  # noqa: PLC0415 it reads the environment
    from dlt.destinations import filesystem  # noqa: PLC0415
    from dlt.sources.rest_api import rest_api_source  # noqa: PLC0415

    def paginator(results: str) -> dict[str, object]:
        return {"type": "page_number", "base_page": 1, "total_path": f"{results}.total_pages"}

    source = rest_api_source(
        {
            "client": {"base_url": base_url, "headers": {"X-Api-Key": "load", "X-Secret-Key": "load"}},
            "resources": [
                {
                    "name": "executions",
                    "endpoint": {
                        "path": METRICS,
                        "params": {"run_test_name": run_test, "limit": 16384},
                        "data_selector": "result.results",
                        "paginator": paginator("result"),
                    },
                },
                {
                    "name": "listed_calls",
                    "endpoint": {
                        "path": RUNS,
                        "params": {"execution_id": "{resources.executions.execution_id}", "limit": 1024},
                        "data_selector": "result.call_results.results",
                        "paginator": paginator("result.call_results"),
                    },
                    "parallelized": True,
                },
                {
                    "name": "calls",
                    "endpoint": {
                        "path": METRICS,
                        "params": {"call_execution_id": "{resources.listed_calls.call_execution_id}"},
                        "data_selector": "result",
                        "paginator": "single_page",
                    },
                    "parallelized": True,
                },
            ],
        },
        parallelized=True,
    )
    with tempfile.TemporaryDirectory() as state:
        pipeline = dlt.pipeline(
            "baseline",
            pipelines_dir=state,
            destination=filesystem(Path(folder).absolute().as_uri()),
            dataset_name="calls",
        )
        pipeline.run(source, loader_file_format="parquet")
        print(pipeline.last_trace.last_normalize_info.row_counts["calls"])


if __name__ == "__main__":
    main(*sys.argv[1:])
