"""Every table and column: name, Arrow type, unit, meaning, source path, null rule. The one place that declares them.

A type is never inferred from data: a column that is all null, or whole numbers only, today would change its type tomorrow.
"""

import pyarrow as pa

from etl.model.columns import BOOL, DATE, DAY, FLOAT, GIVEN, INT, NEVER, STRING, TIMESTAMP, TYPE_NAMES, Column, Table
from etl.model.records import METRICS, RUNS

__all__ = [
    "BOOL", "CALLS", "DATE", "DAY", "ERRORS", "EVALS", "EXECUTIONS", "FLOAT", "GIVEN", "INT", "NEVER", "OF_EXECUTIONS",
    "RUNS_TABLE", "STRING", "TABLES", "TIMESTAMP", "TYPE_NAMES", "Column", "Table",
]  # fmt: skip

_PARTITIONS = (
    Column("run_test", STRING, "Key of the run test."),
    Column(
        "month",
        STRING,
        "UTC month, as 2026-11, in which the execution was created, or first seen when the API does not say.",
    ),
)
RUN_TEST_NAME = Column("run_test_name", STRING, "Name of the run test, as configured when the row was exported.")
EXECUTION_STARTED_AT = Column(
    "execution_started_at",
    TIMESTAMP,
    "When the row's execution was created at the source; see executions.started_at.",
    null=GIVEN,
)
EXTRA = Column(
    "extra",
    STRING,
    "Payload fields that no column holds, and values that do not fit their column exactly, nested and to the digit as the API "
    "sent them. NaN, which is not JSON, and numbers that readers of JSON refuse (1e400, thousands of "
    "digits) are kept as strings.",
    null="null when there are none",
    is_json=True,
)
RAW = Column(
    "raw", STRING, "The whole payload as received.", null="null unless [export] include_raw is on", is_json=True
)
ROW_HASH = Column("row_hash", STRING, "BLAKE2b-128 of the row's values that came from the API, hexadecimal.")
DELETED_AT = Column(
    "deleted_at",
    TIMESTAMP,
    "When the source was found to have it no more; the row is kept, and the mark goes if the source has it again.",
    null="null while the source has it",
)
EXPORT = (
    Column("export_run_id", STRING, "The export run that wrote this version of the row; see runs.export_run_id."),
    Column("exported_at", TIMESTAMP, "When this version of the row was exported."),
)


def _latency(source: str, meaning: str) -> Column:
    return Column(source.replace(".", "_"), FLOAT, meaning, "ms", source)


def _free_latency(name: str, type_: pa.DataType, meaning: str, unit: str) -> Column:
    return Column(
        f"latency_customer_{name}",  # one of the whole paths has 68 characters: PostgreSQL cuts at 63
        type_,
        f"{meaning}, as the voice provider reported it.",
        unit,
        f"latency.customer_latency_metrics.{name}|latency.system_metrics.{name}",
    )


def _cost(name: str, meaning: str) -> Column:
    return Column(f"cost_{name}_cost_cents", INT, meaning, "US cents", f"cost.{name}_cost_cents")


def _field(block: str, name: str, type_: pa.DataType, meaning: str, unit: str = "") -> Column:
    return Column(f"{block.replace('.', '_')}_{name}", type_, meaning, unit, f"{block}.{name}")


def _aggregate(block: str, name: str, meaning: str, unit: str = "", type_: pa.DataType = FLOAT) -> Column:
    return Column(f"{block.replace('.', '_')}_{name}", type_, meaning, unit, f"metrics.{block}.{name}")


def _percentile(name: str, meaning: str) -> Column:
    path = f"metrics.latency.percentiles.{name}"
    return Column(f"latency_percentiles_{name}", FLOAT, meaning, "ms", path, "null when no call had data")


_NO_DATA = " 0.0 also when no call had data."

