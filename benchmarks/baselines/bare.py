"""The floor: fetch the same bodies with aiohttp, fifty at a time, and drop them.

No retry, no limit, no decoding, no file.
"""

import asyncio
import json
import sys

import aiohttp

METRICS, RUNS = "/sdk/api/v1/simulation/metrics/", "/sdk/api/v1/simulation/runs/"
CONCURRENCY = 50


async def main(base_url: str, run_test: str) -> None:
    """Fetch every call of every execution once."""
    async with aiohttp.ClientSession(
        headers={"X-Api-Key": "load", "X-Secret-Key": "load"}, connector=aiohttp.TCPConnector(limit=CONCURRENCY)
    ) as session:

        async def get(target: str) -> bytes:
            async with session.get(base_url + target) as response:
                return await response.read()

        page = json.loads(await get(f"{METRICS}?run_test_name={run_test}&page=1&limit=16384"))
        calls = 0
        executions = iter([row["execution_id"] for row in page["result"]["results"]])

        async def work() -> None:
            nonlocal calls
            for execution in executions:
                listed = json.loads(await get(f"{RUNS}?execution_id={execution}&page=1&limit=1024"))
                for call in listed["result"]["call_results"]["results"]:
                    await get(f"{METRICS}?call_execution_id={call['call_execution_id']}")
                    calls += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(work())
        print(calls)


if __name__ == "__main__":
    # After one large piece of memory is freed, the C library keeps such pieces. Else it is chance whether each buffer
    # of 256 KB into which asyncio receives an answer comes from the system: a fifth of what this loop costs.
    bytes(1 << 20)
    asyncio.run(main(*sys.argv[1:]))
