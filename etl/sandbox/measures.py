"""Draw realistic values for a call: every distribution, the slow Mondays, and the size of a regression. Pure.

As in ``generate``, the order in which numbers are drawn decides the world: each draw stays where it is.
"""

import math
from datetime import datetime, timedelta
from random import Random
from typing import Any

from etl.sandbox.world import CONVERSATION, EvalConfig, SimulatedCall, SimulatedRunTest

MONDAY_SLOWDOWN = 1.25
REGRESSION_SLOWDOWN = 1.6
REGRESSION_PASS_LOSS = 0.25
LONGEST_CALL_SECONDS = 600


def measure(run_test: SimulatedRunTest, call: SimulatedCall, rng: Random, ended_at: datetime) -> None:
    """Set the values that a call of this status has; one that is pending or queued has none."""
    profile = run_test.profile
    is_regressed = profile.is_regressed(ended_at)
    if call.status in ("failed", "completed", "analyzing"):
        call.agent_version = "v2" if is_regressed else "v1"
    if call.status == "ongoing":
        call.started_at = ended_at
    elif call.status == "failed":
        call.started_at = call.completed_at = ended_at
        call.duration_seconds = rng.choice([0, None])
        call.ended_reason = rng.choice(["customer-did-not-answer", "assistant-error", "silence-timed-out"])
    elif call.status in ("completed", "analyzing"):
        duration = int(min(LONGEST_CALL_SECONDS, max(12, _log_normal(rng, profile.duration_median_seconds, 0.5))))
        call.duration_seconds = duration
        call.started_at, call.completed_at = ended_at - timedelta(seconds=duration), ended_at
        call.ended_reason = rng.choice(["customer-ended-call", "customer-ended-call", "assistant-ended-call"])
        slowdown = REGRESSION_SLOWDOWN if is_regressed else 1.0
        slowdown *= MONDAY_SLOWDOWN if ended_at.weekday() == 0 else 1.0
        latency = round(_log_normal(rng, profile.latency_median_ms * slowdown, 0.28))
        if call.is_chat or profile.is_chat:
            _measure_chat(call, rng, latency)
        else:
            _measure_voice(call, rng, latency)
        if call.status == "completed":
            _set_evals(run_test, call, rng, profile.pass_rate - (REGRESSION_PASS_LOSS if is_regressed else 0.0))


def _measure_voice(call: SimulatedCall, rng: Random, latency: int) -> None:
    minutes = (call.duration_seconds or 0) / 60
    user_cuts, ai_cuts = _poisson(rng, 0.55 * minutes), _poisson(rng, 0.35 * minutes)
    call.avg_agent_latency_ms = latency
    call.response_time_ms = latency + rng.randint(120, 420) if rng.random() < 0.6 else None
    call.user_wpm = round(min(260.0, max(80.0, rng.gauss(165, 22))), 2)
    call.bot_wpm = round(min(280.0, max(90.0, rng.gauss(192, 17))), 2)
    call.talk_ratio = round(_log_normal(rng, 1.4, 0.45), 3)
    call.user_interruption_count, call.ai_interruption_count = user_cuts, ai_cuts
    call.user_interruption_rate = round(user_cuts / minutes, 3)
    call.ai_interruption_rate = round(ai_cuts / minutes, 2)
    call.avg_stop_time_after_interruption_ms = round(_log_normal(rng, 900, 0.5)) if user_cuts else None
    if rng.random() < 0.55:
        call.system_metrics = {name: getattr(call, name) for name in ("avg_agent_latency_ms", *CONVERSATION)}
        if rng.random() < 0.1:
            call.system_metrics["turn_latency_p90_ms"] = round(latency * 1.3)
    _set_costs(call, rng, minutes)
    turns = max(2, round(minutes * rng.uniform(3.5, 5.5)))
    call.chat_metrics = rng.choice([None, None, {}, {"bot_message_count": turns}])