EXECUTIONS = Table(
    "executions",
    "execution, as listed",
    f"{METRICS}?run_test_name=",
    (
        Column("execution_id", STRING, "Identifies the execution.", source="execution_id", is_key=True),
        RUN_TEST_NAME,
        Column(
            "status",
            STRING,
            "pending, running, completed, failed, cancelled, cancelling or evaluating; a status that is new here is kept as it is.",
            source="status",
        ),
        Column("started_at", TIMESTAMP, "When the execution was created.", source="started_at"),
        Column("completed_at", TIMESTAMP, "When it ended.", source="completed_at", null="null while it runs"),
        Column(
            "total_calls",
            INT,
            "Stored counter of calls; may differ from the calls that can be listed.",
            "calls",
            "total_calls",
        ),
        Column("completed_calls", INT, "Stored counter of completed calls.", "calls", "completed_calls"),
        Column("failed_calls", INT, "Stored counter of failed calls.", "calls", "failed_calls"),
        _aggregate("latency", "avg_agent_latency_ms", "Mean agent latency over the calls." + _NO_DATA, "ms"),
        _aggregate("latency", "avg_response_time_ms", "Mean response time over the calls." + _NO_DATA, "ms"),
        _percentile("p50", "Median agent latency of the calls."),
        _percentile("p95", "95th percentile of the calls' agent latency."),
        _percentile("p99", "99th percentile of the calls' agent latency."),
        _aggregate("cost", "total_duration_seconds", "Sum of the calls' durations.", "s"),
        _aggregate("conversation", "avg_user_wpm", "Mean speaking rate of the simulated user." + _NO_DATA, "words/min"),
        _aggregate("conversation", "avg_bot_wpm", "Mean speaking rate of the agent." + _NO_DATA, "words/min"),
        _aggregate(
            "conversation",
            "avg_talk_ratio",
            "Mean ratio of the agent's to the user's talking time." + _NO_DATA,
            "ratio",
        ),
        _aggregate(
            "conversation",
            "avg_user_interruption_rate",
            "Mean interruptions by the user per minute." + _NO_DATA,
            "1/min",
        ),
        _aggregate(
            "conversation",
            "avg_ai_interruption_rate",
            "Mean interruptions by the agent per minute." + _NO_DATA,
            "1/min",
        ),
        _aggregate(
            "conversation",
            "avg_stop_time_after_interruption_ms",
            "Mean time until the agent stops talking once interrupted." + _NO_DATA,
            "ms",
        ),
        _aggregate("chat", "avg_total_tokens", "Mean tokens per chat call." + _NO_DATA, "tokens"),
        _aggregate("chat", "avg_input_tokens", "Mean input tokens per chat call." + _NO_DATA, "tokens"),
        _aggregate("chat", "avg_output_tokens", "Mean output tokens per chat call." + _NO_DATA, "tokens"),
        _aggregate("chat", "avg_chat_latency_ms", "Mean latency of chat answers." + _NO_DATA, "ms"),
        _aggregate("chat", "avg_turn_count", "Mean turns per chat call." + _NO_DATA, "turns"),
        _aggregate("chat", "avg_csat_score", "Mean customer satisfaction score." + _NO_DATA, "score"),
        _aggregate("calls", "total", "Current number of calls, deleted ones included.", "calls", INT),
        _aggregate("calls", "completed", "Current number of completed calls.", "calls", INT),
        _aggregate("calls", "failed", "Current number of failed calls.", "calls", INT),
        _aggregate("calls", "pending", "Current number of pending calls.", "calls", INT),
        EXTRA,
        RAW,
        Column(
            "listed_calls",
            INT,
            "Calls that the API listed for the execution.",
            "calls",
            null="null until they were listed",
        ),
        Column(
            "exported_calls",
            INT,
            "Calls of the execution that the calls table holds, without those that have a deleted_at.",
            "calls",
        ),
        Column(
            "export_state",
            STRING,
            "exported: final. settling: exported, and checked again until it is final. waiting: not finished at the source, calls "
            "not fetched. incomplete: something is missing (see the errors table) or has not arrived yet.",
        ),
        DELETED_AT,
        Column(
            "fingerprint",
            STRING,
            "BLAKE2b-128 of the listed payload, read before the calls; a change means fetching again.",
        ),
        Column(
            "calls_digest",
            STRING,
            "BLAKE2b-128 over the row hashes of the execution's calls and evals, and their marks.",
        ),
        Column(
            "verified_at",
            TIMESTAMP,
            "When the execution's calls were last fetched; a check that finds no change while it settles does not count.",
            null="null until they were fetched",
        ),
        *EXPORT,
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
        RUN_TEST_NAME,
        EXECUTION_STARTED_AT,
        Column("scenario_id", STRING, "The scenario that was played.", source="call_results.scenario_id"),
        Column("scenario_name", STRING, "Name of the scenario.", source="call_results.scenario_name"),
        Column(
            "status",
            STRING,
            "pending, queued, ongoing, completed, failed, analyzing or cancelled; a status that is new here is kept as it is.",
            source="status",
        ),
        Column("duration_seconds", FLOAT, "Length of the call.", "s", "duration_seconds"),
        _latency("latency.avg_agent_latency_ms", "Mean time that the agent took to answer."),
        _latency("latency.response_time_ms", "Response time of the call."),
        _free_latency("bot_wpm", FLOAT, "Speaking rate of the agent", "words/min"),
        _free_latency("user_wpm", FLOAT, "Speaking rate of the simulated user", "words/min"),
        _free_latency("talk_ratio", FLOAT, "Ratio of the agent's to the user's talking time", "ratio"),
        _free_latency("ai_interruption_rate", FLOAT, "Interruptions by the agent per minute", "1/min"),
        _free_latency("ai_interruption_count", INT, "Interruptions by the agent", "interruptions"),
        _free_latency("user_interruption_rate", FLOAT, "Interruptions by the user per minute", "1/min"),
        _free_latency("user_interruption_count", INT, "Interruptions by the user", "interruptions"),
        _free_latency("avg_agent_latency_ms", FLOAT, "Mean time that the agent took to answer", "ms"),
        _free_latency(
            "avg_stop_time_after_interruption_ms", FLOAT, "Mean time until the agent stops once interrupted", "ms"
        ),
        _cost("total", "Total cost of the call."),
        _cost("stt", "Cost of speech to text."),
        _cost("llm", "Cost of the language model."),
        _cost("tts", "Cost of text to speech."),
        Column(
            "cost_customer_cost_breakdown",
            STRING,
            "The provider's own breakdown of the cost, an object that differs by provider.",
            source="cost.customer_cost_breakdown|cost.breakdown",
            is_json=True,
        ),
        _field("conversation", "user_wpm", FLOAT, "Speaking rate of the simulated user.", "words/min"),
        _field("conversation", "bot_wpm", FLOAT, "Speaking rate of the agent.", "words/min"),
        _field("conversation", "talk_ratio", FLOAT, "Ratio of the agent's to the user's talking time.", "ratio"),
        _field("conversation", "user_interruption_count", INT, "Interruptions by the user.", "interruptions"),
        _field("conversation", "user_interruption_rate", FLOAT, "Interruptions by the user per minute.", "1/min"),
        _field("conversation", "ai_interruption_count", INT, "Interruptions by the agent.", "interruptions"),
        _field("conversation", "ai_interruption_rate", FLOAT, "Interruptions by the agent per minute.", "1/min"),
        _field(
            "conversation",
            "avg_stop_time_after_interruption_ms",
            FLOAT,
            "Mean time until the agent stops talking once interrupted.",
            "ms",
        ),
        _field("chat_metrics", "input_tokens", INT, "Tokens that the model read.", "tokens"),
        _field("chat_metrics", "output_tokens", INT, "Tokens that the model wrote.", "tokens"),
        _field("chat_metrics", "total_tokens", INT, "Tokens in all.", "tokens"),
        _field("chat_metrics", "message_count", INT, "Messages of the chat.", "messages"),
        _field("chat_metrics", "turn_count", INT, "Turns of the chat.", "turns"),
        _field("chat_metrics", "avg_latency_ms", FLOAT, "Mean latency of the chat's answers.", "ms"),
        _field("chat_metrics", "csat_score", FLOAT, "Customer satisfaction score.", "score"),
        EXTRA,
        RAW,
        DELETED_AT,
        ROW_HASH,
        *EXPORT,
    ),
    _PARTITIONS,
)

