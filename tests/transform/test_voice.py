"""A voice call's row, made of the two lists that show it whole, is the row of its own metrics."""

from typing import Any

import msgspec
import pytest

from etl.errors import UnexpectedAnswerError
from etl.extract.answers import decode
from etl.extract.endpoints import Slice, list_call_details, list_voice_calls
from etl.model import schema
from etl.model.records import FROM_DETAIL, FROM_LISTS, CallMetrics, FetchedCall, ListedCall
from etl.transform.detail import FIELDS_IN, SAME, SHOWN_COLUMNS, STAGES, differences, metrics_in
from etl.transform.flatten import call_row, eval_outputs
from etl.transform.voice import FIELDS, IN_BOTH, differing, joined, listed_call
from tests.transform.test_detail import recorded

EXECUTION_ID = "a8621017-64cb-48ce-a293-486cf562de5b"
PERSONAL = ("phone_number", "customer_number", "transcripts", "provider_call_data", "recording_url", "call_metadata")
Both = dict[str, tuple[ListedCall, ListedCall]]
OF_VOICE = [name for name, path in SAME.items() if path[0] != "chat_metrics"]


def lists(case: str = "voice_list") -> Both:
    """The calls of a recorded execution, as the exporter decodes its two lists."""
    execution_id = recorded(f"{case}_detail")["results"][0]["test_execution_id"]
    details = list_call_details(execution_id, Slice(1, 100)).decode(recorded(f"{case}_detail")).results
    calls = list_voice_calls(execution_id, Slice(1, 100)).decode(recorded(case)).results
    by_id = {call.call_execution_id: call for call in calls}
    return {each.call_execution_id: (each, by_id[each.call_execution_id]) for each in details}


def own_metrics() -> list[FetchedCall]:
    """Each of these calls by its own metrics, and its entry in the list of calls."""
    entries = {
        each["call_execution_id"]: each for each in recorded("voice_list_runs")["result"]["call_results"]["results"]
    }
    found = []
    for number in range(len(entries)):
        payload = recorded(f"voice_list_metrics_{number}")["result"]
        key = payload["call_execution_id"]
        metrics = CallMetrics(
            call_execution_id=key, execution_id=payload["execution_id"], status=payload["status"], payload=payload
        )
        listed = ListedCall(call_execution_id=key, payload=entries[key])
        found.append(FetchedCall(listed=listed, metrics=metrics))
    return found


def odd_columns(both: Both) -> list[str]:
    """In which cells the rows of the lists are others than those of the calls' own metrics and entries."""
    odd: list[str] = []
    for call in own_metrics():
        key = call.metrics.call_execution_id
        whole = joined(*both[key])
        metrics, listed = metrics_in(whole), listed_call(*both[key])
        if metrics is None or metrics.made_from != FROM_LISTS:
            odd.append("it is not whole")
            continue
        odd += differing(call, metrics)
        made = FetchedCall(listed=listed, metrics=metrics)
        if (
            call_row(made, run_test_name="Voice", started_at=None)[0][4:]
            != call_row(FetchedCall(listed=call.listed, metrics=metrics), run_test_name="Voice", started_at=None)[0][4:]
        ):
            odd.append("scenario")
        if eval_outputs(listed) != eval_outputs(call.listed):
            odd.append("evals")
        stored = call_row(call, run_test_name="Voice", started_at=None)[0]
        odd += differences(listed, whole, stored, run_test_name="Voice", started_at=None) - SHOWN_COLUMNS
    return odd


def test_rows_of_lists_are_those_of_the_calls_own_metrics() -> None:
    assert len(own_metrics()) == 5
    assert odd_columns(lists()) == []


@pytest.mark.parametrize("name", [*OF_VOICE, *STAGES])
def test_each_field_of_the_table_has_its_place(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With the value of another field in its place, some row is another one."""
    another = "response_time_ms" if name != "response_time_ms" else "cost_cents"
    above = next(above for above, fields in FIELDS_IN.items() if name in fields)
    own_names = dict(FIELDS_IN[above])
    own_name = own_names.pop(name)
    monkeypatch.setitem(FIELDS_IN, above, own_names | {another: own_name})
    assert odd_columns(lists()) != []


@pytest.mark.parametrize("name", [*IN_BOTH, "eval_outputs", *STAGES])
def test_each_field_of_voice_calls_counts(name: str) -> None:
    """Where one has another value, its call is not made of lists, or its row shows it."""
    decoded = lists()
    changed = {
        key: (detail, msgspec.structs.replace(call, payload=call.payload | {name: {"another": 1}}))
        for key, (detail, call) in decoded.items()
    }
    assert odd_columns(changed) != []


def test_call_about_which_the_lists_do_not_agree_keeps_its_own_request() -> None:
    detail, call = next(iter(lists().values()))
    changed = msgspec.structs.replace(call, payload=call.payload | {"cost_cents": 9_999})
    assert joined(detail, changed) is detail
    metrics = metrics_in(detail)
    assert metrics is not None
    assert metrics.made_from == FROM_DETAIL


@pytest.mark.parametrize("name", ["total_tokens", "input_tokens", "output_tokens", "avg_latency_ms", "csat_score"])
def test_call_with_a_value_of_chats_keeps_its_own_request(name: str) -> None:
    detail, call = next(iter(lists().values()))
    metrics = metrics_in(joined(msgspec.structs.replace(detail, payload=detail.payload | {name: 1}), call))
    assert metrics is not None
    assert metrics.made_from == FROM_DETAIL


def test_evals_are_those_that_are_stored_also_where_the_server_cannot_sum_them_up() -> None:
    both = lists("voice_list_numeric_evals")
    kinds = {
        output.get("output_type") for pair in both.values() for output in eval_outputs(listed_call(*pair)).values()
    }
    assert "numeric" in kinds
    assert recorded("voice_list_numeric_evals_runs")["status"] is False


@pytest.mark.parametrize("request_of", [list_call_details, list_voice_calls])
def test_no_error_quotes_an_answer_with_personal_data(request_of: Any) -> None:
    request = request_of(EXECUTION_ID, Slice(1, 10))
    with pytest.raises(UnexpectedAnswerError) as caught:
        decode(request, b'{"results": [{"phone_number": "+15550100"}]}')
    assert "+15550100" not in f"{caught.value}{caught.value.excerpt}"


def test_nothing_personal_is_decoded() -> None:
    assert set(PERSONAL) & recorded("voice_list")["results"][0].keys()
    for _, call in lists().values():
        assert {*call.payload} == {*FIELDS, *schema.OF_VOICE_LIST}
        assert not {*FIELDS} & {
            *PERSONAL,
            "call_summary",
            "stereo_recording_url",
            "analysis_data",
            "service_provider_call_id",
        }
