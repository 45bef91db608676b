"""Bundles become frames: every value in its column, or in ``extra``; a null is never a zero."""

import json
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest

from etl.errors import SchemaError
from etl.extract.parse import parse_json
from etl.model import schema
from etl.model.lifecycle import HeldRows
from etl.model.records import FetchedCall, ListedCall, NumberLiteral
from etl.transform.frames import ExportStamp, frame_of, to_arrow, to_pandas
from tests.bundles import (
    EXPORT,
    bundle_of,
    calls_frame,
    dead_letter,
    errors_frame,
    evals_frame,
    execution,
    executions_frame,
    fetched_call,
    recorded_call,
    recorded_calls,
    recorded_cases,
    recorded_execution,
    recorded_executions,
    through_parquet,
)

CALL_CASES = recorded_cases("call_execution_id", "metrics_call")
EXECUTION_CASES = recorded_cases("execution_id", "metrics_")
EXECUTION_PAGES = recorded_cases("run_test_name", "metrics_")
CALL_PAGES = recorded_cases("execution_id", "runs_")
STARTED_AT = datetime(2026, 3, 1, 9, 0, 1, 123456, tzinfo=UTC)


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


def leaves(value, path=()):
    """Every value of a payload that is neither null nor an object, by its path."""
    if isinstance(value, dict):
        return {found: leaf for name, inner in value.items() for found, leaf in leaves(inner, (*path, name)).items()}
    if value is None:
        return {}
    return {path: float(value) if isinstance(value, NumberLiteral) else value}


def column_leaves(row, table):
    """The leaves that the row's columns hold, by the path that feeds them; JSON columns opened."""
    found: dict[tuple[str, ...], object] = {}
    for column in table.columns:
        value = row[column.name]
        if value is None:
            continue
        if isinstance(value, datetime):
            value = value.isoformat().replace("+00:00", "Z")
        for path in column.paths:
            found |= leaves(json.loads(value), path) if column.is_json else {path: value}
    return found


def assert_holds_all(payload, row, table):
    extra = leaves(json.loads(row["extra"] or "{}"))
    in_columns = column_leaves(row, table)
    for path, value in leaves(payload).items():
        assert (in_columns | extra)[path] == value
    fed = {name for path in leaves(payload) for name in _columns_of(path, table)}
    assert {column.name for column in table.columns if column.source and row[column.name] is not None} <= fed


def _columns_of(path, table):
    return [column.name for column in table.columns for fed in column.paths if path[: len(fed)] == fed]


class TestRecordedAnswers:
    def test_there_are_recorded_answers_of_every_kind(self):
        assert (len(CALL_CASES), len(EXECUTION_CASES), len(EXECUTION_PAGES), len(CALL_PAGES)) >= (16, 3, 4, 5)

    @pytest.mark.parametrize("case", CALL_CASES)
    def test_call_is_held_whole_without_extra_or_misfit(self, case):
        metrics = recorded_call(case)
        listed = ListedCall(call_execution_id=metrics.call_execution_id, payload={"scenario_name": "Refund"})
        frame = calls_frame([bundle_of(FetchedCall(listed=listed, metrics=metrics))], EXPORT)
        row = rows_of(frame, schema.CALLS)[0]
        assert_holds_all({**metrics.payload, "call_results": listed.payload}, row, schema.CALLS)
        assert (frame.misfits, row["extra"], row["scenario_name"]) == (0, None, "Refund")

    @pytest.mark.parametrize("case", EXECUTION_CASES)
    def test_execution_is_held_whole_without_extra_or_misfit(self, case):
        recorded = recorded_execution(case)
        frame = executions_of(recorded)
        row = rows_of(frame, schema.EXECUTIONS)[0]
        assert_holds_all(recorded.payload, row, schema.EXECUTIONS)
        assert (frame.misfits, row["extra"]) == (0, None)

    @pytest.mark.parametrize("case", EXECUTION_PAGES)
    def test_page_of_executions_is_held_whole_without_extra_or_misfit(self, case):
        page = recorded_executions(case)
        frame = executions_of(*page.results)
        assert frame.misfits == 0
        for recorded, row in zip(page.results, rows_of(frame, schema.EXECUTIONS), strict=True):
            assert_holds_all(recorded.payload, row, schema.EXECUTIONS)
            assert row["extra"] is None

    @pytest.mark.parametrize("case", CALL_PAGES)
    def test_page_of_calls_gives_scenarios_and_every_eval_whole(self, case):
        page = recorded_calls(case)
        calls = [
            fetched_call(
                listed.call_execution_id, {"duration_seconds": listed.payload["duration_seconds"]}, listed.payload
            )
            for listed in page.results
        ]
        bundle = bundle_of(*calls)
        evals = rows_of(evals_frame([bundle], EXPORT), schema.EVALS)
        sent = {
            (listed.call_execution_id, config_id): output
            for listed in page.results
            for config_id, output in listed.payload["eval_outputs"].items()
        }
        assert [(row["call_execution_id"], row["eval_config_id"]) for row in evals] == list(sent)
        for row, output in zip(evals, sent.values(), strict=True):
            assert_holds_all(output, row, schema.EVALS)
            assert set(json.loads(row["extra"] or "{}")) <= {"skipped", "error", "timestamp"}
            assert output["output"] in (
                row["output_text"],
                row["output_score"],
                json.loads(row["output_json"] or "null"),
            )
        for row, listed in zip(rows_of(calls_frame([bundle], EXPORT), schema.CALLS), page.results, strict=True):
            assert row["scenario_id"] == listed.payload["scenario_id"]
            assert row["scenario_name"] == listed.payload["scenario_name"]


