"""Other forms in which the API could give its values: which answers they concern, and how they change these."""

from collections.abc import Callable
from typing import Any

import msgspec

from etl.model.records import DETAIL, METRICS, RUNS, VOICE_CALLS
from etl.model.values import value_at
from etl.sandbox import Fault, SandboxRequest
from etl.sandbox.dispatch import HTML_404

Edit = Callable[[Any], object]
"""Changes an answer, without its envelope."""
Concerns = Callable[[SandboxRequest], bool]


def formed(body: bytes, *edits: Edit) -> bytes:
    """The answer in another form; one that is no object, or tells of an error, stays as it is."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    if isinstance(document, dict) and document.get("status") is not False:
        for edit in edits:
            edit(document.get("result", document))
    return msgspec.json.encode(document)


def of_call(request: SandboxRequest) -> bool:
    return request.path == METRICS and "call_execution_id" in request.query


def of_most_calls(request: SandboxRequest) -> bool:
    return of_call(request) and request.query["call_execution_id"][-1] in "0123456789a"


def of_calls(request: SandboxRequest) -> bool:
    return (request.path == RUNS and "execution_id" in request.query) or request.path == VOICE_CALLS


def of_detail(request: SandboxRequest) -> bool:
    return request.path.startswith(DETAIL)


def of_run_test(request: SandboxRequest) -> bool:
    return "run_test_name" in request.query


def moves(block: str, old: str, new: str) -> Edit:
    return lambda call: renames(old, new)(call[block])


def in_rows(edit: Edit) -> Edit:
    """For each row of a list."""

    def edit_all(listed: Any) -> None:
        for row in (listed.get("call_results") or listed).get("results", ()):
            edit(row)

    return edit_all


def in_evals(edit: Edit) -> Edit:
    def edit_all(call: Any) -> None:
        for output in (call["eval_outputs"] or {}).values():
            edit(output)

    return in_rows(edit_all)


def renames(old: str, new: str) -> Edit:
    def edit(fields: Any) -> None:
        if old in fields:
            fields[new] = fields.pop(old)

    return edit


def sets(**values: Any) -> Edit:
    return lambda fields: fields.update(values)


def flatten_call(call: Any) -> None:
    for name in ("latency", "conversation"):
        call |= call.pop(name)


def write_seconds(call: Any) -> None:
    if call["latency"]["response_time_ms"] is not None:
        call["latency"]["response_time_ms"] /= 1000


def write_dollars(call: Any) -> None:
    if call["cost"]["total_cost_cents"] is not None:
        call["cost"]["total_cost_cents"] = "$0.12"


def write_times_without_z(execution: Any) -> None:
    for name in ("started_at", "completed_at"):
        execution[name] = execution[name] and execution[name].removesuffix("Z")


def shout(output: Any) -> None:
    if output.get("output_type") == "Pass/Fail" and output.get("output"):
        output["output"] = output["output"].upper()


STT = moves("cost", "stt_cost_cents", "stt_cents")
"""The detail does not have this cost."""


OF_SOME_CALLS = "most of a cost"
LOST: dict[str, tuple[Concerns, Edit, str]] = {
    "a cost": (of_call, STT, "calls.cost_stt_cost_cents is null (extra has cost.stt_cents)"),
    OF_SOME_CALLS: (of_most_calls, STT, "calls.cost_stt_cost_cents is null (extra has cost.stt_cents)"),
    "a unit": (of_call, write_seconds, "calls.latency_response_time_ms differs from the executions' details"),
    "evals": (of_calls, in_evals(renames("output", "result")), "evals.output_passed is null (extra has result)"),
    "a verdict": (of_calls, in_evals(shout), "evals.output_passed is null (output_text says neither"),
    "a score": (of_detail, in_rows(renames("overall_score", "csat")), "calls.overall_score is null (no detail names"),
    "times": (of_run_test, in_rows(write_times_without_z), "executions.started_at is null (extra has started_at)"),
    "a start": (
        of_run_test,
        in_rows(renames("started_at", "began")),
        "executions.started_at is null (extra has began)",
    ),
    "an object": (
        of_call,
        lambda call: call["cost"].update(llm_cost_cents={"amount": call["cost"]["llm_cost_cents"]}),
        "calls.cost_llm_cost_cents is null (extra has cost.llm_cost_cents.amount)",
    ),
    "an object for a score": (
        of_detail,
        in_rows(lambda call: call.update(overall_score={"value": call["overall_score"]})),
        "calls.overall_score is null (extra has detail.overall_score.value)",
    ),
    "a start elsewhere": (
        of_run_test,
        in_rows(lambda row: row.update(times={"started_at": row.pop("started_at")})),
        "executions.started_at is null (extra has times.started_at)",
    ),
    "averages": (
        of_run_test,
        in_rows(renames("metrics", "means")),
        "executions.calls_completed is null (extra has means.calls.completed)",
    ),
    "an average": (
        of_run_test,
        in_rows(lambda row: renames("p50", "median")(value_at(row, ("metrics", "latency", "percentiles")) or {})),
        "executions.latency_percentiles_p50 is null (extra has metrics.latency.percentiles.median)",
    ),
}
"""Forms in which values do not arrive in their columns, with what a finding says of them."""

FILLED: dict[str, tuple[Concerns, Edit]] = {
    "a block": (of_call, renames("latency", "latencies")),
    "all blocks": (of_call, flatten_call),
    "a null": (of_call, lambda call: call["cost"].update(total_cost_cents=None)),
    "a field": (of_call, moves("conversation", "user_wpm", "words_per_minute")),
    "a text": (of_call, write_dollars),
    "a scenario": (of_calls, in_rows(renames("scenario_name", "scenario_title"))),
}
"""Forms of which the execution's detail has the values, too."""


def lie(call: Any) -> None:
    """One cell of it is wrong: of each call, since any may be the one that is fetched.

    Not one that is null: a null of the call's own metrics replaces nothing that lists show.
    """
    call["stt_cost_cents"] = call["stt_cost_cents"] and 4_711


VOICE_LISTS = {
    "absent": Fault(status=404, body=HTML_404),
    "unknown": Fault(status=404, body=b'{"status": false, "message": "Not found."}'),
    "not allowed": Fault(status=405, body=b'{"status": false, "message": "Method not allowed."}'),
    "refused": Fault(status=403, body=b'{"status": false, "message": "Forbidden"}'),
    "faulty": Fault(status=500, body=b'{"status": false, "message": "Failed."}'),
    "HTML": Fault(body=b"<html>Welcome</html>"),
    "cut": Fault(cut_after_bytes=90),
    "half": Fault(edit=lambda body: formed(body, lambda page: page.update(results=page["results"][::2], count=3))),
    "of another version": Fault(edit=lambda body: formed(body, in_rows(renames("stt_cost_cents", "stt_cents")))),
    "a lie": Fault(edit=lambda body: formed(body, in_rows(lie))),
}
"""What may be wrong with the list of voice calls."""
