"""Run in Dagster's environment: what a run of the job does with each case. Prints JSON: case → [outcome, message]."""

import importlib.util
import json
import sys
from pathlib import Path

import dagster as dg

snippet, cases = sys.argv[1], [Path(each) for each in sys.argv[2:]]
spec = importlib.util.spec_from_file_location("dagster_job", snippet)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


def outcome(config: Path) -> tuple[str, str]:
    module.CONFIG = str(config)
    result = module.defs.resolve_job_def("export_simulation_metrics").execute_in_process(raise_on_error=False)
    if retries := [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]:
        return "tried again", f"{len(retries)} times"
    if not result.success:
        failure = next(event for event in result.all_events if event.is_step_failure)
        return "failed", str(failure.step_failure_data.user_failure_data.description)
    materialized = result.asset_materializations_for_node("simulation_metrics")
    return ("done", "") if materialized else ("skipped", "")


assert isinstance(module.defs, dg.Definitions)
print(json.dumps({config.stem: outcome(config) for config in cases}))
