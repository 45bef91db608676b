"""What the words of the output mean, for the reference pages of the manual: what ``meanings.toml`` says."""

import tomllib
from pathlib import Path
from typing import Any

from etl.extract.endpoints import Purpose
from etl.pipeline.preflight import Subject

_SAID: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _with_findings(fields: dict[str, str]) -> dict[str, str]:
    """The fields of a command, with those of a finding where its findings stand."""
    found: dict[str, str] = {}
    for name, meaning in fields.items():
        found |= _SAID["findings"] if name == "findings" else {name: meaning}
    return found


HEADS: dict[str, str] = _SAID["heads"]
"""What stands above the tables of the reference."""
FIELDS = {command: _with_findings(fields) for command, fields in _SAID["fields"].items()}
"""By command. Also those of ``_state/last_run.json``, which are of ``run``."""
EVENTS: dict[str, tuple[str, str]] = {name: (meaning, fields) for name, (meaning, fields) in _SAID["events"].items()}
"""Each event: what it means, and its fields."""
PURPOSE_MEANINGS: dict[Purpose, str] = {Purpose(name): meaning for name, meaning in _SAID["purposes"].items()}
SUBJECT_MEANINGS: dict[Subject, str] = {Subject(name): meaning for name, meaning in _SAID["subjects"].items()}
"""When each subject of a check is fine, and the exit code otherwise."""
