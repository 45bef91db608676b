"""Whatever a server sends: each value is exactly in its column, or null there and verbatim in ``extra``, or refused.

Bodies go the way that real ones go: bytes, decoded, flattened, written as Parquet, read back. What must have arrived is
read from the same bytes by ``tests/transform/exactness.py``, which shares no code with the exporter.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etl import read_table
from etl.extract import answers, endpoints
from etl.extract.parse import parse_json
from etl.model import schema
from etl.model.records import CallMetrics, Execution, FetchedCall, ListedCall
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from etl.transform.frames import Frame
from tests.bundles import EXPORT, bundle_of, calls_frame, evals_frame, frame_of_executions, through_parquet
from tests.support import IS_FULL, settings_for
from tests.transform.exactness import Places, read
from tests.worlds import settled_world

# What is sent, and the types of column that hold it. Every other one is null, and extra has it.
HOSTILE: dict[str, str] = {
    "null": "",
    "true": "bool",
    "false": "bool",
    "0": "int double",
    "-0": "int double",
    "-0.0": "int double",
    "88.0": "int double",
    "2.5": "double",
    "1E5": "int double",
    "9007199254740993": "int",
    "9007199254740993.0": "int",
    "9223372036854775807": "int",
    "9223372036854775808": "double",
    "-9223372036854775808": "int double",
    "18446744073709551616": "double",
    "18446744073709551617": "",
    "3.602879701896397e+16": "int double",
    "2.00000000000000000001": "double",
    "0.1000000000000000055511151231257827": "double",
    "1.7976931348623157e308": "double",
    "5e-324": "double",
    "1.2345e-320": "",
    "1e-400": "",
    "1e400": "",
    "-1e99999999999999999999": "",
    "NaN": "",
    "Infinity": "",
    "-Infinity": "",
    "9" * 400: "",
    "9" * 5000: "",
    f"0.{'3' * 5000}": "",
    '""': "string",
    '"1500"': "int double string",
    '"2.5"': "double string",
    '"9007199254740993"': "int string",
    '"1e400"': "string",
    '"NaN"': "string",
    '" 7"': "string",
    '"true"': "string",
    '"=SUM(A1)"': "string",
    '"\\ud83d\\ude00"': "string",
    '"a\\u0000b"': "string",
    '"\\ud800"': "",
    '{"a": "\\udfff", "b": 1e400}': "json",
    f'"{"x" * 1_000_000}"': "string",
    '"2026-03-01T09:00:01.123456Z"': "string timestamp",
    '"2026-03-01T09:00:01.123456000+05:30"': "string timestamp",
    '"2026-03-01T09:00:01.123456789Z"': "string",
    '"2026-03-01T09:00:01"': "string",
    '"2026-03-01T09:00:60Z"': "string",
    '"2026-03-01T09:00:00+24:00"': "string",
    '"0000-00-00T00:00:00Z"': "string",
    '"9999-12-31T23:59:59.999999Z"': "string timestamp",
    '"9999-12-31T23:59:59-01:00"': "string",
    '"10000-01-01T00:00:00Z"': "string",
    "1772355601": "int double",
    "1772355601.5": "double",
    "{}": "json",
    "[]": "json",
    '[1, [null, {"b": 2.50}]]': "json",
    '{"a": {"value": 9007199254740993.0}}': "json",
    f"{'[' * 80}{']' * 80}": "json",
    f"[{','.join(['0.1'] * 10_000)}]": "json",
}


IN_CALLS, IN_EVALS, IN_EXECUTIONS = (Places(table) for table in (schema.CALLS, schema.EVALS, schema.EXECUTIONS))

TYPES = {
    schema.INT: "int",
    schema.FLOAT: "double",
    schema.STRING: "string",
    schema.BOOL: "bool",
    schema.TIMESTAMP: "timestamp",
}
IDENTITY = {"call_execution_id", "execution_id", "status"}


# Every hostile value in every place


def at(path: tuple[str, ...], text: str) -> str:
    """An object that has the value at the path, without its braces."""
    for name in reversed(path[1:]):
        text = f'{{"{name}": {text}}}'
    return f'"{path[0]}": {text}'


def a_call(key: str, path: tuple[str, ...], text: str) -> FetchedCall:
    block, value = path[0], at(path[1:], text) if len(path) > 1 else ""
    return FetchedCall(
        listed=decode_listed(key, value if block == "call_results" else None),
        metrics=decode_metrics(key, None if block in ("call_results", "detail") else at(path, text)),
        shown=parse_json(f"{{{value}}}".encode()) if block == "detail" else {},
    )


def decode_metrics(key: str, fields: str | None) -> CallMetrics:
    request = endpoints.get_call_metrics(key, "execution")
    identity = f'"call_execution_id": "{key}", "execution_id": "execution", "status": "failed"'
    inner = ", ".join(filter(None, (identity, fields)))
    return answers.decode(request, f'{{"status": true, "result": {{{inner}}}}}'.encode())


def decode_listed(key: str, fields: str | None) -> ListedCall:
    request = endpoints.list_calls("execution", endpoints.Slice(1, 1))
    no_evals = None if "eval_outputs" in (fields or "") else '"eval_outputs": {}'
    row = ", ".join(filter(None, (f'"call_execution_id": "{key}"', no_evals, fields)))
    page = f'{{"total_pages": 1, "current_page": 1, "count": 1, "results": [{{{row}}}]}}'
    return answers.decode(request, f'{{"status": true, "result": {{"call_results": {page}}}}}'.encode()).results[0]


def decode_execution(key: str, fields: str) -> Execution:
    inner = f'"execution_id": "{key}", "status": "completed", {fields}'
    return answers.decode(endpoints.get_execution(key), f'{{"status": true, "result": {{{inner}}}}}'.encode())


def calls_of(cases: list[tuple[str, tuple[str, ...], str]]) -> Frame:
    return calls_frame([bundle_of(*(a_call(*case) for case in cases))], EXPORT)


def evals_of(cases: list[tuple[str, tuple[str, ...], str]]) -> Frame:
    outputs = ",".join(f'"{key}": {{{at(path, text)}}}' for key, path, text in cases)
    listed = decode_listed("call", f'"eval_outputs": {{{outputs}}}')
    return evals_frame([bundle_of(FetchedCall(listed=listed, metrics=decode_metrics("call", None)))], EXPORT)


def executions_of(cases: list[tuple[str, tuple[str, ...], str]]) -> Frame:
    return frame_of_executions(*(decode_execution(*_fields(case)) for case in cases))


def _fields(case: tuple[str, tuple[str, ...], str]) -> tuple[str, str]:
    key, path, text = case
    return key, at(path, text)


FRAMES: dict[str, tuple[Places, Callable[[list[tuple[str, tuple[str, ...], str]]], Frame]]] = {
    "calls": (IN_CALLS, calls_of),
    "evals": (IN_EVALS, evals_of),
    "executions": (IN_EXECUTIONS, executions_of),
}


@pytest.mark.parametrize("table", FRAMES)
def test_every_column_holds_of_every_hostile_value_exactly_what_its_type_holds(table: str) -> None:
    places, frame_of = FRAMES[table]
    paths = [path for path in places.columns if table == "evals" or path[0] not in IDENTITY]
    cases = [(f"case-{number}", path, text) for number, (path, text) in enumerate(product(places, paths))]
    frame = frame_of(cases)
    rows = written_and_read(frame, places.table)
    misfits = 0
    for (_, path, text), row in zip(cases, rows, strict=True):
        columns = places.columns[path]
        value = read(text.encode())
        holding = {column.name for column in columns if row[column.name] is not None}
        assert holding == {column.name for column in columns if is_held(column, text)}, (path, text[:80])
        sent = read(f"{{{at(path, text)}}}".encode())
        misfits += places.assert_holds(identity(row, places) | row, identity(row, places) | sent)
        assert (value is None or bool(holding)) is (row["extra"] is None), (path, text[:80])
    assert misfits == frame.misfits


def is_held(column: schema.Column, text: str) -> bool:
    if column.name == "output_score" and text.startswith('"'):
        return False  # text, and it has a column of its own
    return ("json" if column.is_json else TYPES[column.type]) in HOSTILE[text].split()


def identity(row: dict[str, Any], places: Places) -> dict[str, Any]:
    return {
        path[0]: row[columns[0].name]
        for path, columns in places.columns.items()
        if path[0] in IDENTITY and places is not IN_EVALS
    }


def product(places: Places, paths: list[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each value in each place in full; else all of them in a place of each type, and a third in any other."""
    met = set()
    for number, path in enumerate(paths):
        types = tuple((column.type, column.is_json) for column in places.columns[path])
        is_first = types not in met
        met.add(types)
        for nth, text in enumerate(HOSTILE):
            if IS_FULL or is_first or (number + nth) % 3 == 0:
                yield path, text


def written_and_read(frame: Frame, table: schema.Table) -> list[dict[str, Any]]:
    """The rows as a reader of the dataset has them, proved to have the declared schema to the letter."""
    got = through_parquet(frame.rows)
    assert got.schema.equals(table.arrow_schema, check_metadata=True)
    assert got.equals(frame.rows)
    rows: list[dict[str, Any]] = got.to_pylist()
    return rows


@pytest.mark.parametrize(("depth", "code"), [(800, 0), (100_000, 5)])
async def test_list_that_is_nested_deeply_is_exported_or_refused(tmp_path: Path, depth: int, code: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    async with Sandbox(settled_world(run_tests=1, executions=2, calls=1)) as server:
        server.fault = lambda request, _nth: (
            Fault(edit=lambda body: body.replace(b'"status":"', b'"deep":%b,"status":"' % deep))
            if "run_test_name" in request.query
            else None
        )
        summary = await job.export(settings_for(server, tmp_path, api={"max_tries": 1}))
    assert summary.exit_code == code
    if code == 0:
        assert [deep.decode() in extra for extra in read_table(tmp_path, "executions")["extra"]] == [True, True]
