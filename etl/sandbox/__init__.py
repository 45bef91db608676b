"""A simulated API, for the demo, the tests, the benchmarks, and users' own pipelines."""

from etl.sandbox.faults import Fault, SandboxRequest, random_faults
from etl.sandbox.generate import (
    add_execution,
    add_late_data,
    finish_execution,
    make_world,
    new_run_test,
    start_execution,
)
from etl.sandbox.server import Sandbox
from etl.sandbox.world import (
    Call,
    EvalConfig,
    Execution,
    Profile,
    RunTest,
    Scenario,
    World,
    add_run_test,
    attach_execution,
    delete_call,
    delete_execution,
    listable_calls,
    listable_executions,
    rename_run_test,
    rerun_execution,
    touch_call,
)

__all__ = [
    "Call",
    "EvalConfig",
    "Execution",
    "Fault",
    "Profile",
    "RunTest",
    "Sandbox",
    "SandboxRequest",
    "Scenario",
    "World",
    "add_execution",
    "add_late_data",
    "add_run_test",
    "attach_execution",
    "delete_call",
    "delete_execution",
    "finish_execution",
    "listable_calls",
    "listable_executions",
    "make_world",
    "new_run_test",
    "random_faults",
    "rename_run_test",
    "rerun_execution",
    "start_execution",
    "touch_call",
]
