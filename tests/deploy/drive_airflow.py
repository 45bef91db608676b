"""Run in Airflow's environment: what the task of the DAG does with each case. Prints JSON: case → [outcome, message]."""

import json
import runpy
import sys
from pathlib import Path

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

snippet, cases = sys.argv[1], [Path(each) for each in sys.argv[2:]]
module = runpy.run_path(snippet)
dag = module["simulation_metrics"]()
assert dag.task_dict["export"].retries == 4


def outcome(config: Path) -> tuple[str, str]:
    command = [*module["COMMAND"][:-1], str(config)]
    try:
        summary = module["run_export"](command, module["KEYS"])
    except AirflowSkipException as error:
        return "skipped", str(error)
    except AirflowFailException as error:
        return "failed", str(error)
    except RuntimeError as error:
        return "tried again", str(error)
    return "done", summary["outcome"]


print(json.dumps({config.stem: outcome(config) for config in cases}))
