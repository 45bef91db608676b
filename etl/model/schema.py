"""Every table and column: name, Arrow type, unit, meaning, source path, null rule. The one place that declares them.

A type is never inferred from data: a column that is all null today, or has only whole numbers, would change its type
tomorrow.
"""

import pyarrow as pa

from etl.model.columns import BOOL, DATE, DAY, FLOAT, GIVEN, INT, NEVER, STRING, TIMESTAMP, Column, Table, field, shown
from etl.model.records import DETAIL, METRICS, RUNS

__all__ = ["CALLS", "ERRORS", "EVALS", "EXECUTIONS", "OF_CALLS", "OF_EXECUTIONS", "RUNS_TABLE", "TABLES"]
__all__ += ["BOOL", "DATE", "DAY", "FLOAT", "GIVEN", "INT", "NEVER", "STRING", "TIMESTAMP", "Column", "Table"]

_PARTITIONS = (
    Column("run_test", STRING, "Key of the run test, which names its folder."),
    Column("month", STRING, "UTC month (2026-11) in which the execution began or, if that is unknown, was first seen."),
)
_RUN_TEST_NAME = Column("run_test_name", STRING, "Name of the run test, as configured when the row was exported.")
_EXECUTION_STARTED_AT = Column("execution_started_at", TIMESTAMP, "When the row's execution was created.", null=GIVEN)
_EXTRA = Column(
    "extra",
    STRING,
    "Payload fields that have no column, and values that do not fit their column exactly, with the nesting and every "
    "digit as the API sent them. NaN, which is not JSON, and numbers that JSON parsers reject (1e400, thousands of "
    "digits) are kept as strings.",
    null="null when there are none",
    is_json=True,
)
_RAW = Column("raw", STRING, "The payload as received.", null="null unless [export] include_raw is on", is_json=True)
_DELETED_AT = Column(
    "deleted_at",
    TIMESTAMP,
    "When a run found that the source no longer has this row, or when the row was forgotten. The row is kept. The time "
    "is cleared if the source has the row again.",
    null="null while the source has it",
)
_EXPORT = (
    Column("export_run_id", STRING, "The export run that wrote this version of the row, as in runs.export_run_id."),
    Column("exported_at", TIMESTAMP, "When this version of the row was exported."),
)

_KEPT = "An unknown status is kept as it is."
_NOT_LISTED = "null when the API gave none, when the call is a chat, or when no list of voice calls with it was read"
_VOICE = {
    "bot_wpm": (FLOAT, "Speaking rate of the agent", "words/min"),
    "user_wpm": (FLOAT, "Speaking rate of the simulated user", "words/min"),
    "talk_ratio": (FLOAT, "Ratio of the agent's to the user's talking time", "ratio"),
    "ai_interruption_rate": (FLOAT, "Interruptions by the agent per minute", "1/min"),
    "ai_interruption_count": (INT, "Interruptions by the agent", "interruptions"),
    "user_interruption_rate": (FLOAT, "Interruptions by the user per minute", "1/min"),
    "user_interruption_count": (INT, "Interruptions by the user", "interruptions"),
}
"""Metrics that the API gives twice for a voice call: as it measured them, and as the voice provider reported them.

By name: type, meaning without its full stop, unit.
"""
NOT_IN_LISTS = (
    "cost_stt_cost_cents",
    "cost_llm_cost_cents",
    "cost_tts_cost_cents",
    "chat_metrics_message_count",
    "chat_metrics_turn_count",
)
"""Columns of ``calls`` that neither the list of an execution's calls nor its detail has."""
OF_VOICE_LIST = ("completed_at", "agent_version")
"""Columns of ``calls`` that only the list of voice calls has; a server may lack them."""


def _measured(name: str) -> Column:
    """A metric of ``_VOICE`` as the API measured it."""
    type_, meaning, unit = _VOICE[name]
    return field(f"conversation.{name}", type_, f"{meaning}.", unit)


def _reported(name: str, type_: pa.DataType, meaning: str, unit: str) -> Column:
    """A metric of a voice call as the voice provider reported it; the API gives it under one of two paths."""
    return Column(
        # Not the whole path: one of these has 68 characters, and PostgreSQL cuts a name at 63.
        f"latency_customer_{name}",
        type_,
        f"{meaning}, as the voice provider reported it.",
        unit,
        f"latency.customer_latency_metrics.{name}|latency.system_metrics.{name}",
    )


def _mean(path: str, meaning: str, unit: str) -> Column:
    """A mean over an execution's calls, for which the API writes 0.0 where it should write null."""
    return field(f"metrics.{path}", FLOAT, f"Mean {meaning}. Also 0.0 when no call had data.", unit)


def _percentile(name: str, meaning: str) -> Column:
    """A percentile of the agent latency of an execution's calls."""
    return field(f"metrics.latency.percentiles.{name}", FLOAT, meaning, "ms", "null when no call had data")