class TestNulls:
    @pytest.mark.parametrize(
        "metrics", [{}, {"latency": None, "cost": None, "conversation": None, "chat_metrics": None}]
    )
    def test_metric_missing_from_the_payload_is_null_not_zero(self, metrics):
        row = call_row(metrics)
        measures = [column.name for column in schema.CALLS.columns if column.type in (schema.FLOAT, schema.INT)]
        assert [row[name] for name in measures] == [None] * len(measures)
        assert row["extra"] is None

    @pytest.mark.parametrize("block", ["latency", "cost", "conversation", "chat_metrics"])
    def test_null_metric_is_null_not_zero_and_an_empty_block_is_nothing(self, block):
        names = {path[1] for column in schema.CALLS.columns for path in column.paths if path[0] == block}
        assert call_row({block: dict.fromkeys(names)}) == call_row({block: {}}) == call_row()

    def test_true_zero_stays_zero(self):
        row = call_row({"duration_seconds": 0, "cost": {"total_cost_cents": 0}, "chat_metrics": {"csat_score": 0.0}})
        assert (row["duration_seconds"], row["cost_total_cost_cents"], row["chat_metrics_csat_score"]) == (0.0, 0, 0.0)

    def test_null_of_an_unknown_field_is_kept_where_it_was(self):
        assert call_extra({"latency": {"jitter_ms": None}}) == {"latency": {"jitter_ms": None}}

    def test_execution_without_times_and_metrics_is_null_there(self):
        row = execution_row(started_at=None, completed_at=None, metrics={})
        assert row["started_at"] is row["completed_at"] is row["latency_percentiles_p95"] is row["calls_total"] is None


