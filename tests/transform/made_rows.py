"""The rows that are made of payloads."""

import json

from etl.model import schema
from etl.model.lifecycle import HeldRows
from etl.transform.frames import to_arrow
from tests.bundles import (
    EXPORT,
    bundle_of,
    calls_frame,
    evals_frame,
    execution,
    executions_frame,
    fetched_call,
)


def rows_of(frame, table):
    return to_arrow(frame.data, table).to_pylist()


def call_row(metrics=None, listed=None):
    return rows_of(calls_frame([bundle_of(fetched_call("call", metrics, listed))], EXPORT), schema.CALLS)[0]


def call_extra(metrics=None, listed=None):
    extra = call_row(metrics, listed)["extra"]
    return None if extra is None else json.loads(extra)


def call_misfits(metrics):
    return calls_frame([bundle_of(fetched_call("call", metrics))], EXPORT).misfits


def eval_rows(outputs):
    return rows_of(evals_frame([bundle_of(fetched_call("call", {}, {"eval_outputs": outputs}))], EXPORT), schema.EVALS)


def eval_row(output):
    return eval_rows({"config": output})[0]


def executions_of(*executions, export=EXPORT):
    ids = [listed.execution_id for listed in executions]
    held = dict.fromkeys(ids, HeldRows(listed_calls=2, exported_calls=1, calls_digest="digest"))
    return executions_frame(
        [bundle_of(of=listed) for listed in executions],
        held,
        dict.fromkeys(ids, "exported"),
        dict.fromkeys(ids, EXPORT.exported_at),
        export,
    )


def execution_row(**payload):
    return rows_of(executions_of(execution(**payload)), schema.EXECUTIONS)[0]
