"""The rows that are made of payloads."""

from tests.bundles import EXPORT, bundle_of, calls_frame, evals_frame, execution, fetched_call, frame_of_executions


def row_of_call(metrics=None, listed=None):
    return calls_frame([bundle_of(fetched_call("call", metrics, listed))], EXPORT).rows.to_pylist()[0]


def misfits_of_call(metrics):
    return calls_frame([bundle_of(fetched_call("call", metrics))], EXPORT).misfits


def rows_of_evals(outputs):
    bundle = bundle_of(fetched_call("call", {}, {"eval_outputs": outputs}))
    return evals_frame([bundle], EXPORT).rows.to_pylist()


def row_of_eval(output):
    return rows_of_evals({"config": output})[0]


def row_of_execution(**payload):
    return frame_of_executions(execution(**payload)).rows.to_pylist()[0]