class TestPlaces:
    @pytest.mark.parametrize("spelling", ["system_metrics", "customer_latency_metrics"])
    def test_both_spellings_of_the_latency_block_land_in_the_same_columns(self, spelling):
        row = call_row({"latency": {spelling: {"bot_wpm": 149.53, "ai_interruption_count": 1, "stt_ms": 7}}})
        assert row["latency_customer_latency_metrics_bot_wpm"] == 149.53
        assert row["latency_customer_latency_metrics_ai_interruption_count"] == 1
        assert json.loads(row["extra"]) == {"latency": {spelling: {"stt_ms": 7}}}

    @pytest.mark.parametrize("spelling", ["breakdown", "customer_cost_breakdown"])
    @pytest.mark.parametrize("breakdown", [{}, {"llm": {"cost": 0.034, "promptTokens": 12685}}, [1, 2]])
    def test_both_spellings_of_the_cost_breakdown_land_in_the_same_column(self, spelling, breakdown):
        row = call_row({"cost": {spelling: breakdown}})
        assert json.loads(row["cost_customer_cost_breakdown"]) == breakdown
        assert row["extra"] is None

    @pytest.mark.parametrize(
        "spellings", [["system_metrics", "customer_latency_metrics"], ["customer_latency_metrics", "system_metrics"]]
    )
    def test_the_documented_spelling_is_preferred_and_the_other_is_kept_when_it_differs(self, spellings):
        values = {
            "system_metrics": {"bot_wpm": 2.0, "user_wpm": 5},
            "customer_latency_metrics": {"bot_wpm": 1.0, "user_wpm": 5.0},
        }
        metrics = {"latency": {spelling: values[spelling] for spelling in spellings}}
        row = call_row(metrics)
        assert row["latency_customer_latency_metrics_bot_wpm"] == 1.0
        assert row["latency_customer_latency_metrics_user_wpm"] == 5.0
        assert json.loads(row["extra"]) == {"latency": {"system_metrics": {"bot_wpm": 2.0}}}
        assert call_misfits(metrics) == 1

    def test_the_other_spelling_counts_where_the_documented_one_is_null_or_does_not_fit(self):
        row = call_row(
            {
                "latency": {
                    "customer_latency_metrics": {"bot_wpm": None, "user_wpm": "fast"},
                    "system_metrics": {"bot_wpm": 2.0, "user_wpm": 3.0},
                }
            }
        )
        assert row["latency_customer_latency_metrics_bot_wpm"] == 2.0
        assert row["latency_customer_latency_metrics_user_wpm"] == 3.0
        assert json.loads(row["extra"]) == {"latency": {"customer_latency_metrics": {"user_wpm": "fast"}}}

    def test_keys_that_look_like_column_names_or_paths_collide_with_nothing(self):
        metrics = {
            "latency": {
                "avg_agent_latency_ms": 1.0,
                "customer_latency_metrics.bot_wpm": 4,
                "customer_latency_metrics_bot_wpm": 5,
            },
            "latency.avg_agent_latency_ms": 2,
            "latency_avg_agent_latency_ms": 3,
            "extra": {"a": 1},
            "row_hash": "mine",
            "raw": 7,
            "run_test_name": "mine",
            "export_run_id": "mine",
            "scenario_id": "mine",
            "": {"": 0},
        }
        row = call_row(metrics)
        assert row["latency_avg_agent_latency_ms"] == 1.0
        assert row["latency_customer_latency_metrics_bot_wpm"] is None
        assert (row["run_test_name"], row["export_run_id"], row["raw"], row["scenario_id"]) == (
            "Checkout",
            "run-1",
            None,
            None,
        )
        del metrics["latency"]["avg_agent_latency_ms"]  # type: ignore[attr-defined]
        assert json.loads(row["extra"]) == metrics

    def test_what_is_no_object_where_one_is_declared_is_one_misfit(self):
        metrics = {"latency": [1, 2], "cost": "free", "conversation": 0, "chat_metrics": False}
        assert call_extra(metrics) == metrics
        assert call_misfits(metrics) == 4

    def test_misfits_are_null_stand_verbatim_in_extra_and_are_counted(self):
        metrics = {
            "duration_seconds": "long",
            "cost": {"total_cost_cents": 2.5, "stt_cost_cents": "3.5", "llm_cost_cents": True, "tts_cost_cents": 2**64},
            "chat_metrics": {
                "csat_score": 2**53 + 1,
                "input_tokens": "1500",
                "output_tokens": 7.0,
                "turn_count": {"a": 1},
            },
            "unknown": 1,
        }
        row = call_row(metrics)
        assert (row["chat_metrics_input_tokens"], row["chat_metrics_output_tokens"]) == (1500, 7)
        assert {row[f"cost_{name}_cost_cents"] for name in ("total", "stt", "llm", "tts")} == {None}
        assert json.loads(row["extra"]) == {
            "duration_seconds": "long",
            "cost": metrics["cost"],
            "chat_metrics": {"csat_score": 2**53 + 1, "turn_count": {"a": 1}},
            "unknown": 1,
        }
        assert call_misfits(metrics) == 7

    @pytest.mark.parametrize("literal", ["9007199254740993.0", "1e-400", "-1.2345e-320"])
    def test_number_that_a_double_would_change_is_a_misfit_with_every_digit(self, literal):
        metrics = parse_json(f'{{"duration_seconds":{literal},"x":[{literal}]}}'.encode())
        assert call_row(metrics)["extra"] == f'{{"duration_seconds":{literal},"x":[{literal}]}}'
        assert call_misfits(metrics) == 1

    @pytest.mark.parametrize("literal", ["NaN", "1e400", "-Infinity"])
    def test_number_that_no_double_holds_is_a_misfit_and_no_crash(self, literal):
        metrics = parse_json(f'{{"duration_seconds":{literal},"x":[{literal}]}}'.encode())
        assert call_extra(metrics) == {"duration_seconds": literal, "x": [literal]}
        assert call_misfits(metrics) == 1

    def test_strings_that_utf8_cannot_hold_stand_escaped_in_extra(self):
        metrics = {"note \ud800": "a\udfff", "latency": {"b": 1.5}}
        assert call_extra(metrics, {"scenario_name": "\ud83d"}) == {
            **metrics,
            "call_results": {"scenario_name": "\ud83d"},
        }


