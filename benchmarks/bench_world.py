"""What the load server serves: made-up executions and their calls.

Each is a function of its number, so that none has to be kept in memory.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import shake_256
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from benchmarks.bench_details import detailed_call, voice_call

DETAIL, VOICE_CALLS = "/simulate/test-executions/", "/simulate/api/call-executions/"
RUN_TESTS = "/simulate/run-tests/"
FIRST_DAY = datetime(2023, 1, 1, tzinfo=UTC)
VARIANTS = 1_024
SCENARIOS = 7
_HEADS, _TAILS = 1 << 48, 1 << 72
_ODD, _OTHER = 0x9E3779B97F4B, 0xD1B54A32D192ED03F1
_INVERSE = pow(_ODD, -1, _HEADS)
_CALLS_BITS = 16


def execution_id(number: int) -> str:
    """Identifies the execution."""
    return _id(number)


def call_id(execution: int, call: int) -> str:
    """Identifies the call of the execution."""
    return _id((execution + 1) << _CALLS_BITS | call)


def _id(number: int) -> str:
    """As hard to compress as a random UUID, and the number can be had back from it."""
    head, tail = f"{number * _ODD % _HEADS:012x}", f"{number * _OTHER % _TAILS:018x}"
    return f"{head[:8]}-{head[8:]}-4{tail[:3]}-8{tail[3:6]}-{tail[6:]}"


def _number(text: str) -> int:
    return int(text[:8] + text[9:13], 16) * _INVERSE % _HEADS


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Run tests with so many executions each, and calls of each of these.

    The first ``changed`` executions of each run test ran again, for the ``generation``-th time; so did every
    ``changed_every``-th. ``only_changed``: there are no others. ``padding_mb`` of spaces follow the body of each call,
    and each has a field of ``text_kb`` that hardly compresses. Only with ``details``, the API has details of executions
    and lists of voice calls.
    """

    run_tests: int = 1
    executions: int = 100
    calls: int = 100
    evals: int = 1
    per_day: int = 10
    changed: int = 0
    changed_every: int = 0
    only_changed: bool = False
    details: bool = False
    generation: int = 0
    padding_mb: int = 0
    text_kb: int = 0

    @property
    def names(self) -> list[str]:
        """Those of the run tests."""
        return ["Load", *(f"Load {number}" for number in range(1, self.run_tests))]

    def numbers(self, run_test: int) -> list[int]:
        """The executions of a run test, by number over all run tests."""
        numbers = range(run_test * self.executions, (run_test + 1) * self.executions)
        return [number for number in numbers if not self.only_changed or self.is_changed(number)]

    def is_changed(self, execution: int) -> bool:
        """Whether the execution ran again."""
        is_periodic = self.changed_every > 0 and execution % self.changed_every == 0
        return is_periodic or execution % self.executions < self.changed

    def execution(self, number: int) -> dict[str, Any]:
        """The execution as the list of its run test gives it."""
        generation = self._generation(number)
        started_at = self._started_at(number)
        ended_at = started_at + timedelta(minutes=60 + generation % 60)
        latency = 1_210.0 + number * 7 % 97
        return {
            "execution_id": execution_id(number),
            "status": "completed",
            "started_at": _timestamp(started_at),
            "completed_at": _timestamp(ended_at),
            "total_calls": self.calls,
            "completed_calls": self.calls,
            "failed_calls": 0,
            "metrics": {
                "latency": {
                    "avg_agent_latency_ms": latency,
                    "avg_response_time_ms": latency - 409,
                    "percentiles": {"p50": latency - 30, "p95": latency + 1_000.5, "p99": latency + 1_680.1},
                },
                "cost": {"total_duration_seconds": 93 * self.calls},
                "conversation": {"avg_user_wpm": 141.2, "avg_bot_wpm": 163.9, "avg_talk_ratio": 1.31},
                "chat": {},
                "calls": {"total": self.calls, "completed": self.calls, "failed": 0, "pending": 0},
            },
        }

    def listed_call(self, execution: int, call: int) -> dict[str, Any]:
        """The call as its execution lists it."""
        variant = self._variant(execution, call)
        return {"call_execution_id": call_id(execution, call)} | _listed_call(variant, call % SCENARIOS, self.evals)

    def call(self, execution: int, call: int) -> dict[str, Any]:
        """The call's raw metrics."""
        ids = {"call_execution_id": call_id(execution, call), "execution_id": execution_id(execution)}
        return ids | call_metrics(self._variant(execution, call))

    def whole_call(self, execution: int, call: int, *, is_detail: bool) -> dict[str, Any]:
        """The call as its execution's detail shows it, or the list of voice calls."""
        whole: dict[str, Any] = json.loads(self._whole_call(execution, call, is_detail=is_detail))
        return whole

    def body(self, target: str) -> bytes:
        """The body of a 200; empty where there is nothing of this kind."""
        if call := target.partition("?call_execution_id=")[2]:
            number = _number(call)
            execution, index = (number >> _CALLS_BITS) - 1, number % 2**_CALLS_BITS
            first, second, third = _call_body(self._variant(execution, index))
            return b"".join(
                (
                    first,
                    call.encode(),
                    second,
                    execution_id(execution).encode(),
                    _transcript(call, self.text_kb),
                    third,
                    _spaces(self.padding_mb),
                )
            )
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        page, limit = int(query["page"]), int(query["limit"])
        if url.path.startswith(RUN_TESTS):
            return self._about(url.path.removeprefix(RUN_TESTS), page, limit)
        if url.path.startswith((DETAIL, VOICE_CALLS)):
            return self._whole_calls(url.path, query, page, limit) if self.details else b""
        if name := query.get("run_test_name"):
            newest_first = self.numbers(self.names.index(name))[::-1]
            return render(
                _page(list(map(self.execution, _cut(newest_first, page, limit))), page, limit, len(newest_first))
            )
        if "execution_id" not in query:
            return b""
        number = _number(query["execution_id"])
        calls = [self.listed_call(number, each) for each in _cut(range(self.calls), page, limit)]
        listed = _page(calls, page, limit, self.calls)
        return render({**self.execution(number), "eval_results": [], "call_results": listed})

    def _about(self, path: str, page: int, limit: int) -> bytes:
        """The list of run tests, or what the list of the one in the path says of its executions."""
        if not path:
            of_all = [
                {"id": f"{number:08}-0000-4000-8000-000000000000", "name": name, "simulate_eval_configs_detail": []}
                for number, name in enumerate(self.names)
            ]
            return _compact(_page(list(_cut(of_all, page, limit)), page, limit, len(of_all)))
        newest_first = self.numbers(int(path[:8]))[::-1]
        told = {"status": "Completed", "agent_version": "v1", "agent_definition": "Agent", "error_reason": None}
        rows = [{"id": execution_id(number), **told} for number in _cut(newest_first, page, limit)]
        return _compact(_page(rows, page, limit, len(newest_first)))

    def _whole_calls(self, path: str, query: Mapping[str, str], page: int, limit: int) -> bytes:
        """A page of an execution's detail, or of its voice calls; neither is in an envelope."""
        is_detail = path.startswith(DETAIL)
        number = _number(path.removeprefix(DETAIL) if is_detail else query["test_execution_id"])
        numbers = _cut(range(self.calls), page, limit)
        if not (numbers or is_detail):
            return b""
        document = {"next": None, "previous": None, **_page([], page, limit, self.calls)}
        if is_detail:
            document |= {"column_order": [], "error_messages": [], "status": "completed"}
            document |= {"provider": "vapi", "agent_type": "voice"}
        calls = b",".join(self._whole_call(number, each, is_detail=is_detail) for each in numbers)
        return _compact(document).replace(b'"results":[]', b'"results":[%b]' % calls)

    def _whole_call(self, execution: int, call: int, *, is_detail: bool) -> bytes:
        body = _whole_body(self._variant(execution, call), call % SCENARIOS, self.evals, is_detail=is_detail)
        body = body.replace(b"@call", call_id(execution, call).encode())
        body = body.replace(b"@execution", execution_id(execution).encode())
        return body.replace(b"@started", _timestamp(self._started_at(execution)).encode())

    def _started_at(self, execution: int) -> datetime:
        days, place = divmod(execution % self.executions, self.per_day)
        return FIRST_DAY + timedelta(days=days, seconds=place * 86_400 // self.per_day)

    def _generation(self, execution: int) -> int:
        return self.generation if self.is_changed(execution) else 0

    def _variant(self, execution: int, call: int) -> int:
        return (execution * 31 + call * 7 + self._generation(execution)) % VARIANTS


def a_year(run_tests: int, days: int) -> World:
    """Two executions a day."""
    return World(run_tests=run_tests, executions=2 * days, calls=30, evals=3, per_day=2)


def _listed_call(variant: int, scenario: int, evals: int) -> dict[str, Any]:
    """A call as its execution lists it, without its id."""
    return {
        "scenario_id": f"5ce0a210-0000-4000-8000-{scenario:012x}",
        "scenario_name": f"Scenario {scenario}",
        "status": "completed",
        "duration_seconds": 60 + variant % 90,
        "eval_outputs": eval_outputs(variant, evals),
    }


@cache
def eval_outputs(variant: int, evals: int) -> dict[str, Any]:
    """So many evals of a call."""
    outputs: dict[str, Any] = {}
    for number in range(evals):
        is_good = (variant + number) % 10 < 8
        output: dict[str, Any] = {"output": "Passed" if is_good else "Failed", "output_type": "Pass/Fail"}
        if number % 3 == 1:
            output = {"output": round(variant * 37 % 101 / 100, 2), "output_type": "score"}
        outputs[f"e7a1{number:04x}-0000-4000-8000-000000000001"] = {
            "name": ("Task Completion", "Tone", "Policy")[number % 3] + " again" * (number // 3),
            **output,
            "reason": f"The caller's request was {'' if is_good else 'not '}fulfilled after {variant % 23} turns.",
            "status": "completed",
        }
    return outputs


@cache
def call_metrics(variant: int) -> dict[str, Any]:
    """A call's raw metrics without its ids."""
    random = Random(variant)  # noqa: S311 no secret
    latency = round(random.lognormvariate(7, 0.4))
    bot_wpm, user_wpm = round(random.gauss(150, 12), 2), round(random.gauss(190, 20), 1)
    talk_ratio = round(random.uniform(0.5, 2.5), 3)
    ai_rate = round(random.uniform(0, 2), 2)
    llm, tts = random.randrange(1, 9), random.randrange(2, 20)
    return {
        "status": "completed",
        "duration_seconds": 60 + variant % 90,
        "latency": {
            "avg_agent_latency_ms": latency,
            "response_time_ms": latency - 310,
            "system_metrics": {
                "bot_wpm": bot_wpm,
                "user_wpm": user_wpm,
                "talk_ratio": talk_ratio,
                "ai_interruption_rate": ai_rate,
                "avg_agent_latency_ms": latency,
                "ai_interruption_count": variant % 3,
                "user_interruption_rate": 0.0,
                "user_interruption_count": 0,
                "avg_stop_time_after_interruption_ms": None,
            },
        },
        "cost": {
            "total_cost_cents": llm + tts + 4,
            "stt_cost_cents": 4,
            "llm_cost_cents": llm,
            "tts_cost_cents": tts,
            "breakdown": {"llm": {"cost": llm / 100, "promptTokens": 12_685 + variant}, "stt": {"cost": 0.012}},
        },
        "conversation": {
            "user_wpm": user_wpm,
            "bot_wpm": bot_wpm,
            "talk_ratio": talk_ratio,
            "user_interruption_count": 0,
            "user_interruption_rate": 0.0,
            "ai_interruption_count": variant % 3,
            "ai_interruption_rate": ai_rate,
            "avg_stop_time_after_interruption_ms": None,
        },
        "chat_metrics": None,
    }


@cache
def _call_body(variant: int) -> tuple[bytes, bytes, bytes]:
    """An answer in three parts, between which the two ids go."""
    result = {"call_execution_id": "@@@", "execution_id": "@@@", **call_metrics(variant)}
    first, second, third = render(result).split(b"@@@")
    return first, second, third


@cache
def _whole_body(variant: int, scenario: int, evals: int, *, is_detail: bool) -> bytes:
    """A call in its execution's detail or in its list of voice calls, with marks for its ids and times."""
    listed = {"call_execution_id": "@call"} | _listed_call(variant, scenario, evals)
    metrics = call_metrics(variant)
    if is_detail:
        return _compact(detailed_call(listed, metrics, execution_id="@execution", started_at="@started"))
    return _compact(voice_call(listed, metrics, started_at="@started"))


@cache
def _spaces(megabytes: int) -> bytes:
    return b" " * (megabytes << 20)


def render(result: object) -> bytes:
    """Compact, as Django REST framework renders what the API says."""
    return _compact({"status": True, "result": result})


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _timestamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000000Z"


def _cut(rows: Any, page: int, limit: int) -> Any:
    return rows[(page - 1) * limit : page * limit]


def _page(results: list[dict[str, Any]], page: int, limit: int, count: int) -> dict[str, Any]:
    total_pages = max(1, math.ceil(count / limit))
    return {"total_pages": total_pages, "current_page": page, "count": count, "results": results}


def _transcript(call: str, text_kb: int) -> bytes:
    """A field with so much text, to stand behind the execution's id."""
    return b'", "transcript": "' + shake_256(call.encode()).hexdigest(text_kb * 500).encode() if text_kb else b""
