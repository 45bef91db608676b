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
