"""Nothing that the API sends is lost, doubled or invented, whatever it sends."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model import schema
from etl.transform.detail import SHOWN
from etl.transform.row_hash import hash_rows
from tests.bundles import (
    EXPORT,
    bundle_of,
    calls_frame,
    evals_frame,
    execution,
    fetched_call,
    frame_of_executions,
    through_parquet,
)
from tests.datasets import hash_of
from tests.strategies import any_text, json_values, payloads
from tests.support import examples
from tests.transform.exactness import Places, as_eval, call_as_sent, read

IDENTITY = ("call_execution_id", "execution_id", "status")
OWN_NAMES = st.dictionaries(st.sampled_from(["call_results", "detail"]), json_values, max_size=2)
shown_fields = st.fixed_dictionaries({}, optional=dict.fromkeys(SHOWN, json_values))

call_metrics = st.builds(
    lambda metrics, odd: metrics | odd, payloads(schema.CALLS, without=(*IDENTITY, "call_results", "detail")), OWN_NAMES
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


def exact(value):
    """JSON text by which equal values are known: unlike ``==``, it tells true from 1."""
    return json.dumps(value, sort_keys=True)


def parsed(payload):
    """The payload as it comes out of the text that ``sent`` reads."""
    return parse_json(json.dumps(payload).encode())


def sent(payload):
    return read(json.dumps(payload))


@settings(max_examples=examples(150))
@given(metrics=call_metrics, listed=listings, shown=shown_fields)
def test_every_value_of_a_call_is_in_its_column_or_in_extra(metrics, listed, shown):
    call = fetched_call("call", parsed(metrics), parsed(listed), shown=parsed(shown))
    frame = calls_frame([bundle_of(call)], EXPORT)
    row = frame.rows.to_pylist()[0]
    plain = fetched_call()
    own, listing = plain.metrics.payload | sent(metrics), plain.listed.payload | sent(listed)
    payload, unplaced = call_as_sent(own, listing, row, sent(shown))
    assert Places(schema.CALLS).assert_holds(row, payload) + unplaced == frame.misfits
    if not isinstance(listed.get("eval_outputs"), dict):
        assert len(evals_frame([bundle_of(call)], EXPORT).rows) == 0


@settings(max_examples=examples(100))
@given(payload=payloads(schema.EXECUTIONS, without=("execution_id", "status")))
def test_every_value_of_an_execution_is_in_its_column_or_in_extra(payload):
    frame = frame_of_executions(execution(**parsed({"started_at": None} | payload)))
    row = frame.rows.to_pylist()[0]
    assert (
        Places(schema.EXECUTIONS).assert_holds(row, execution().payload | sent({"started_at": None} | payload))
        == frame.misfits
    )


@settings(max_examples=examples(100))
@given(outputs=st.dictionaries(st.text(max_size=3), payloads(schema.EVALS) | json_values, max_size=3))
def test_every_value_of_an_eval_is_in_its_column_or_in_extra(outputs):
    frame = evals_frame([bundle_of(fetched_call("call", {}, {"eval_outputs": parsed(outputs)}))], EXPORT)
    rows = frame.rows.to_pylist()
    assert [row["eval_config_id"] for row in rows] == list(outputs)
    places = Places(schema.EVALS)
    misfits = sum(
        places.assert_holds(row, as_eval(output), given=("output_passed",))
        for row, output in zip(rows, sent(outputs).values(), strict=True)
    )
    assert misfits == frame.misfits


@settings(max_examples=examples(120))
@given(metrics=call_metrics, listed=listings, payload=payloads(schema.EXECUTIONS, without=("execution_id", "status")))
def test_every_frame_comes_back_from_parquet_and_hashes_of_its_rows_tell_what_they_say(metrics, listed, payload):
    bundle = bundle_of(fetched_call("call", metrics, listed), of=execution(**{"started_at": None} | payload))
    for table, frame in (
        (schema.CALLS, calls_frame([bundle], EXPORT)),
        (schema.EVALS, evals_frame([bundle], EXPORT)),
        (schema.EXECUTIONS, frame_of_executions(bundle.execution)),
    ):
        read = through_parquet(frame.rows)
        assert read.schema.equals(table.arrow_schema, check_metadata=True)
        assert read.equals(frame.rows)
        if table in schema.OF_CALLS:
            assert hash_rows(table, read) == [hash_of(table.name, row) for row in read.to_pylist()]


@settings(max_examples=examples(120))
@given(metrics=call_metrics | both_spellings, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_a_payloads_fields_changes_no_column(metrics, shuffle):
    def shuffled(value):
        if not isinstance(value, dict):
            return value
        return {name: shuffled(value[name]) for name in shuffle.sample(list(value), len(value))}

    columns = [column.name for column in schema.CALLS.columns if not column.is_json]
    one, other = (
        calls_frame([bundle_of(fetched_call("call", sent))], EXPORT).rows.to_pylist()[0]
        for sent in (metrics, shuffled(metrics))
    )
    assert [one[name] for name in columns] == [other[name] for name in columns]
    assert exact(json.loads(one["extra"] or "{}")) == exact(json.loads(other["extra"] or "{}"))