_TOLD = {
    "run_test_id": "Identifies the run test at the source.",
    "agent_name": "Name of the tested agent. This and the next 4 columns stay as first seen after the execution ended.",
    "agent_version": "Name of the agent's version. If the execution has none, the API gives the newest.",
    "error_reason": "Why the execution failed, in one line, cut after 200 characters.",
    "judged_by": "What judged its calls: the name, template, model and mapping of each eval, by eval_config_id.",
    "judged_by_fingerprint": "BLAKE2b-128 hash of judged_by.",
}
_NOT_TOLD = "null when unknown; requested again when the run test has new executions"
DESCRIBED = tuple(
    Column(name, STRING, meaning, null=_NOT_TOLD, is_json=name == "judged_by") for name, meaning in _TOLD.items()
)
"""Columns of ``executions`` that only the lists of run tests and of a run test's executions fill."""

EXECUTIONS = Table(
    "executions",
    "execution, as listed",
    f"{METRICS}?run_test_name=",
    (
        Column("execution_id", STRING, "Identifies the execution.", source="execution_id", is_key=True),
        _RUN_TEST_NAME,
        field("status", STRING, f"pending, running, completed, failed, cancelled, cancelling or evaluating. {_KEPT}"),
        field("started_at", TIMESTAMP, "When the execution was created."),
        field("completed_at", TIMESTAMP, "When the execution ended.", null="null while it runs"),
        field("total_calls", INT, "The API's own count of calls, which may differ from its list.", "calls"),
        field("completed_calls", INT, "The API's own count of completed calls.", "calls"),
        field("failed_calls", INT, "The API's own count of failed calls.", "calls"),
        _mean("latency.avg_agent_latency_ms", "agent latency over the calls", "ms"),
        _mean("latency.avg_response_time_ms", "response time over the calls", "ms"),
        _percentile("p50", "Median agent latency of the calls."),
        _percentile("p95", "95th percentile of the calls' agent latency."),
        _percentile("p99", "99th percentile of the calls' agent latency."),
        field("metrics.cost.total_duration_seconds", FLOAT, "Sum of the calls' durations.", "s"),
        _mean("conversation.avg_user_wpm", "speaking rate of the simulated user", "words/min"),
        _mean("conversation.avg_bot_wpm", "speaking rate of the agent", "words/min"),
        _mean("conversation.avg_talk_ratio", "ratio of the agent's to the user's talking time", "ratio"),
        _mean("conversation.avg_user_interruption_rate", "interruptions by the user per minute", "1/min"),
        _mean("conversation.avg_ai_interruption_rate", "interruptions by the agent per minute", "1/min"),
        _mean("conversation.avg_stop_time_after_interruption_ms", "time until the agent stops when interrupted", "ms"),
        _mean("chat.avg_total_tokens", "tokens per chat call", "tokens"),
        _mean("chat.avg_input_tokens", "input tokens per chat call", "tokens"),
        _mean("chat.avg_output_tokens", "output tokens per chat call", "tokens"),
        _mean("chat.avg_chat_latency_ms", "latency of chat answers", "ms"),
        _mean("chat.avg_turn_count", "turns per chat call", "turns"),
        _mean("chat.avg_csat_score", "customer satisfaction score (seen so far: 1 to 10)", "score"),
        field("metrics.calls.total", INT, "Current number of calls, deleted ones included.", "calls"),
        field("metrics.calls.completed", INT, "Current number of completed calls.", "calls"),
        field("metrics.calls.failed", INT, "Current number of failed calls.", "calls"),
        field("metrics.calls.pending", INT, "Current number of pending calls.", "calls"),
        *DESCRIBED,
        _EXTRA,
        _RAW,
        Column("listed_calls", INT, "Number of calls that the API listed.", "calls", null="null until listed"),
        Column("exported_calls", INT, "Number of the execution's calls that have no deleted_at.", "calls"),
        Column(
            "export_state",
            STRING,
            "exported: whole and final. settling: whole, but checked again until it is final. listed: stored from "
            "lists; its calls' own metrics are still to come. waiting: not finished at the source. incomplete: some of "
            "it is missing (see the errors table) or still to come. forgotten: only its id, run test and start remain.",
        ),
        _DELETED_AT,
        Column("fingerprint", STRING, "BLAKE2b-128 of the listed payload. If it changes, the execution is refetched."),
        Column("calls_digest", STRING, "BLAKE2b-128 of the execution's calls and evals, with their deletion marks."),
        Column(
            "verified_at",
            TIMESTAMP,
            "When a fetch or comparison of the execution's calls last changed something, or made the execution final.",
            null="null until fetched",
        ),
        *_EXPORT,
    ),
    _PARTITIONS,
)