class TestListing:
    def test_fields_that_only_the_listing_has_are_kept(self):
        row = call_row({}, {"scenario_id": "s", "scenario_name": "Refund", "agent": {"version": 2}, "scenario_id.x": 1})
        assert (row["scenario_id"], row["scenario_name"]) == ("s", "Refund")
        assert json.loads(row["extra"]) == {"call_results": {"agent": {"version": 2}, "scenario_id.x": 1}}

    def test_what_the_listing_repeats_is_not_kept_twice(self):
        assert (
            call_extra({"duration_seconds": 88}, {"duration_seconds": 88.0, "status": "completed", "eval_outputs": {}})
            is None
        )

    def test_what_the_listing_says_differently_is_kept(self):
        row = call_row({"duration_seconds": 88}, {"duration_seconds": 90, "status": "analyzing"})
        assert (row["duration_seconds"], row["status"]) == (88.0, "completed")
        assert json.loads(row["extra"]) == {"call_results": {"duration_seconds": 90, "status": "analyzing"}}

    @pytest.mark.parametrize(
        ("metrics", "listed"), [(1, True), (True, 1), ("NaN", "nan"), ([1], [True]), ([1], [1]), (88, None)]
    )
    def test_what_the_listing_does_not_certainly_repeat_is_kept(self, metrics, listed):
        extra = call_extra({"duration_seconds": metrics}, {"duration_seconds": listed})
        assert json.dumps(extra["call_results"]) == json.dumps({"duration_seconds": listed})

    @pytest.mark.parametrize("outputs", [[], [1], "none", "", 0, False, 7])
    def test_eval_outputs_that_are_no_object_are_kept_with_the_call(self, outputs):
        assert call_extra({}, {"eval_outputs": outputs}) == {"call_results": {"eval_outputs": outputs}}
        assert eval_rows(outputs) == []

    @pytest.mark.parametrize("outputs", [None, {}, {"config": {"output": 1}}])
    def test_eval_outputs_have_a_table_of_their_own(self, outputs):
        assert call_extra({}, {"eval_outputs": outputs}) is None

    def test_eval_of_a_config_id_that_utf8_cannot_hold_is_kept_with_the_call(self):
        outputs = {"\ud800": {"output": "Passed"}, "config": {"output": "Failed"}}
        assert [row["eval_config_id"] for row in eval_rows(outputs)] == ["config"]
        assert call_extra({}, {"eval_outputs": outputs}) == {
            "call_results": {"eval_outputs": {"\ud800": {"output": "Passed"}}}
        }

    def test_call_results_among_the_metrics_are_not_taken_for_the_listing(self):
        row = call_row({"call_results": {"scenario_id": "not this"}}, {"scenario_id": "this"})
        assert row["scenario_id"] == "this"
        assert json.loads(row["extra"]) == {"metrics.call_results": {"scenario_id": "not this"}}

    def test_call_results_among_the_metrics_overwrite_nothing(self):
        metrics = {"call_results": 1, "metrics.call_results": 2, "metrics.metrics.call_results": 3}
        assert call_extra(metrics, {"x": 4}) == {
            "metrics.call_results": 2,
            "metrics.metrics.call_results": 3,
            "metrics.metrics.metrics.call_results": 1,
            "call_results": {"x": 4},
        }

    def test_payload_is_left_as_it_was(self):
        call = fetched_call("call", {"call_results": 1}, {"eval_outputs": {"config": {"output": 1}}})
        before = (dict(call.metrics.payload), json.dumps(call.listed.payload))
        calls_frame([bundle_of(call)], EXPORT)
        assert (call.metrics.payload, json.dumps(call.listed.payload)) == before


