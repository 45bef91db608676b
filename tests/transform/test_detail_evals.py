"""The evals of recorded calls, each in the shape of the list and in that of the detail."""

from typing import Any

import pytest

from etl.model.records import ListedCall
from etl.transform.detail import vouches_for_evals
from etl.transform.flatten import eval_row
from tests.transform.test_detail import SAMPLES, recorded

DELETED_CONFIG = "9e722b80-2264-44a3-9fee-067c22e1811f"


def pairs() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The evals of each call in the list, or in its own entry, and in the detail."""
    found = {}
    for case in ("detail_voice", "detail_chat", "detail_evals", "detail_numeric"):
        entries = [
            recorded(name)["result"]
            for name in SAMPLES
            if name.startswith((f"runs_{case}_call_", "runs_numeric_call_"))
        ]
        if f"runs_{case}" in SAMPLES and isinstance(recorded(f"runs_{case}")["result"], dict):
            entries += recorded(f"runs_{case}")["result"]["call_results"]["results"]
        listed = {each["call_execution_id"]: each["eval_outputs"] for each in entries}
        for call in recorded(case)["results"]:
            if call["id"] in listed:
                found[f"{case}:{call['id'][:8]}"] = listed[call["id"]], call["eval_outputs"]
    return found


PAIRS = pairs()


def is_vouched(listed: dict[str, Any], shown: Any) -> bool:
    rows = [eval_row(output, {"eval_config_id": key})[0] for key, output in reversed(listed.items())]
    return vouches_for_evals(ListedCall(call_execution_id="call", payload={"eval_outputs": shown}), rows)


def test_recorded_pairs_are_many():
    assert len(PAIRS) == 4 + 3 + 5 + 3


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_unchanged_evals_are_vouched_for_unless_a_configuration_was_deleted(name):
    listed, shown = PAIRS[name]
    assert is_vouched(listed, shown) == (DELETED_CONFIG not in listed)
    listed.pop(DELETED_CONFIG, None)
    assert is_vouched(listed, shown)


LISTED, SHOWN = next(pair for name, pair in PAIRS.items() if name.startswith("detail_numeric"))
FIRST = min(SHOWN)


@pytest.mark.parametrize(
    "change", [{"value": 0.25}, {"value": "0.734"}, {"value": None}, {"reason": "r"}, {"name": "n"}, {"type": "t"}]
)
def test_change_that_the_detail_shows_is_seen(change):
    assert not is_vouched(LISTED, SHOWN | {FIRST: SHOWN[FIRST] | change})


@pytest.mark.parametrize("shown", [{}, None, ["x"], {**SHOWN, "new": {}}, {FIRST: SHOWN[FIRST]}, {**SHOWN, FIRST: "x"}])
def test_other_evals_are_seen(shown):
    assert not is_vouched(LISTED, shown)