EVALS = Table(
    "evals",
    "eval output of a call",
    f"{RUNS}?execution_id=",
    (
        Column("call_execution_id", STRING, "The call that was judged.", is_key=True),
        Column("eval_config_id", STRING, "The eval configuration that judged it.", is_key=True),
        RUN_TEST_NAME,
        Column("execution_id", STRING, "The execution that the call belongs to."),
        EXECUTION_STARTED_AT,
        Column("eval_name", STRING, "Name of the eval.", source="name"),
        Column(
            "output_type", STRING, "Pass/Fail, score, choices or another type that the API names.", source="output_type"
        ),
        Column(
            "output_passed",
            BOOL,
            "The output when it is a verdict: true or Passed, false or Failed.",
            source="output",
            null="null when it is none",
        ),
        Column("output_score", FLOAT, "The output when it is a number.", "score", "output", "null when it is none"),
        Column("output_text", STRING, "The output when it is a string.", source="output", null="null when it is none"),
        Column(
            "output_json",
            STRING,
            "The output when it is a list or an object.",
            source="output",
            null="null when it is neither",
            is_json=True,
        ),
        Column("reason", STRING, "Why the eval gave this output.", source="reason"),
        Column("status", STRING, "Completed, Failed, skipped or another word that the API uses.", source="status"),
        EXTRA,
        DELETED_AT,
        ROW_HASH,
        *EXPORT,
    ),
    _PARTITIONS,
)

