"""A simulated API, for the demo, the tests, the benchmarks, and users' own pipelines.

A ``Sandbox`` serves a ``World`` over HTTP, as the real server would: with its formulas, its roundings and its quirks.
It imports nothing from the exporter, so that the two cannot share a mistake.
"""

from etl.sandbox.dispatch import SandboxRequest
from etl.sandbox.generate import add_execution, finish_execution, latest_friday, make_world, new_run_test, settled_world
from etl.sandbox.server import API_KEY, SECRET_KEY, Fault, Sandbox, random_faults
from etl.sandbox.world import (
    Profile,
    SimulatedCall,
    SimulatedExecution,
    SimulatedRunTest,
    World,
    add_run_test,
    listable_calls,
    listable_executions,
    rerun_execution,
    touch_call,
)

__all__ = [
    "API_KEY",
    "SECRET_KEY",
    "Fault",
    "Profile",
    "Sandbox",
    "SandboxRequest",
    "SimulatedCall",
    "SimulatedExecution",
    "SimulatedRunTest",
    "World",
    "add_execution",
    "add_run_test",
    "finish_execution",
    "latest_friday",
    "listable_calls",
    "listable_executions",
    "make_world",
    "new_run_test",
    "random_faults",
    "rerun_execution",
    "settled_world",
    "touch_call",
]
