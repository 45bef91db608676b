"""The rows that are made of payloads."""

import json

from etl.model import schema
from etl.transform.frames import to_arrow
from tests.bundles import (
    EXPORT,
    bundle_of,
    calls_frame,
    evals_frame,
    execution,
    fetched_call,
    frame_of_executions,
)


def frame_rows(frame, table):
    return to_arrow(frame.data, table).to_pylist()


def call_row(metrics=None, listed=None):
    return frame_rows(calls_frame([bundle_of(fetched_call("call", metrics, listed))], EXPORT), schema.CALLS)[0]


def call_extra(metrics=None, listed=None):
    extra = call_row(metrics, listed)["extra"]
    return None if extra is None else json.loads(extra)


def call_misfits(metrics):
    return calls_frame([bundle_of(fetched_call("call", metrics))], EXPORT).misfits


def eval_rows(outputs):
    return frame_rows(
        evals_frame([bundle_of(fetched_call("call", {}, {"eval_outputs": outputs}))], EXPORT), schema.EVALS
    )


def eval_row(output):
    return eval_rows({"config": output})[0]


def executions_of(*executions, export=EXPORT):
    return frame_of_executions(executions, export)


def execution_row(**payload):
    return frame_rows(executions_of(execution(**payload)), schema.EXECUTIONS)[0]
