"""People are told each thing once until it goes away, in names and figures, whatever the webhook and the source do."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from etl.compare.comparison import Row
from etl.compare.estimate import difference
from etl.compare.nightly import Remark, Worse
from etl.compare.pairing import Pairing
from etl.compare.statistics import Sample
from etl.model.findings import alarms
from etl.model.metrics import METRICS, Statistic
from etl.notify import webhook
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, SandboxRequest, World
from etl.sandbox.generate import add_execution
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.support import API_KEY, SECRET_KEY, settings_for
from tests.worlds import executions_of, settled_world

TOKEN = "/T0KEN-of-the-webhook"
SIDES = (Sample.of(np.full(30, 1260.0)), Sample.of(np.full(30, 1670.0)))
WORSE = Worse(
    run_test="Checkout flow",
    since=date(2026, 11, 1),
    nights=3,
    row=Row(METRICS["latency_mean"], difference(SIDES[0], SIDES[1], Statistic.MEAN, is_higher_worse=True)),
    sides=((), ()),
    samples=(),
    pairing=Pairing(),
)
REMARK = Remark(["A", "B"], date(2026, 11, 1), "most calls failed on 2026-11-01, in A and B: not judged")
FAILURES = {"refused", "unavailable"}


class Hook(RawTestServer):
    """A server that keeps what it accepted, and answers 500 while it ``fails``."""

    def __init__(self) -> None:
        super().__init__(self.take)
        self.bodies: list[str] = []
        self.fails = False

    async def take(self, request: web.BaseRequest) -> web.Response:
        self.bodies += [] if self.fails else [await request.text()]
        return web.Response(status=500 if self.fails else 200)


def words_of(world: World) -> list[str]:
    """What stands in rows and is neither a name nor a figure, and what is secret."""
    calls = [call for execution in executions_of(world) for call in execution.calls]
    reasons = [each["reason"] for call in calls for each in call.eval_outputs.values()]
    return [*filter(None, [*reasons, *(call.call_summary for call in calls)]), API_KEY, SECRET_KEY, TOKEN]


def told_in(body: str) -> set[tuple[str, str]]:
    document = json.loads(body)
    assert document.keys() == {"text", "dataset", "exit_code", "outcome", "findings", "worse"}
    assert (": worse: " in document["text"]) == any(each["metric"] == WORSE.metric for each in document["worse"])
    found = [(each["kind"], each["subject"]) for each in document["findings"]]
    return {*found, *((each["run_test"], each["metric"]) for each in document["worse"])}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 4, 5, 7))])
async def test_each_alarm_of_thirty_nights_is_told_once_without_a_word_of_the_rows(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_post", webhook._post.__wrapped__)  # type: ignore[attr-defined]
    rng, world, now = Random(seed), settled_world(run_tests=3, executions=2, calls=2), datetime(2026, 11, 1, tzinfo=UTC)
    first, second, third = world.run_tests
    names, words = [each.name for each in world.run_tests], words_of(world)
    server, hook, troubles, said = Sandbox(world), Hook(), set[str](), list[str]()
    told, kinds = set[tuple[str, str]](), set[str]()
    of_nights = {(each.run_test, each.metric) for each in (REMARK, WORSE)}

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        asked, body = {*request.query.values()}, json.dumps({"status": False, "message": " ".join(words)}).encode()
        if troubles & FAILURES:
            return Fault(status=401) if "refused" in troubles else Fault(status=502, body=body)
        is_struck = ("list" in troubles and second.name in asked) or ("call" in troubles and newest in asked)
        return Fault(status=418, body=body) if is_struck else None

    server.fault = fault
    async with server, hook:
        for _ in range(30):
            now += timedelta(days=1)
            newest = add_execution(world, first, rng, now - timedelta(days=20), 1).calls[0].call_execution_id
            troubles = {each for each in ("call", "list", "gone", "worse", "remark") if rng.random() < 0.35}
            troubles |= {each for each in sorted(FAILURES) if rng.random() < 0.2}
            third.name = "Another" if "gone" in troubles else names[2]
            hook.fails, hook.bodies[:] = rng.random() < 0.3, []
            options: Any = {
                "api": {"max_tries": 1},
                "export": {"settle_hours": 0},
                "notify": {"url": str(hook.make_url(TOKEN))},
            }
            settings = settings_for(server, tmp_path / "data", run_tests=names, **options)
            settings = settings.only(names[:1] if rng.random() < 0.25 else ())
            worse: Any = (
                None if rng.random() < 0.1 else [WORSE] * ("worse" in troubles) + [REMARK] * ("remark" in troubles)
            )
            summary = await job.export(settings, clock=lambda at=now: at)  # type: ignore[misc]
            problem = await webhook.tell(settings, summary, lambda _, worse=worse: [*worse])  # type: ignore[misc]
            said += [*hook.bodies, problem or "", repr(settings)]

            there = {(each.kind.value, each.subject) for each in alarms(summary.findings)}
            is_read = summary.failure is not None or worse is not None
            there |= {(each.run_test, each.metric) for each in worse or ()}
            there = {(summary.outcome, "")} if summary.failure else there
            is_whole = summary.failure is None and is_read and not settings.is_part
            is_end = bool(is_whole and not there - of_nights and told - of_nights)
            is_due = bool(there - told) or is_end
            expected = [there - told] if is_due and not hook.fails else []
            assert [*map(told_in, hook.bodies)] == expected, troubles
            assert (problem is not None) == (not is_read or (is_due and hook.fails))
            assert ["in order again" in each for each in hook.bodies] == [is_end] * len(expected)
            if not (is_due and hook.fails):
                told = there | {each for each in told if not is_whole and each[0] not in FAILURES}
            kinds |= {kind for key in expected for kind, _ in key}
    said.append((tmp_path / "data" / "_state" / "notified.json").read_text())
    assert [word for word in words if any(word in each for each in said)] == []
    assert kinds == {"dead_letter", "list_failed", "no_such_run_test", WORSE.run_test, "", *FAILURES}


async def test_end_of_a_trouble_is_told_once_the_settings_are_right_and_by_no_run_of_others(tmp_path: Path) -> None:
    """Two people export into one dataset; the second mistypes a name, and corrects it."""
    world = settled_world(run_tests=4, executions=1, calls=1)
    mine, other, *more = (each.name for each in world.run_tests)
    server, hook, broken = Sandbox(world), Hook(), set[str]()
    server.fault = lambda request, _: Fault(status=418) if broken & {*request.query.values()} else None
    again = "complete (exit 0): the export is in order again"
    failed = "partial (exit 3) • {}: the list of a run test's executions could not be read"
    mistyped = "partial (exit 3) • Chats: the API has no run test with this name. See metrics-etl discover"
    nights: Any = (
        ([mine, more[0]], "", ""),
        ([other, more[1], "Chats"], "", mistyped),
        ([other, more[1], "Chats"], "", ""),
        ([mine, more[0]], "", ""),
        ([other, more[1]], "", again),
        ([other, more[1]], other, failed.format(other)),
        ([mine, more[0]], mine, failed.format(mine)),
        ([mine, more[0]], "", again),
        ([other, more[1]], other, ""),
        ([other, more[1]], "", again),
        ([other, more[1]], "", ""),
    )
    async with server, hook:
        url = str(hook.make_url(TOKEN))
        for night, (names, fault, said) in enumerate(nights):
            broken, hook.bodies[:] = {*filter(None, [fault])}, []
            options: Any = {"api": {"max_tries": 1}, "notify": {"url": url}}
            settings = settings_for(server, tmp_path / "data", run_tests=names, **options)
            assert await webhook.tell(settings, await job.export(settings), lambda _: []) is None
            lines = [line.partition(" → ")[0] for body in hook.bodies for line in json.loads(body)["text"].split("\n")]
            assert " ".join(lines).removeprefix(f"metrics-etl, {settings.destination.path}: ") == said, night


async def test_command_tells_of_a_run_and_fails_no_more_than_without(tmp_path: Path) -> None:
    server, hook = Sandbox(settled_world(run_tests=1, executions=1, calls=1)), Hook()
    names = [server.world.run_tests[0].name, "<!channel> & more"]

    async def run(*arguments: str, **variables: Any) -> tuple[int, int]:
        hook.bodies.clear()
        env = environment(server, **({"METRICS_ETL_NOTIFY__URL": str(hook.make_url(TOKEN))} | variables))
        ended = await metrics_etl("run", "--verbose", *arguments, cwd=tmp_path, env=env)
        assert TOKEN not in ended.stdout + ended.stderr
        assert ("cannot notify 127.0.0.1: it answered 500" in ended.stderr) == hook.fails
        return ended.exit_code, len(hook.bodies)

    async with server, hook:
        write_settings(tmp_path, names)
        hook.fails = True
        assert await run() == (3, 0)
        hook.fails = False
        assert await run() == (3, 1)
        body = json.loads(hook.bodies[0])
        assert "\n• &lt;!channel&gt; &amp; more: the API has no run test with this name" in body["text"]
        assert (body["exit_code"], body["outcome"], body["findings"][0]["subject"]) == (3, "partial", names[1])
        assert await run() == (3, 0)
        assert await run("--run-test", "Nobody") == (2, 0)
        assert await run(FI_API_KEY=None) == (2, 1)
        assert await run(METRICS_ETL_NOTIFY__URL=f"http://hooks.example{TOKEN}") == (2, 0)
