"""The rows that are made of payloads."""

import json

from etl.model import schema
from etl.transform.frames import to_arrow
from tests.bundles import EXPORT, bundle_of, calls_frame, evals_frame, execution, fetched_call, frame_of_executions


def frame_rows(frame, table):
    return to_arrow(frame.data, table).to_pylist()


def row_of_call(metrics=None, listed=None):
    return frame_rows(calls_frame([bundle_of(fetched_call("call", metrics, listed))], EXPORT), schema.CALLS)[0]


def extra_of_call(metrics=None, listed=None):
    extra = row_of_call(metrics, listed)["extra"]
    return None if extra is None else json.loads(extra)


def misfits_of_call(metrics):
    return calls_frame([bundle_of(fetched_call("call", metrics))], EXPORT).misfits


def rows_of_evals(outputs):
    return frame_rows(
        evals_frame([bundle_of(fetched_call("call", {}, {"eval_outputs": outputs}))], EXPORT), schema.EVALS
    )


def row_of_eval(output):
    return rows_of_evals({"config": output})[0]


def row_of_execution(**payload):
    return frame_rows(frame_of_executions(execution(**payload)), schema.EXECUTIONS)[0]