CALLS = Table(
    "calls",
    "call",
    f"{METRICS}?call_execution_id=",
    (
        Column("call_execution_id", STRING, "Identifies the call.", source="call_execution_id", is_key=True),
        Column("execution_id", STRING, "The execution that the call belongs to.", source="execution_id", null=NEVER),
        _RUN_TEST_NAME,
        _EXECUTION_STARTED_AT,
        field("call_results.scenario_id", STRING, "The scenario that was played."),
        field("call_results.scenario_name", STRING, "Name of the scenario when the call was exported."),
        field("status", STRING, f"pending, queued, ongoing, completed, failed, analyzing or cancelled. {_KEPT}"),
        field("duration_seconds", FLOAT, "Length of the call.", "s"),
        field("latency.avg_agent_latency_ms", FLOAT, "Mean time that the agent took to answer.", "ms"),
        field("latency.response_time_ms", FLOAT, "Response time of the call. The API does not define it.", "ms"),
        *(_reported(name, *declared) for name, declared in _VOICE.items()),
        _reported("avg_agent_latency_ms", FLOAT, "Mean time that the agent took to answer", "ms"),
        _reported(
            "avg_stop_time_after_interruption_ms", FLOAT, "Mean time until the agent stops when interrupted", "ms"
        ),
        field("cost.total_cost_cents", INT, "Total cost of the call.", "US cents"),
        field("cost.stt_cost_cents", INT, "Cost of speech to text.", "US cents"),
        field("cost.llm_cost_cents", INT, "Cost of the language model.", "US cents"),
        field("cost.tts_cost_cents", INT, "Cost of text to speech.", "US cents"),
        Column(
            "cost_customer_cost_breakdown",
            STRING,
            "The provider's own breakdown of the cost, an object that differs by provider.",
            source="cost.customer_cost_breakdown|cost.breakdown",
            is_json=True,
        ),
        *(_measured(name) for name in ("user_wpm", "bot_wpm", "talk_ratio")),
        *(_measured(f"{who}_interruption_{figure}") for who in ("user", "ai") for figure in ("count", "rate")),
        field(
            "conversation.avg_stop_time_after_interruption_ms",
            FLOAT,
            "Mean time until the agent stops talking when interrupted.",
            "ms",
        ),
        field("chat_metrics.input_tokens", INT, "Input tokens.", "tokens"),
        field("chat_metrics.output_tokens", INT, "Output tokens.", "tokens"),
        field("chat_metrics.total_tokens", INT, "Total number of tokens.", "tokens"),
        field("chat_metrics.message_count", INT, "Number of messages in the chat.", "messages"),
        field("chat_metrics.turn_count", INT, "Number of turns in the chat.", "turns"),
        field("chat_metrics.avg_latency_ms", FLOAT, "Mean latency of the chat's answers.", "ms"),
        field("chat_metrics.csat_score", FLOAT, "Customer satisfaction score; seen so far: 1 to 10.", "score"),
        shown("overall_score", FLOAT, "The platform's CSAT (1 to 10 so far), a voice call's only score.", "score"),
        shown("ended_reason", STRING, "Why the call ended, as one line from the source, cut after 200 characters."),
        shown("completed_at", TIMESTAMP, "When the call ended.", null=_NOT_LISTED),
        shown("agent_version", STRING, "Name of the version of the agent that was tested.", null=_NOT_LISTED),
        shown("customer_cost_cents", INT, "What the call cost on the customer's side.", "US cents"),
        shown("provider", STRING, "The voice provider that carried the call."),
        shown("agent_definition_used_id", STRING, "Identifies the agent that was tested."),
        shown("agent_definition_used_name", STRING, "Name of the agent that was tested, when the call was exported."),
        shown("simulator_agent_id", STRING, "Identifies the simulated user."),
        shown("simulator_agent_name", STRING, "Name of the simulated user when the call was exported."),
        shown("scenario_columns", STRING, "The row of the scenario's data that was played, by column.", is_json=True),
        shown("tool_outputs", STRING, "Results of the tool evaluations, by tool.", is_json=True),
        shown(
            "rerun_snapshots",
            STRING,
            "The call's metrics and evals before each rerun, newest first, without texts and recordings.",
            is_json=True,
        ),
        _EXTRA,
        _RAW,
        Column(
            "metrics_from",
            STRING,
            "metrics: the row has the call's own metrics. lists: it has the same values, from lists that show voice "
            "calls in full. both: values missing from the call's own metrics come from the execution's detail. detail: "
            "the row has what that detail and the list of calls show, and these columns are null: "
            f"{', '.join(NOT_IN_LISTS)}.",
            null="null when a version without this column wrote the row, which means metrics",
        ),
        _DELETED_AT,
        *_EXPORT,
    ),
    _PARTITIONS,
)