class TestEvals:
    @pytest.mark.parametrize(
        ("output", "output_type", "column", "value"),
        [
            ("Passed", "Pass/Fail", "output_text", "Passed"),
            ("Failed", "Pass/Fail", "output_text", "Failed"),
            (True, "Pass/Fail", "output_passed", True),
            (False, None, "output_passed", False),
            (0.994, "score", "output_score", 0.994),
            (0, "score", "output_score", 0.0),
            (100, "score", "output_score", 100.0),
            ("0.5", "score", "output_text", "0.5"),
            ("7", "choices", "output_text", "7"),
            ("", "text", "output_text", ""),
            (["neutral"], "choices", "output_json", '["neutral"]'),
            ([], "choices", "output_json", "[]"),
            ({"a": {"b": 1}}, "object", "output_json", '{"a":{"b":1}}'),
        ],
    )
    def test_output_goes_to_the_column_of_its_kind(self, output, output_type, column, value):
        row = eval_row({"output": output, "output_type": output_type})
        kinds = {name: row[name] for name in ("output_score", "output_text", "output_json") if row[name] is not None}
        assert row[column] == value
        assert kinds == ({} if column == "output_passed" else {column: value})
        assert row["extra"] is None

    @pytest.mark.parametrize(
        ("output", "output_type", "verdict"),
        [
            ("Passed", "Pass/Fail", True),
            ("Failed", "Pass/Fail", False),
            ("passed", "Pass/Fail", None),
            ("Skipped", "Pass/Fail", None),
            ("Passed", "choices", None),
            ("Failed", None, None),
            (True, "choices", True),
            (1, "Pass/Fail", None),
            (None, "Pass/Fail", None),
            (["Passed"], "Pass/Fail", None),
        ],
    )
    def test_verdict_is_a_bool_or_the_word_of_a_pass_fail_eval(self, output, output_type, verdict):
        assert eval_row({"output": output, "output_type": output_type})["output_passed"] is verdict

    @pytest.mark.parametrize("output", [None, {}, {"output": None}, {"name": None, "output": None, "status": None}])
    def test_eval_without_output_is_a_row_of_nulls(self, output):
        row = eval_row(output)
        assert {row[name] for name in row if name.startswith("output_") or name in {"reason", "status", "extra"}} <= {
            None,
            "{}",
        }
        assert (row["call_execution_id"], row["eval_config_id"]) == ("call", "config")

    @pytest.mark.parametrize(
        ("value", "column"),
        [("Passed", "output_text"), (0.5, "output_score"), (True, "output_passed"), ([1], "output_json")],
    )
    def test_output_that_is_no_object_is_taken_for_the_output_itself(self, value, column):
        row = eval_row(value)
        assert row[column] == ("[1]" if value == [1] else value)
        assert row["extra"] is None

    @pytest.mark.parametrize("status", ["skipped", "Failed", "error", "a new word"])
    def test_skipped_and_failed_evals_are_rows_with_their_own_words(self, status):
        row = eval_row(
            {"name": "Tone", "output": None, "output_type": "score", "reason": "no transcript", "status": status}
        )
        assert (row["status"], row["reason"], row["eval_name"], row["output_score"]) == (
            status,
            "no transcript",
            "Tone",
            None,
        )

    def test_eval_of_an_unknown_config_is_a_row(self):
        assert (
            eval_rows({"unknown-config": {"name": "Orphan", "output": "Passed", "output_type": "Pass/Fail"}})[0][
                "output_passed"
            ]
            is True
        )

    def test_fields_that_the_schema_does_not_know_and_misfits_are_kept(self):
        output = {
            "name": 7,
            "output": 2**53 + 1,
            "model": {"id": "x"},
            "call_execution_id": "other",
            "row_hash": "mine",
        }
        frame = evals_frame([bundle_of(fetched_call("call", {}, {"eval_outputs": {"config": output}}))], EXPORT)
        row = rows_of(frame, schema.EVALS)[0]
        assert json.loads(row["extra"]) == output
        assert (frame.misfits, row["call_execution_id"], row["output_score"]) == (2, "call", None)

    def test_row_says_which_execution_and_run_test_it_is_of(self):
        row = eval_row(True)
        assert (row["execution_id"], row["run_test_name"], row["execution_started_at"]) == (
            "execution",
            "Checkout",
            STARTED_AT,
        )
        assert (row["export_run_id"], row["exported_at"]) == (EXPORT.export_run_id, EXPORT.exported_at)

    def test_evals_of_a_call_whose_metrics_are_missing_are_rows_too(self):
        call = fetched_call("call", {}, {"eval_outputs": {"config": {"output": 1}}})
        bundle = bundle_of(dead_letters=(dead_letter(),))
        listed = type(bundle)(
            **{**{name: getattr(bundle, name) for name in bundle.__struct_fields__}, "listed": (call.listed,)}
        )
        assert len(evals_frame([listed], EXPORT).data) == 1

    def test_bundle_whose_calls_were_not_listed_has_no_evals(self):
        bundle = bundle_of()
        waiting = type(bundle)(**{**{name: getattr(bundle, name) for name in bundle.__struct_fields__}, "listed": None})
        assert len(evals_frame([waiting], EXPORT).data) == 0


