"""The recorded answers, by name."""

import json
from pathlib import Path
from typing import Any

SAMPLES = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((Path(__file__).parent.parent / "samples").glob("*.json"))
}


def result_of(case: str) -> Any:
    return SAMPLES[case]["body"]["result"]


def without_sums(body: Any) -> Any:
    """The answer as the sandbox gives it, without what sums up an eval's outputs: that is no data of the exporter."""
    if isinstance(body, list):
        return [without_sums(each) for each in body]
    if not isinstance(body, dict):
        return body
    if body.keys() >= {"result", "output_type"}:
        kept = {name: body[name] for name in ("name", "id", "output_type")}
        return {**kept, "result": [{"name": each["name"], "id": each["id"]} for each in body["result"]]}
    return {name: without_sums(each) for name, each in body.items()}