def _output(kind: str, type_: pa.DataType, meaning: str, null: str, unit: str = "") -> Column:
    """One of the columns that share the output of an eval: the first that can hold it takes it."""
    meaning = f"The output when it is {meaning}."
    return Column(f"output_{kind}", type_, meaning, unit, "output", null, is_json=kind == "json")


EVALS = Table(
    "evals",
    "eval output of a call",
    f"{RUNS}?execution_id=",
    (
        Column("call_execution_id", STRING, "The call that was judged.", is_key=True),
        Column("eval_config_id", STRING, "The eval configuration that judged it.", is_key=True),
        _RUN_TEST_NAME,
        Column("execution_id", STRING, "The execution that the call belongs to."),
        _EXECUTION_STARTED_AT,
        Column("eval_name", STRING, "Name of the eval when the call was exported.", source="name"),
        field("output_type", STRING, "Type of the output: Pass/Fail, score, choices or another type."),
        _output("passed", BOOL, "a verdict: true, Passed, false or Failed", "null when the output is something else"),
        _output("score", FLOAT, "a number", "null when the output is something else", "score"),
        _output("text", STRING, "a string", "null when the output is something else"),
        _output("json", STRING, "a list or an object", "null when the output is something else"),
        field("reason", STRING, "Why the eval gave this output."),
        field("status", STRING, "Status of the eval: Completed, Failed, skipped or another word that the API uses."),
        _EXTRA,
        _DELETED_AT,
        *_EXPORT,
    ),
    _PARTITIONS,
)

ERRORS = Table(
    "errors",
    "request that a run gave up on (dead letter), until the request succeeds",
    "",
    (
        Column("endpoint", STRING, f"Path of the endpoint that failed, {DETAIL} for a detail.", is_key=True),
        Column("subject_id", STRING, "The call or execution that was requested.", is_key=True),
        Column("execution_id", STRING, "The execution that is not final because of this failure.", is_key=True),
        _RUN_TEST_NAME,
        _EXECUTION_STARTED_AT,
        Column("status", INT, "HTTP status of the last try, or 0 if there was no answer."),
        Column("message", STRING, "What went wrong."),
        Column("excerpt", STRING, "The first 200 characters of the last answer, or the title of an HTML page."),
        Column("tries", INT, "How often the last run sent the request.", "requests"),
        Column("first_seen_at", TIMESTAMP, "When the request first failed."),
        Column("last_seen_at", TIMESTAMP, "When the request last failed."),
        _EXPORT[0],
    ),
    _PARTITIONS,
)

RUNS_TABLE = Table(
    "runs",
    "export run",
    "",
    (
        Column("export_run_id", STRING, "Identifies the export run. The ids of later runs sort later.", is_key=True),
        Column("started_at", TIMESTAMP, "When the run began."),
        Column("finished_at", TIMESTAMP, "When the run ended."),
        Column("outcome", STRING, "The exit code as a word (complete, partial, refused …), or forgotten."),
        Column("exit_code", INT, "Exit code of the command."),
        Column("version", STRING, "Version of metrics-etl."),
        Column("seconds", FLOAT, "Duration of the run.", "s"),
        Column("requests", INT, "Requests sent, retries included.", "requests"),
        Column("call_requests", INT, "Requests for single calls.", "requests", null="null when an older version ran"),
        Column("retries", INT, "Requests sent again after a transient fault.", "requests"),
        Column("rejections", INT, "Requests that the rate limit refused.", "requests"),
        Column("executions", INT, "New or changed executions.", "rows"),
        Column("calls", INT, "New or changed calls.", "rows"),
        Column("evals", INT, "New or changed evals.", "rows"),
        Column("dead_letters", INT, "Requests that failed for good.", "requests"),
        Column("misfits", INT, "Values that did not fit their column and are kept in extra.", "values"),
        Column("files", INT, "Parquet files written.", "files"),
        Column("bytes", INT, "Bytes of Parquet written.", "bytes"),
        Column("message", STRING, "Why the run ended as it did.", null="null when nothing is missing"),
        Column("run_tests", STRING, "Counts for each run test.", is_json=True),
        Column("receipt", STRING, "Files written, with SHA-256.", null="null when an older version ran", is_json=True),
    ),
    (Column("month", STRING, "UTC month, such as 2026-11, in which the run began."),),
)

TABLES: dict[str, Table] = {table.name: table for table in (EXECUTIONS, CALLS, EVALS, ERRORS, RUNS_TABLE)}
"""All tables, by name."""
OF_CALLS = (CALLS, EVALS)
"""The tables whose rows a digest covers."""
OF_EXECUTIONS = (*OF_CALLS, ERRORS, EXECUTIONS)
"""The tables whose rows belong to executions, in the order of writing: last those that vouch for the others."""