class TestKeys:
    def test_a_call_in_two_bundles_is_refused(self):
        bundles = [bundle_of(fetched_call("same")), bundle_of(fetched_call("same"), of=execution("other"))]
        with pytest.raises(SchemaError, match="calls: two rows with the key"):
            calls_frame(bundles, EXPORT)

    def test_an_eval_in_two_bundles_is_refused(self):
        call = fetched_call("same", {}, {"eval_outputs": {"config": 1}})
        with pytest.raises(SchemaError, match="evals: two rows with the key"):
            evals_frame([bundle_of(call), bundle_of(call)], EXPORT)

    def test_an_execution_in_two_bundles_is_refused(self):
        with pytest.raises(SchemaError, match="executions: two rows with the key"):
            executions_of(execution(), execution())


class TestExecutions:
    def test_row_holds_what_the_exporter_adds(self):
        row = execution_row()
        assert (row["listed_calls"], row["exported_calls"], row["calls_digest"]) == (2, 1, "digest")
        assert (row["export_state"], row["verified_at"], row["deleted_at"]) == ("exported", EXPORT.exported_at, None)
        assert (row["run_test_name"], row["started_at"]) == ("Checkout", STARTED_AT)
        assert len(row["fingerprint"]) == 32

    def test_aggregates_lose_their_prefix_and_unknown_ones_are_kept_under_it(self):
        row = execution_row(metrics={"latency": {"percentiles": {"p50": 88, "p90": 1}}, "voice": {"mos": 4}})
        assert row["latency_percentiles_p50"] == 88.0
        assert json.loads(row["extra"]) == {"metrics": {"latency": {"percentiles": {"p90": 1}}, "voice": {"mos": 4}}}

    @pytest.mark.parametrize("status", ["paused", "", "\ud800"])
    def test_a_status_that_is_new_is_kept(self, status):
        row = rows_of(executions_of(execution(status=status)), schema.EXECUTIONS)[0]
        assert status in (row["status"], json.loads(row["extra"] or "{}").get("status"))

    def test_start_that_cannot_be_read_is_kept_and_is_null_in_every_table(self):
        of = execution(started_at="2026-03-01 09:00")
        call = fetched_call("call", {}, {"eval_outputs": {"config": 1}})
        assert json.loads(rows_of(executions_of(of), schema.EXECUTIONS)[0]["extra"]) == {
            "started_at": "2026-03-01 09:00"
        }
        assert rows_of(calls_frame([bundle_of(call, of=of)], EXPORT), schema.CALLS)[0]["execution_started_at"] is None
        assert rows_of(evals_frame([bundle_of(call, of=of)], EXPORT), schema.EVALS)[0]["execution_started_at"] is None


class TestErrors:
    def test_one_row_per_dead_letter(self):
        letters = (dead_letter("call-1", "cut body"), dead_letter("call-2"))
        rows = rows_of(errors_frame([bundle_of(dead_letters=letters), bundle_of()], EXPORT), schema.ERRORS)
        assert [(row["subject_id"], row["message"]) for row in rows] == [
            ("call-1", "cut body"),
            ("call-2", "no answer"),
        ]
        assert rows[0] == {
            "endpoint": letters[0].endpoint,
            "subject_id": "call-1",
            "execution_id": "execution",
            "run_test_name": "Checkout",
            "status": 500,
            "message": "cut body",
            "excerpt": "<html>",
            "tries": 6,
            "first_seen_at": EXPORT.exported_at,
            "last_seen_at": EXPORT.exported_at,
            "export_run_id": "run-1",
        }


