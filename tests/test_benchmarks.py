"""What the benchmarks measure against, and where they write: the load server in C, and the places in a document."""

import json
import re
import shutil
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

import etl
from benchmarks.bench_world import World, call_id, execution_id
from benchmarks.document import check_places, publish
from benchmarks.measure import KEYS, c_server, run, table
from etl.settings import Settings

METRICS, RUNS = "/sdk/api/v1/simulation/metrics/", "/sdk/api/v1/simulation/runs/"
WORLD = World(executions=5, calls=3, evals=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    with c_server(tmp_path_factory.mktemp("server"), executions=5, calls=3, evals=3) as url:
        yield url


def get(url: str) -> bytes:
    with urlopen(url) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize(
    "target",
    [
        f"{METRICS}?run_test_name=Load&page=1&limit=1024",
        f"{METRICS}?run_test_name=Load&page=2&limit=2",
        f"{RUNS}?execution_id={execution_id(4)}&page=1&limit=1024",
        f"{RUNS}?execution_id={execution_id(4)}&page=2&limit=2",
    ],
)
def test_lists_are_those_of_the_other_server(server, target):
    assert json.loads(get(server + target)) == json.loads(WORLD.body(target))


def test_floats_have_two_decimals(server):
    body = get(f"{server}{METRICS}?call_execution_id={call_id(4, 2)}").decode()
    assert {len(decimals) for decimals in re.findall(r"\.(\d+)", body)} == {2}


def test_there_is_no_detail_of_an_execution(server):
    with pytest.raises(HTTPError, match="404"):
        get(f"{server}/simulate/test-executions/{execution_id(4)}/?page=1&limit=10")


async def test_export_has_every_row(server, tmp_path):
    keys = {"api_key": KEYS["FI_API_KEY"], "secret_key": KEYS["FI_SECRET_KEY"]}
    values = {"run_tests": ["Load"], "api": {"base_url": server}, "destination": {"path": str(tmp_path / "data")}}
    values["export"] = {"settle_by": "refetch"}
    summary = await etl.export(Settings.model_validate(values | keys))
    assert (summary.exit_code, summary.rows) == (0, {"executions": 5, "calls": 15, "evals": 45})
    calls = etl.read_table(tmp_path / "data", "calls")
    assert {*calls["call_execution_id"]} == {call_id(number, call) for number in range(5) for call in range(3)}
    assert {*calls["execution_id"]} == {execution_id(number) for number in range(5)}


def test_peak_is_that_of_the_process_alone():
    memory = bytearray(b"1") * 200_000_000
    sample = run([sys.executable, "-c", "print('done')"])
    assert (sample.output, len(memory)) == ("done\n", 200_000_000)
    assert 0 < sample.peak_mb < 60


def test_process_that_fails_ends_the_measurement():
    with pytest.raises(SystemExit, match="exit 1\nno such day"):
        run([sys.executable, "-c", "raise SystemExit('no such day')"])


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "figures.md"
    path.write_text(
        "# Figures\n\n<!-- start-up -->\nold\n<!-- end of start-up -->\n\n<!-- year -->\n<!-- end of year -->\n"
    )
    return path


def test_tables_are_written_between_their_markers(document):
    publish(document, {"year": table(["", "s"], [["quiet night", 4]])})
    assert document.read_text() == (
        "# Figures\n\n<!-- start-up -->\nold\n<!-- end of start-up -->\n\n"
        "<!-- year -->\n|  | s |\n| --- | ---: |\n| quiet night | 4 |\n<!-- end of year -->\n"
    )


@pytest.mark.parametrize(
    ("names", "complaint"),
    [({"start-up", "year", "bucket"}, "no place for bucket"), ({"start-up"}, "nothing measures year")],
)
def test_document_and_measurements_have_the_same_tables(document, names, complaint):
    check_places(document, {"start-up", "year"})
    with pytest.raises(SystemExit, match=complaint):
        check_places(document, names)
