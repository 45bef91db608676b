"""What a first script looks like: requests, one call after the other, json_normalize, one Parquet file.

``sequential.py BASE_URL RUN_TEST FOLDER``; prints the number of calls.
"""

import sys
from pathlib import Path

import pandas as pd
import requests

METRICS, RUNS = "/sdk/api/v1/simulation/metrics/", "/sdk/api/v1/simulation/runs/"


def main(base_url: str, run_test: str, folder: str) -> None:
    """Fetch every call of every execution once."""
    with requests.Session() as session:
        session.headers.update({"X-Api-Key": "load", "X-Secret-Key": "load"})

        def get(path: str, **query: str | int) -> dict:
            answer = session.get(base_url + path, params=query, timeout=60)
            answer.raise_for_status()
            return answer.json()["result"]

        calls = []
        for execution in get(METRICS, run_test_name=run_test, page=1, limit=16384)["results"]:
            listed = get(RUNS, execution_id=execution["execution_id"], page=1, limit=1024)
            ids = (call["call_execution_id"] for call in listed["call_results"]["results"])
            calls.extend(get(METRICS, call_execution_id=each) for each in ids)
    Path(folder).mkdir(parents=True)
    pd.json_normalize(calls).to_parquet(Path(folder) / "calls.parquet")
    print(len(calls))


if __name__ == "__main__":
    main(*sys.argv[1:])
