"""The declared tables are sound: what no payload could ever break."""

import re
from collections.abc import Callable

import pyarrow as pa
import pytest

from etl.model import schema
from etl.model.lifecycle import ExportState

COLUMNS = [(table, column) for table in schema.TABLES.values() for column in table.columns]

MONEY_AND_COUNTS = re.compile(
    r"cents$|_tokens$|_count$|^calls_|_calls$|^((call_)?requests|retries|rejections|misfits|files|bytes|tries)$"
)

COUNTS = {"executions", "calls", "evals", "dead_letters"}
OUTPUTS = ("output_passed", "output_score", "output_text", "output_json")


def every_column(check: Callable[[schema.Table, schema.Column], None]) -> Callable[[], None]:
    """The check as one test over all columns; a failure says of which one."""

    def test() -> None:
        for table, column in COLUMNS:
            try:
                check(table, column)
            except AssertionError as error:
                error.add_note(f"{table.name}.{column.name}")
                raise

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


every_table = pytest.mark.parametrize("table", schema.TABLES.values(), ids=schema.TABLES)


@every_table
def test_no_column_is_declared_twice(table):
    assert len(set(table.names)) == len(table.names)
    assert [column.name for column in table.columns] == list(table.names)


def test_tables_and_their_keys():
    assert {name: table.key for name, table in schema.TABLES.items()} == {
        "executions": ("execution_id",),
        "calls": ("call_execution_id",),
        "evals": ("call_execution_id", "eval_config_id"),
        "errors": ("endpoint", "subject_id", "execution_id"),
        "runs": ("export_run_id",),
    }


@every_column
def test_name_fits_every_warehouse_and_no_partition_column(table, column):
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,62}", column.name), "PostgreSQL cuts a name at 63 characters"
    assert column.name not in {"date", "month", "run_test"}


@every_column
def test_column_says_what_it_means(table, column):
    assert re.fullmatch(r"[A-Za-z0-9].*\.", column.meaning)
    assert column.type_name in {"string", "int64", "double", "bool", "timestamp[us, UTC]"}
    assert not column.is_json or column.type == schema.STRING


@every_table
def test_partition_columns_are_texts_and_never_null(table):
    declared = {column.name: (column.type_name, column.null_rule) for column in table.partitions}
    run_test = {} if table.name == "runs" else {"run_test": ("string", "never null")}
    assert declared == run_test | {"month": ("string", "never null")}


@every_table
def test_no_path_leads_through_another(table):
    """A field cannot be a value and an object at once: the walk over a payload would not know where it goes."""
    paths = {path for column in table.columns for path in column.paths}
    assert not [(path, other) for path in paths for other in paths if path != other and other[: len(path)] == path]


@every_table
def test_a_path_feeds_one_column_except_the_output_of_an_eval(table):
    feeds: dict[tuple[str, ...], list[str]] = {}
    for column in table.columns:
        for path in column.paths:
            feeds.setdefault(path, []).append(column.name)
    assert {tuple(names) for path, names in feeds.items() if len(names) > 1} == (
        {OUTPUTS} if table.name == "evals" else set()
    )


@every_column
def test_name_is_the_payload_path_with_the_first_spelling(table, column):
    if column.source and column.name not in ("eval_name", *OUTPUTS):
        name = "_".join(column.paths[0]).removeprefix("metrics_").removeprefix("call_results_").removeprefix("detail_")
        assert column.name == name.replace("customer_latency_metrics", "customer")


@every_column
def test_money_and_counts_are_whole_and_other_numbers_are_doubles(table, column):
    is_number = column.type in (schema.INT, schema.FLOAT)
    if is_number and not column.name.startswith(("avg_", "chat_avg_")) and column.name not in {"status", "exit_code"}:
        is_whole = bool(MONEY_AND_COUNTS.search(column.name)) or column.name in COUNTS
        assert (column.type == schema.INT) is is_whole


def test_timestamps_are_microseconds_in_utc():
    assert pa.timestamp("us", "UTC") == schema.TIMESTAMP
    assert {name for _, column in COLUMNS if (name := column.name).endswith("_at")} == {
        column.name for _, column in COLUMNS if column.type == schema.TIMESTAMP
    }


@every_column
def test_null_rule_says_when_a_column_is_null(table, column):
    assert re.fullmatch(r"never null|null (when|while|until|unless) .*[^.]", column.null_rule)
    assert not column.is_key or column.null_rule == schema.NEVER


def test_meaning_of_the_export_state_names_each_state_in_order():
    meaning = schema.EXECUTIONS.columns[schema.EXECUTIONS.names.index("export_state")].meaning
    assert re.findall(r"(\w+):", meaning) == [*ExportState]
