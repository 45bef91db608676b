"""Requests to the sandbox by a client that holds the keys."""

KEYS = {"X-Api-Key": "sandbox-key", "X-Secret-Key": "sandbox-secret"}
METRICS = "/sdk/api/v1/simulation/metrics/"
RUN_TESTS = "/simulate/run-tests/"


async def get(session, sandbox, path, **params):
    async with session.get(f"{sandbox.base_url}{path}", params=params) as response:
        return response.status, await response.json()