def _set_costs(call: SimulatedCall, rng: Random, minutes: float) -> None:
    prompt, completion = round(_log_normal(rng, 5200 * minutes, 0.2)), round(_log_normal(rng, 90 * minutes, 0.25))
    characters = round((call.bot_wpm or 0) * minutes * 3)
    llm, stt, tts = prompt * 2.5e-6 + completion * 1e-5, minutes * 0.0077, characters * 3e-5
    call.llm_cost_cents, call.stt_cost_cents, call.tts_cost_cents = round(llm * 100), round(stt * 100), round(tts * 100)
    call.total_cost_cents = call.llm_cost_cents + call.stt_cost_cents + call.tts_cost_cents + round(minutes * 5)
    kind = rng.random()
    if kind < 0.7:
        call.cost_breakdown = {
            "llm": {"cost": round(llm, 4), "promptTokens": prompt, "completionTokens": completion},
            "stt": {"cost": round(stt, 4), "minutes": round(minutes, 2)},
            "tts": {"cost": round(tts, 4), "characters": characters},
            "transport": {"cost": 0.0},
        }
    elif kind < 0.85:
        call.cost_breakdown = {}


def _measure_chat(call: SimulatedCall, rng: Random, latency: int) -> None:
    turns = max(2, round((call.duration_seconds or 0) / 60 * rng.uniform(4, 8)))
    sent, received = round(_log_normal(rng, 700 * turns, 0.25)), round(_log_normal(rng, 45 * turns, 0.3))
    call.llm_cost_cents = call.total_cost_cents = round(sent * 2.5e-4 + received * 1e-3)
    call.chat_metrics = {
        "total_tokens": sent + received,
        "input_tokens": sent,
        "output_tokens": received,
        "avg_latency_ms": latency,
        "turn_count": turns,
        "csat_score": round(min(10.0, max(0.0, rng.gauss(7.2, 1.4))), 1) if rng.random() < 0.6 else None,
    }
    if rng.random() < 0.7:
        call.chat_metrics["message_count"] = 2 * turns


def _set_evals(run_test: SimulatedRunTest, call: SimulatedCall, rng: Random, pass_rate: float) -> None:
    passes = rng.random() < pass_rate
    configs = run_test.eval_configs
    outputs = {config.config_id: eval_output(rng, config, call.updated_at, passes=passes) for config in configs}
    scores = [output["output"] for output in outputs.values() if isinstance(output["output"], float)]
    call.eval_outputs = outputs
    call.overall_score = round(10 * scores[0], 1) if scores else None
    call.call_summary = "The agent solved the task." if passes else "The agent did not solve the task."
    if rng.random() < 0.3:
        call.call_summary = None


def eval_output(rng: Random, config: EvalConfig, at: datetime, *, passes: bool) -> dict[str, Any]:
    """The output of an eval, as the API shows it; sometimes the eval failed or was skipped."""
    empty = {"name": config.name, "output": None, "output_type": config.output_type}
    chance = rng.random()
    if chance < 0.03:
        failed = {"error": "error", "reason": "Evaluation failed", "status": "Failed", "timestamp": at.isoformat()}
        return empty | failed
    if chance < 0.05:
        return empty | {"reason": "no transcript", "status": "skipped", "skipped": True, "output_type": None}
    output: str | float | list[str]
    if config.output_type == "Pass/Fail":
        output, reason = ("Passed", "The customer got what they asked for.") if passes else ("Failed", "Goal not met.")
    elif config.output_type == "score":
        output, reason = round(rng.betavariate(8, 2) if passes else rng.betavariate(4, 4), 3), "tone"
    else:
        moods = (["positive"], ["neutral"], ["negative", "neutral"])
        output, reason = rng.choices(moods, (5, 4, 1) if passes else (1, 3, 6))[0], "sentiment"
    return empty | {"output": output, "reason": reason, "status": "Completed"}


def _log_normal(rng: Random, median: float, sigma: float) -> float:
    """A log-normal value: mostly near the median, with a long tail above."""
    return rng.lognormvariate(math.log(max(median, 1e-9)), sigma)


def _poisson(rng: Random, mean: float) -> int:
    """A count of rare events, by Knuth's method."""
    threshold = math.exp(-mean)
    product, count = rng.random(), 0
    while product > threshold:
        product *= rng.random()
        count += 1
    return count
