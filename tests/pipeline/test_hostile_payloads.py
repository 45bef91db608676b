"""Whatever a server sends: each value exactly in its column, or null there, verbatim in ``extra`` and counted; or a clean refusal.

Bodies go the way that real ones go: bytes, decoded, flattened, written as Parquet, read back. What must have arrived is read
from the same bytes by ``tests/transform/exactness.py``, which shares no code with the exporter.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from etl.errors import TransientError
from etl.extract import answers, endpoints
from etl.model import schema
from etl.model.records import CallMetrics, Execution, ExecutionBundle, FetchedCall, ListedCall, Page
from etl.transform.frames import ExportStamp, Frame, to_arrow
from tests.bundles import EXPORT, bundle_of, calls_frame, evals_frame, execution, frame_of_executions, through_parquet
from tests.pipeline.hostile import CALL_METRICS, EXECUTIONS, HOSTILE, LISTED_CALLS, REFUSED, Mutator, encoded
from tests.support import IS_FULL
from tests.transform.exactness import Places, as_eval, assert_same, call_as_sent, is_utf8, read

WITH_RAW = ExportStamp(export_run_id=EXPORT.export_run_id, exported_at=EXPORT.exported_at, include_raw=True)
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
    is_listed = path[0] == "call_results"
    metrics, listed = (None, at(path[1:], text)) if is_listed else (at(path, text), None)
    return FetchedCall(listed=decode_listed(key, listed), metrics=decode_metrics(key, metrics))


def decode_metrics(key: str, fields: str | None) -> CallMetrics:
    request = endpoints.get_call_metrics(key, "execution")
    inner = ", ".join(
        filter(None, (f'"call_execution_id": "{key}", "execution_id": "execution", "status": "failed"', fields))
    )
    return answers.decode(request, encoded(f'{{"status": true, "result": {{{inner}}}}}'))


def decode_listed(key: str, fields: str | None) -> ListedCall:
    request = endpoints.list_calls("execution", endpoints.Slice(1, 1))
    no_evals = None if "eval_outputs" in (fields or "") else '"eval_outputs": {}'
    row = ", ".join(filter(None, (f'"call_execution_id": "{key}"', no_evals, fields)))
    page = f'{{"total_pages": 1, "current_page": 1, "count": 1, "results": [{{{row}}}]}}'
    return answers.decode(request, encoded(f'{{"status": true, "result": {{"call_results": {page}}}}}')).results[0]


def decode_execution(key: str, fields: str) -> Execution:
    inner = f'"execution_id": "{key}", "status": "completed", {fields}'
    return answers.decode(endpoints.get_execution(key), encoded(f'{{"status": true, "result": {{{inner}}}}}'))


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
        value = read(encoded(text))
        holding = {column.name for column in columns if row[column.name] is not None}
        assert holding == {column.name for column in columns if is_held(column, text)}, (path, text[:80])
        sent = read(encoded(f"{{{at(path, text)}}}"))
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
    sent = to_arrow(frame.data, table)
    got = through_parquet(sent)
    assert got.schema.equals(table.arrow_schema, check_metadata=True)
    assert got.equals(sent)
    rows: list[dict[str, Any]] = got.to_pylist()
    return rows


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize("path", [("duration_seconds",), ("cost", "breakdown"), ("unknown",), ("status",)])
def test_what_cannot_be_read_in_one_way_only_is_refused_whole(path: tuple[str, ...], text: str) -> None:
    with pytest.raises(TransientError, match="unexpected answer"):
        decode_metrics("call", at(path, text))
    with pytest.raises(TransientError, match="unexpected answer"):
        decode_listed("call", at(path, text))
    with pytest.raises(TransientError, match="unexpected answer"):
        decode_execution("execution", at(path, text))


@pytest.mark.parametrize("outputs", [text for text in HOSTILE if text != "null" and not text.startswith('{"')])
def test_eval_outputs_of_another_shape_are_a_misfit_of_their_call(outputs: str) -> None:
    call = FetchedCall(listed=decode_listed("call", f'"eval_outputs": {outputs}'), metrics=decode_metrics("call", None))
    frame = calls_frame([bundle_of(call)], EXPORT)
    extra = written_and_read(frame, schema.CALLS)[0]["extra"]
    assert len(evals_frame([bundle_of(call)], EXPORT).data) == 0
    if outputs == "{}":
        assert (extra, frame.misfits) == (None, 0)
    else:
        assert_same(read(extra), read(f'{{"call_results": {{"eval_outputs": {outputs}}}}}'))
        assert frame.misfits == 1


# Mutated samples


def page_of(rows: list[Any]) -> dict[str, Any]:
    return {"total_pages": 1, "current_page": 1, "count": len(rows), "results": rows}


@dataclass
class Batch:
    """Cases whose rows are written together, as a commit does; each case has ids of its own."""

    outcomes: Counter[str]
    bundles: list[ExecutionBundle] = field(default_factory=list)
    executions: dict[str, tuple[Execution, Any]] = field(default_factory=dict)
    calls: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    listed: dict[str, Any] = field(default_factory=dict)

    def add_call(self, key: str, chance: random.Random) -> None:
        metrics = {**chance.choice(CALL_METRICS), "call_execution_id": key, "execution_id": "execution"}
        row = {**chance.choice(LISTED_CALLS), "call_execution_id": key}
        mutator = Mutator(chance)
        page = self.decoded(
            endpoints.list_calls("execution", endpoints.Slice(1, 10)), mutator.body({"call_results": page_of([row])})
        )
        call = self.decoded(endpoints.get_call_metrics(key, "execution"), mutator.body(metrics))
        if page is None:
            return
        pairs = zip(page[0].results, page[1]["result"]["call_results"]["results"], strict=True)
        by_id = {listed.call_execution_id: (listed, sent) for listed, sent in pairs}
        if key not in by_id:
            return
        listed, self.listed[key] = by_id[key]
        if call is not None:
            self.calls[key] = (call[1]["result"], self.listed[key])
        fetched = listed if call is None else FetchedCall(listed=listed, metrics=call[0])
        self.bundles.append(bundle_of(fetched, of=execution(key)))

    def add_executions(self, key: str, chance: random.Random) -> None:
        rows = [{**row, "execution_id": f"{key}-{n}"} for n, row in enumerate(chance.sample(EXECUTIONS, 2))]
        page: tuple[Page[Execution], Any] | None = self.decoded(
            endpoints.list_executions("name", endpoints.Slice(1, 10)), Mutator(chance).body(page_of(rows))
        )
        if page is not None:
            for row, sent in zip(page[0].results, page[1]["result"]["results"], strict=True):
                if row.execution_id.startswith(key):
                    self.executions[row.execution_id] = (row, sent)

    def decoded(self, request: endpoints.Request[Any], body: bytes) -> tuple[Any, Any] | None:
        """What the exporter makes of the answer, and what was sent; None when it was refused."""
        try:
            value = answers.decode(request, body)
        except TransientError:
            self.outcomes["refused"] += 1
            return None
        self.outcomes["decoded"] += 1
        return value, read(body)

    def check(self) -> None:
        misfits = self.check_calls() + self.check_evals() + self.check_executions()
        self.outcomes["misfits"] += misfits

    def check_calls(self) -> int:
        frame = calls_frame(self.bundles, WITH_RAW)
        rows = written_and_read(frame, schema.CALLS)
        assert [row["call_execution_id"] for row in rows] == list(self.calls)
        misfits = 0
        for row, (metrics, listed) in zip(rows, self.calls.values(), strict=True):
            sent, unplaced = call_as_sent(metrics, listed, row)
            misfits += IN_CALLS.assert_holds(row, sent) + unplaced
            assert_same(read(row["raw"]), metrics)
        assert misfits == frame.misfits
        return misfits

    def check_evals(self) -> int:
        frame = evals_frame(self.bundles, WITH_RAW)
        rows = written_and_read(frame, schema.EVALS)
        sent = {
            (key, config_id): as_eval(output)
            for key, listed in self.listed.items()
            if isinstance(outputs := listed.get("eval_outputs"), dict)
            for config_id, output in outputs.items()
            if is_utf8(config_id)
        }
        assert [(row["call_execution_id"], row["eval_config_id"]) for row in rows] == list(sent)
        misfits = 0
        for row, output in zip(rows, sent.values(), strict=True):
            verdict = {"Passed": True, "Failed": False}.get(str(output.get("output")))
            is_word = verdict is not None and output.get("output_type") == "Pass/Fail"
            assert not is_word or row["output_passed"] is verdict
            misfits += IN_EVALS.assert_holds(row, output, given=("output_passed",) if is_word else ())
        assert misfits == frame.misfits
        return misfits

    def check_executions(self) -> int:
        frame = frame_of_executions(*(row for row, _ in self.executions.values()), export=WITH_RAW)
        rows = written_and_read(frame, schema.EXECUTIONS)
        misfits = 0
        for row, (_, sent) in zip(rows, self.executions.values(), strict=True):
            misfits += IN_EXECUTIONS.assert_holds(row, sent)
            assert_same(read(row["raw"]), sent)
        assert misfits == frame.misfits
        return misfits


def batch_of(seed: int, numbers: range, outcomes: Counter[str]) -> Batch:
    batch = Batch(outcomes)
    for number in numbers:
        add = batch.add_executions if number % 3 == 0 else batch.add_call
        add(f"case-{number}", random.Random(f"{seed}/{number}"))
    return batch


def check(seed: int, numbers: range, outcomes: Counter[str]) -> None:
    """Check the cases together; when that fails, find the one to blame and fail with its number."""
    try:
        batch_of(seed, numbers, outcomes).check()
    except Exception:
        for number in numbers:
            try:
                batch_of(seed, range(number, number + 1), Counter()).check()
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}, case {number}: batch_of({seed}, range({number}, {number + 1}), Counter())"
                ) from error
        raise


@pytest.mark.parametrize("cases", [2_000, pytest.param(200_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_mutated_answers_are_refused_or_held_to_the_digit(cases: int) -> None:
    seed, size = cases, 100
    outcomes: Counter[str] = Counter()
    for start in range(0, cases, size):
        check(seed, range(start, start + size), outcomes)
    assert outcomes["decoded"] > 2 * outcomes["refused"]
    assert outcomes["misfits"] > cases / 2
