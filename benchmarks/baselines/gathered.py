"""What the second script looks like: aiohttp, gather over all calls at once, json_normalize, one Parquet file.

``gathered.py BASE_URL RUN_TEST FOLDER``; prints the number of calls.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pandas as pd

METRICS, RUNS = "/sdk/api/v1/simulation/metrics/", "/sdk/api/v1/simulation/runs/"
CONCURRENCY = 50


async def fetch(base_url: str, run_test: str) -> list[dict]:
    """Fetch every call of every execution once."""
    async with aiohttp.ClientSession(
        headers={"X-Api-Key": "load", "X-Secret-Key": "load"}, connector=aiohttp.TCPConnector(limit=CONCURRENCY)
    ) as session:

        async def get(path: str, **query: str | int) -> dict:
            async with session.get(base_url + path, params=query) as answer:
                answer.raise_for_status()
                return (await answer.json())["result"]

        executions = (await get(METRICS, run_test_name=run_test, page=1, limit=16384))["results"]
        pages = await asyncio.gather(
            *(get(RUNS, execution_id=each["execution_id"], page=1, limit=1024) for each in executions)
        )
        ids = [call["call_execution_id"] for page in pages for call in page["call_results"]["results"]]
        return await asyncio.gather(*(get(METRICS, call_execution_id=each) for each in ids))


def main(base_url: str, run_test: str, folder: str) -> None:
    """Write all of it."""
    calls = asyncio.run(fetch(base_url, run_test))
    Path(folder).mkdir(parents=True)
    pd.json_normalize(calls).to_parquet(Path(folder) / "calls.parquet")
    print(len(calls))


if __name__ == "__main__":
    main(*sys.argv[1:])
