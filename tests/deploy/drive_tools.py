"""Run in the environment of a tool: what its snippet does with each case. Prints JSON: case → [outcome, message]."""

import importlib.util
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

tool, snippet, *cases = sys.argv[1:]


def in_airflow(module: ModuleType, config: Path) -> tuple[str, str]:
    """What the task of the DAG does."""
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

    assert module.simulation_metrics().task_dict["export"].retries == 4
    try:
        summary = module.run_export([*module.COMMAND[:-1], str(config)], module.KEYS)
    except AirflowSkipException as error:
        return "skipped", str(error)
    except AirflowFailException as error:
        return "failed", str(error)
    except RuntimeError as error:
        return "tried again", str(error)
    return "done", summary["outcome"]


def in_dagster(module: ModuleType, config: Path) -> tuple[str, str]:
    """What a run of the job does."""
    module.CONFIG = str(config)
    result = module.defs.resolve_job_def("export_simulation_metrics").execute_in_process(raise_on_error=False)
    if retries := [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]:
        return "tried again", f"{len(retries)} times"
    if not result.success:
        failure = next(event for event in result.all_events if event.is_step_failure)
        return "failed", str(failure.step_failure_data.user_failure_data.description)
    return ("done" if result.asset_materializations_for_node("simulation_metrics") else "skipped"), ""


def in_prefect(module: ModuleType, config: Path) -> tuple[str, str]:
    """How the flow ends."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    state = module.simulation_metrics(str(config), return_state=True)
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        tries = max(run.run_count for run in client.read_task_runs(flow_run_filter=wanted))
    if state.is_failed():
        return ("tried again", f"{tries - 1} times") if tries > 1 else ("failed", str(state.message))
    return ("skipped" if state.name == "Skipped" else "done"), str(state.message)


spec = importlib.util.spec_from_file_location("snippet", snippet)
assert spec is not None
assert spec.loader is not None
module = sys.modules["snippet"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
harness = nullcontext()
if tool == "prefect":
    from prefect.testing.utilities import prefect_test_harness

    harness = prefect_test_harness(server_startup_timeout=120)
with harness:
    outcome = {"airflow": in_airflow, "dagster": in_dagster, "prefect": in_prefect}[tool]
    print(json.dumps({Path(config).stem: outcome(module, Path(config)) for config in cases}))
