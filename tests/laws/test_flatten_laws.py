"""Nothing that the API sends is lost, doubled or invented, whatever it sends."""

import json
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.tables import coerce, schema
from etl.tables.digest import row_hash
from etl.tables.flatten import HeldRows, calls_frame, evals_frame, executions_frame, to_arrow
from tests.bundles import EXPORT, bundle_of, execution, fetched_call, through_parquet
from tests.laws.strategies import any_text, json_values, payloads

IDENTITY = ("call_execution_id", "execution_id", "status")
OWN_CALL_RESULTS = st.dictionaries(st.sampled_from(["call_results", "metrics.call_results"]), json_values, max_size=2)

call_metrics = st.builds(
    lambda metrics, odd: metrics | odd, payloads(schema.CALLS, without=(*IDENTITY, "call_results")), OWN_CALL_RESULTS
)
free_block = st.fixed_dictionaries(
    {"bot_wpm": st.integers(0, 3), "user_wpm": st.none() | st.just("fast") | st.integers(0, 3)}
)
both_spellings = st.fixed_dictionaries(
    {"latency": st.fixed_dictionaries({"customer_latency_metrics": free_block, "system_metrics": free_block})}
)
listings = st.builds(
    lambda others, known: others | known,
    st.dictionaries(any_text, json_values, max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "scenario_id": json_values,
            "scenario_name": json_values,
            "duration_seconds": json_values,
            "status": json_values,
            "eval_outputs": json_values | st.dictionaries(any_text, payloads(schema.EVALS) | json_values, max_size=3),
        },
    ),
)


def rows_of(frame, table):
    return to_arrow(frame.data, table).to_pylist()


def exact(value):
    """JSON text by which equal values are known: unlike ``==``, it tells true from 1."""
    return json.dumps(value, sort_keys=True)


def says(column, held, value):
    """Whether the column's value says what the payload's value said."""
    if held is None or value is None:
        return False
    if column.is_json:
        return exact(json.loads(held)) == exact(value)
    if isinstance(held, datetime):
        return isinstance(value, str) and datetime.fromisoformat(value) == held
    if isinstance(held, bool | str) or isinstance(value, bool | list | dict):
        return type(held) is type(value) and held == value
    try:
        return Fraction(value) == Fraction(held) or Decimal(value) == Decimal(repr(held))
    except (ValueError, ArithmeticError):
        return False


def fits(column, value):
    if column.name == "output_score" and isinstance(value, str):
        return False
    return coerce.coercer(column)(value) is not coerce.MISFIT


def misfits_found(payload, row, table, extra, path=()):
    """Prove that each value of the payload is either in a column or in ``extra``, and count the misfits."""
    count = 0
    assert set(extra) <= set(payload)
    for name, value in payload.items():
        here = (*path, name)
        columns = [column for column in table.columns if here in column.paths]
        leads_on = any(fed[: len(here)] == here for column in table.columns for fed in column.paths)
        if columns:
            if value is None:
                assert name not in extra
            elif name in extra:
                assert exact(extra[name]) == exact(value)
                fitting = [column for column in columns if fits(column, value)]
                assert not fitting or row[fitting[0].name] is not None  # taken by the other spelling
                assert not any(says(column, row[column.name], value) for column in fitting)
                count += 1
            else:
                assert any(says(column, row[column.name], value) for column in columns)
        elif leads_on and isinstance(value, dict):
            count += misfits_found(value, row, table, extra.get(name, {}), here)
        elif leads_on and value is None:
            assert name not in extra
        else:
            assert exact(extra[name]) == exact(value)
            count += leads_on
    return count


def assert_nothing_is_invented(payload, row, table, given=()):
    """Each column that a payload feeds holds what one of its paths said."""
    for column in table.columns:
        if column.source and row[column.name] is not None and column.name not in given:
            assert any(says(column, row[column.name], _at(payload, path)) for path in column.paths)


def _at(payload: Any, path):
    for step in path:
        payload = payload.get(step) if isinstance(payload, dict) else None
    return payload