class TestRaw:
    def test_raw_is_null_unless_asked_for(self):
        assert call_row({"x": 1})["raw"] is None
        assert execution_row()["raw"] is None

    def test_raw_is_the_whole_payload(self):
        export = ExportStamp(export_run_id="run-1", exported_at=EXPORT.exported_at, include_raw=True)
        call = fetched_call("call", {"x": [1, {"y": "\ud800"}], "call_results": None})
        listed = execution(odd={"a": 2**70})
        assert (
            json.loads(rows_of(calls_frame([bundle_of(call)], export), schema.CALLS)[0]["raw"]) == call.metrics.payload
        )
        assert json.loads(rows_of(executions_of(listed, export=export), schema.EXECUTIONS)[0]["raw"]) == listed.payload

    def test_raw_changes_no_row_hash(self):
        export = ExportStamp(export_run_id="run-2", exported_at=STARTED_AT, include_raw=True)
        with_raw = rows_of(calls_frame([bundle_of(fetched_call())], export), schema.CALLS)[0]
        assert with_raw["row_hash"] == call_row()["row_hash"]


def frames():
    call = fetched_call("call", {"duration_seconds": 88}, {"eval_outputs": {"config": {"output": 1}}})
    full, empty = bundle_of(call, dead_letters=(dead_letter(),)), bundle_of()
    return [
        ("executions full", schema.EXECUTIONS, executions_of(execution(metrics={"calls": {"total": 3}})).data),
        ("executions empty", schema.EXECUTIONS, executions_of().data),
        ("calls full", schema.CALLS, calls_frame([full], EXPORT).data),
        ("calls all null", schema.CALLS, calls_frame([bundle_of(fetched_call())], EXPORT).data),
        ("calls empty", schema.CALLS, calls_frame([], EXPORT).data),
        ("evals full", schema.EVALS, evals_frame([full], EXPORT).data),
        ("evals empty", schema.EVALS, evals_frame([empty], EXPORT).data),
        ("errors full", schema.ERRORS, errors_frame([full], EXPORT).data),
        ("errors empty", schema.ERRORS, errors_frame([empty], EXPORT).data),
        (
            "runs full",
            schema.RUNS_TABLE,
            frame_of(schema.RUNS_TABLE, [{"export_run_id": "run-1", "seconds": 1.5, "bytes": 7}]),
        ),
        ("runs empty", schema.RUNS_TABLE, frame_of(schema.RUNS_TABLE, [])),
    ]


@pytest.mark.parametrize(("table", "frame"), [case[1:] for case in frames()], ids=[case[0] for case in frames()])
class TestTypes:
    def test_frame_has_exactly_the_declared_columns_and_dtypes(self, table, frame):
        assert list(frame.columns) == list(table.names)
        assert list(frame.dtypes) == [pd.ArrowDtype(column.type) for column in table.columns]

    def test_rows_come_back_from_parquet_with_the_schema_to_the_letter(self, table, frame):
        rows = to_arrow(frame, table)
        rows.validate(full=True)
        read = through_parquet(rows)
        assert read.schema.equals(table.arrow_schema, check_metadata=True)
        assert read.to_pylist() == rows.to_pylist()
        pd.testing.assert_frame_equal(to_pandas(read), frame)

    def test_null_stays_null_and_never_becomes_nan(self, table, frame):
        for row in to_arrow(frame, table).to_pylist():
            assert all(value == value for value in row.values())  # noqa: PLR0124


def test_numbers_beyond_2_to_the_53_pass_through_a_frame_exactly():
    rows = pa.Table.from_pylist(
        [{"export_run_id": "a", "bytes": 2**53 + 1}, {"export_run_id": "b"}], schema.RUNS_TABLE.arrow_schema
    )
    assert to_arrow(to_pandas(rows), schema.RUNS_TABLE).equals(rows)


def test_frame_of_several_chunks_becomes_one():
    frame = frame_of(schema.RUNS_TABLE, [{"export_run_id": "a"}])
    joined = pd.concat([frame, frame_of(schema.RUNS_TABLE, [{"export_run_id": "b"}])], ignore_index=True)
    rows = to_arrow(joined, schema.RUNS_TABLE)
    assert rows["export_run_id"].to_pylist() == ["a", "b"]
    assert rows["export_run_id"].num_chunks == 1
