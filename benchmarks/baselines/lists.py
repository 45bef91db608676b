"""The floor of a sweep: fetch the details and the lists of voice calls of executions, decode them, and drop them.

It imports nothing of the exporter, so that its start costs little; ``benchmarks/sweep.py`` runs it in a process that
does, as its nights do.

``python -m benchmarks.baselines.lists URL IDS``, these as JSON; prints how many requests it sent.
"""

import asyncio
import json
import sys

import aiohttp
import msgspec

CONCURRENCY = 8


async def main(base_url: str, ids: str) -> None:
    """Fetch both lists of each execution once."""
    requests = 0
    pending = iter(json.loads(ids))
    async with aiohttp.ClientSession(base_url, headers={"X-Api-Key": "key", "X-Secret-Key": "secret"}) as session:

        async def work() -> None:
            nonlocal requests
            for key in pending:
                for target in (
                    f"/simulate/test-executions/{key}/?page=1&limit=100",
                    f"/simulate/api/call-executions/?test_execution_id={key}&page=1&limit=100",
                ):
                    async with session.get(target) as answer:
                        msgspec.json.decode(await answer.read())
                        requests += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(work())
    print(requests)


if __name__ == "__main__":
    bytes(1 << 20)  # as in bare.py
    asyncio.run(main(*sys.argv[1:]))