ERRORS = Table(
    "errors",
    "dead letter: a request that a run gave up on; removed when it succeeds",
    "",
    (
        Column("endpoint", STRING, "Path of the endpoint that failed.", is_key=True),
        Column("subject_id", STRING, "The call or execution that was asked for.", is_key=True),
        Column("execution_id", STRING, "The execution that is incomplete because of it.", is_key=True),
        RUN_TEST_NAME,
        EXECUTION_STARTED_AT,
        Column("status", INT, "HTTP status of the last try; 0 when there was no answer."),
        Column("message", STRING, "What went wrong."),
        Column("excerpt", STRING, "The first 200 characters of the last answer."),
        Column("tries", INT, "Requests spent on it by the last run.", "requests"),
        Column("first_seen_at", TIMESTAMP, "When it failed first."),
        Column("last_seen_at", TIMESTAMP, "When it failed last."),
        EXPORT[0],
    ),
    _PARTITIONS,
)

RUNS_TABLE = Table(
    "runs",
    "export run",
    "",
    (
        Column("export_run_id", STRING, "Identifies the export run; sorts by time.", is_key=True),
        Column("started_at", TIMESTAMP, "When the run began."),
        Column("finished_at", TIMESTAMP, "When the run ended."),
        Column(
            "outcome",
            STRING,
            "complete, partial, configuration, refused, unavailable, destination, interrupted or error.",
        ),
        Column("exit_code", INT, "Exit code of the command."),
        Column("version", STRING, "Version of the exporter."),
        Column("seconds", FLOAT, "Duration of the run.", "s"),
        Column("requests", INT, "Requests sent, retries included.", "requests"),
        Column("retries", INT, "Requests sent again after a transient fault.", "requests"),
        Column("rejections", INT, "Requests that the rate limit refused.", "requests"),
        Column("executions", INT, "New or changed executions.", "rows"),
        Column("calls", INT, "New or changed calls.", "rows"),
        Column("evals", INT, "New or changed evals.", "rows"),
        Column("dead_letters", INT, "Requests given up.", "requests"),
        Column("misfits", INT, "Values that did not fit their column and are kept in extra.", "values"),
        Column("files", INT, "Parquet files written.", "files"),
        Column("bytes", INT, "Bytes of Parquet written.", "bytes"),
        Column("message", STRING, "Why the run ended as it did.", null="null when nothing is missing"),
        Column("run_tests", STRING, "The figures of each run test.", is_json=True),
    ),
    (Column("month", STRING, "UTC month, as 2026-11, in which the run began."),),
)

TABLES: dict[str, Table] = {table.name: table for table in (EXECUTIONS, CALLS, EVALS, ERRORS, RUNS_TABLE)}
OF_EXECUTIONS = (CALLS, EVALS, ERRORS, EXECUTIONS)
"""In the order in which their rows are written: execution rows vouch for the others."""
