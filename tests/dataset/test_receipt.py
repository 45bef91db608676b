"""What a run leaves of its changes: every file as it lies there, and how many executions of each kind."""

import json

from etl.dataset import receipt as module
from etl.dataset.receipt import Receipt
from tests.bundles import a_bundle
from tests.datasets import export_to, part


def told(dataset):
    return json.loads(json.dumps(dataset.receipt.as_json()))


def test_file_that_is_set_aside_is_removed_until_it_is_written_again(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    (tmp_path / part("calls")).write_bytes(b"garbage")
    receipt = dataset.receipt
    dataset.set_aside(part("calls"))
    assert (told(dataset)["removed"], part("calls") in receipt.written) == ([part("calls")], False)
    receipt.note_written(part("calls"), b"", rows=0)
    assert told(dataset)["removed"] == []


def test_files_beyond_a_bound_are_counted(monkeypatch):
    monkeypatch.setattr(module, "_MOST_FILES", 3)
    receipt = Receipt()
    for path in ("a", "c", "e"):
        receipt.note_written(path, b"", rows=0)
    for path in ("b", "d"):
        receipt.note_removed(path)
    document = receipt.as_json()
    assert [each["path"] for each in document["written"]] == ["a", "c"]
    assert (document["removed"], document["not_listed"]) == (["b"], 2)


def test_each_execution_is_inserted_replaced_or_verified_and_what_else_happened_to_it():
    receipt = Receipt()
    receipt.note("checkout", "verified", {"new", "old", "same"})
    receipt.note("checkout", "replaced", {"new", "old"})
    receipt.note("checkout", "inserted", {"new"})
    receipt.note("checkout", "emptied", {"old"})
    receipt.note("checkout", "marked", set())
    receipt.note("booking", "marked", {"e9"})
    none = dict.fromkeys(("inserted", "replaced", "marked", "emptied", "verified"), 0)
    assert receipt.as_json()["executions"] == {
        "booking": none | {"marked": 1},
        "checkout": none | {"inserted": 1, "replaced": 1, "emptied": 1, "verified": 1},
    }