@settings(deadline=None, max_examples=150)
@given(metrics=call_metrics, listed=listings)
def test_every_value_of_a_call_is_in_its_column_or_in_extra(metrics, listed):
    call = fetched_call("call", metrics, listed)
    frame = calls_frame([bundle_of(call)], EXPORT)
    row = rows_of(frame, schema.CALLS)[0]
    sent = dict(call.metrics.payload)
    repeated = {name for name in IDENTITY if name in call.listed.payload}
    only_listed = {
        name: value
        for name, value in call.listed.payload.items()
        if not (name in {*repeated, "duration_seconds"} and value == sent.get(name))
    }
    outputs = only_listed.pop("eval_outputs", None)
    if isinstance(outputs, dict):
        outputs = {
            config_id: output for config_id, output in outputs.items() if not fits(schema.EVALS.columns[1], config_id)
        }
    if outputs is not None and outputs != {}:
        only_listed["eval_outputs"] = outputs
    extra = json.loads(row["extra"] or "{}")
    if "call_results" in sent:
        own = sent.pop("call_results")
        name = next(name for name in extra if name.endswith("metrics.call_results") and name not in sent)
        sent[name] = own
    sent["call_results"] = only_listed
    assert misfits_found(sent, row, schema.CALLS, extra) == frame.misfits
    assert_nothing_is_invented(sent, row, schema.CALLS)


@settings(deadline=None, max_examples=100)
@given(payload=payloads(schema.EXECUTIONS, without=("execution_id", "status")))
def test_every_value_of_an_execution_is_in_its_column_or_in_extra(payload):
    listed = execution(**{"started_at": None} | payload)
    frame = frame_of_executions(listed)
    row = rows_of(frame, schema.EXECUTIONS)[0]
    assert misfits_found(listed.payload, row, schema.EXECUTIONS, json.loads(row["extra"] or "{}")) == frame.misfits
    assert_nothing_is_invented(listed.payload, row, schema.EXECUTIONS)


@settings(deadline=None, max_examples=100)
@given(outputs=st.dictionaries(st.text(max_size=3), payloads(schema.EVALS) | json_values, max_size=3))
def test_every_value_of_an_eval_is_in_its_column_or_in_extra(outputs):
    frame = evals_frame([bundle_of(fetched_call("call", {}, {"eval_outputs": outputs}))], EXPORT)
    rows = rows_of(frame, schema.EVALS)
    assert [row["eval_config_id"] for row in rows] == list(outputs)
    misfits = 0
    for row, sent in zip(rows, outputs.values(), strict=True):
        output = sent if isinstance(sent, dict) else {"output": sent}
        misfits += misfits_found(output, row, schema.EVALS, json.loads(row["extra"] or "{}"))
        assert_nothing_is_invented(output, row, schema.EVALS, given=("output_passed",))
    assert misfits == frame.misfits


@settings(deadline=None, max_examples=60)
@given(metrics=call_metrics, listed=listings, payload=payloads(schema.EXECUTIONS, without=("execution_id", "status")))
def test_every_frame_comes_back_from_parquet_and_its_row_hashes_can_be_computed_from_it(metrics, listed, payload):
    bundle = bundle_of(fetched_call("call", metrics, listed), of=execution(**{"started_at": None} | payload))
    for table, frame in (
        (schema.CALLS, calls_frame([bundle], EXPORT)),
        (schema.EVALS, evals_frame([bundle], EXPORT)),
        (schema.EXECUTIONS, frame_of_executions(bundle.execution)),
    ):
        rows = to_arrow(frame.data, table)
        read = through_parquet(rows)
        assert read.schema.equals(table.arrow_schema, check_metadata=True)
        assert read.equals(rows)
        assert_row_hashes_hold(read, table)


def assert_row_hashes_hold(rows: pa.Table, table):
    hashed = [name for name in table.names if name not in {"raw", "row_hash", "export_run_id", "exported_at"}]
    for row in rows.to_pylist():
        assert row.get("row_hash") in (None, row_hash(hashed, [row[name] for name in hashed]))
        assert (row.get("row_hash") is None) is (table is schema.EXECUTIONS)


@settings(deadline=None, max_examples=60)
@given(metrics=call_metrics | both_spellings, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_a_payloads_fields_changes_no_column(metrics, shuffle):
    def shuffled(value):
        if not isinstance(value, dict):
            return value
        return {name: shuffled(value[name]) for name in shuffle.sample(list(value), len(value))}

    columns = [column.name for column in schema.CALLS.columns if not column.is_json and column.name != "row_hash"]
    one, other = (
        rows_of(calls_frame([bundle_of(fetched_call("call", sent))], EXPORT), schema.CALLS)[0]
        for sent in (metrics, shuffled(metrics))
    )
    assert [one[name] for name in columns] == [other[name] for name in columns]
    assert exact(json.loads(one["extra"] or "{}")) == exact(json.loads(other["extra"] or "{}"))


def frame_of_executions(listed):
    key = listed.execution_id
    held = HeldRows(listed_calls=1, exported_calls=1, calls_digest="digest")
    return executions_frame([bundle_of(of=listed)], {key: held}, {key: "exported"}, {key: None}, EXPORT)
