"""Values that no column expects, and a mutator that puts them into the recorded answers."""

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.bundles import SAMPLES

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
REFUSED = [
    '{"a": 1, "a": 1}',
    "[" * 10_000 + "]" * 10_000,
    '{"a":' * 10_000 + "1" + "}" * 10_000,
    '"\x00"',
    "01",
    "\udcff",
]


def encoded(text: str) -> bytes:
    """The text as sent: a low surrogate stands for a byte that is no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _results(*patterns: str) -> list[Any]:
    """The results of the recorded answers of status 200."""
    recordings = [json.loads(path.read_text("utf-8")) for each in patterns for path in sorted(SAMPLES.glob(each))]
    return [recording["body"]["result"] for recording in recordings if recording["status"] == 200]


CALL_METRICS = _results("metrics_call_*.json")
LISTED_CALLS = [
    row
    for result in _results(
        "runs_execution_limit3.json", "runs_execution_page2.json", "runs_edge_eval_null_objects.json"
    )
    for row in result["call_results"]["results"]
]
EXECUTIONS = [
    row for result in _results("metrics_name.json", "metrics_statuses_list.json") for row in result["results"]
]


class Object(list[Any]):
    """A JSON object under mutation: [name, value] pairs, so that a name can stand twice."""


class Text(str):
    """JSON text that stands for itself."""

    __slots__ = ()


NAMES = [
    '"cost"', '"latency"', '"duration_seconds"', '"call_results"', '"metrics.call_results"', '"eval_outputs"', '"extra"',
    '"row_hash"', '"raw"', '""', '"a.b"', '"latency.bot_wpm"', '"\\ud800"', '"a\\u0000"', '"\\u003a"', '"output"',
    '"customer_latency_metrics"', '"system_metrics"', '"breakdown"', '"customer_cost_breakdown"', '"results"',
]  # fmt: skip
VALUES = [*(text for text in HOSTILE if len(text) < 6000), *REFUSED]


def thawed(value: Any) -> Any:
    if isinstance(value, dict):
        return Object([Text(json.dumps(name)), thawed(each)] for name, each in value.items())
    if isinstance(value, list):
        return [thawed(each) for each in value]
    return Text(json.dumps(value))


def written(node: Any) -> str:
    if isinstance(node, Object):
        return f"{{{','.join(f'{name}:{written(value)}' for name, value in node)}}}"
    if isinstance(node, list):
        return f"[{','.join(map(written, node))}]"
    return str(node)


def slots(node: Any) -> Iterator[tuple[Any, int]]:
    """Every place of a value: the pair or list that has it, and the index there."""
    for index, each in enumerate(node):
        where = (each, 1) if isinstance(node, Object) else (node, index)
        yield where
        value = where[0][where[1]]
        if isinstance(value, list):
            yield from slots(value)


VITAL = (
    '"status"', '"result"', '"call_execution_id"', '"execution_id"', '"call_results"', '"results"', '"count"',
    '"current_page"', '"total_pages"',
)  # fmt: skip
"""An answer is refused as soon as one of these is not what it was."""


def _is_vital(holder: Any) -> bool:
    return isinstance(holder[0], Text) and holder[0] in VITAL


class Mutator:
    """Makes one body of another: reproducible, by the random generator alone."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def body(self, result: Any) -> bytes:
        """An answer with the result after one to four mutations of its tree, some then broken as bytes, too."""
        tree = thawed({"status": True, "result": result})
        for _ in range(self._chance.randint(1, 4)):
            self._mutate(tree)
        body = encoded(written(tree))
        return self._broken(body) if self._chance.random() < 0.1 else body

    def _mutate(self, tree: Any) -> None:
        is_rare = self._chance.random() < 0.03
        found = [each for each in slots(tree) if is_rare or not _is_vital(each[0])]
        if not found:
            return
        holder, index = self._chance.choice(found)
        value = holder[index]
        match self._chance.choice(
            ("replace", "replace", "replace", "replace", "delete", "rename", "add", "wrap", "swap", "twice")
        ):
            case "replace":
                holder[index] = self._value()
            case "delete":
                holder[index] = Text("null") if self._chance.random() < 0.5 else Object()
            case "rename" if index == 1:
                holder[0] = Text(self._chance.choice(NAMES))
            case "add" if isinstance(value, Object):
                value.insert(self._chance.randint(0, len(value)), [Text(self._chance.choice(NAMES)), self._value()])
            case "wrap":
                name = Text(self._chance.choice(NAMES))
                holder[index] = [value] if self._chance.random() < 0.5 else Object([[name, value]])
            case "swap":
                other, place = self._chance.choice(found)
                if not isinstance(value, list) and not isinstance(other[place], list):
                    holder[index], other[place] = other[place], value
            case "twice" if isinstance(value, Object) and value and self._chance.random() < 0.2:
                value.append(list(self._chance.choice(value)))
            case _:
                pass

    def _value(self) -> Text:
        # Refusals have tests of their own: here they would hide what else is wrong with a body.
        return Text(self._chance.choice(VALUES if self._chance.random() < 0.05 else VALUES[: -len(REFUSED)]))

    def _broken(self, body: bytes) -> bytes:
        start = self._chance.randrange(len(body))
        end = min(len(body), start + self._chance.randint(1, 30))
        match self._chance.choice(("truncate", "flip", "cut", "insert", "splice")):
            case "truncate":
                return body[:start]
            case "flip":
                return body[:start] + bytes([body[start] ^ 1 << self._chance.randrange(8)]) + body[start + 1 :]
            case "cut":
                return body[:start] + body[end:]
            case "insert":
                return body[:start] + self._chance.randbytes(3) + body[start:]
            case _:
                other = encoded(written(thawed(self._chance.choice(CALL_METRICS))))
                return body[:start] + other[start:end] + body[end:]
