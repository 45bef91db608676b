"""Run in Prefect's environment: how the flow ends in each case. Prints JSON: case → [outcome, message]."""

import importlib.util
import json
import sys
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.testing.utilities import prefect_test_harness

snippet, cases = sys.argv[1], [Path(each) for each in sys.argv[2:]]
spec = importlib.util.spec_from_file_location("prefect_flow", snippet)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["prefect_flow"] = module
spec.loader.exec_module(module)


def outcome(config: Path) -> tuple[str, str]:
    state = module.simulation_metrics(str(config), return_state=True)
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        tries = max(run.run_count for run in client.read_task_runs(flow_run_filter=wanted))
    if state.is_failed():
        return ("tried again", f"{tries - 1} times") if tries > 1 else ("failed", str(state.message))
    return ("skipped" if state.name == "Skipped" else "done"), str(state.message)


with prefect_test_harness(server_startup_timeout=120):
    print(json.dumps({config.stem: outcome(config) for config in cases}))
