"""What ``discover`` prints: run tests as settings to paste, and as JSON."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from etl.extract.run_tests import Discovered
from etl.model.keys import default_key
from etl.model.records import RunTest
from etl.model.values import timestamp_or_none

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
FIELDS = {
    "problems": "one line for each thing that could not be listed",
    "run_tests[].name": "name of the run test, newest first",
    "run_tests[].key": "its default key",
    "run_tests[].run_test_ids": "ids at the API; several when run tests share the name",
    "run_tests[].created_at": "when it was created; null when the API does not say",
    "run_tests[].last_run_at": "when it last ran; null when the API does not say",
}
"""What each field of the JSON means."""
_WIDEST_NAME = 40
_JOINER = "\N{ZERO WIDTH JOINER}"  # of emoji


def run_tests_as_toml(discovered: Discovered) -> Iterator[str]:
    """The lines of ``run_tests`` for a settings file, with a comment after each name: key, when created, when last run."""
    names = {name: f"{toml_string(name)}," for name in discovered.run_tests}
    width = min(_WIDEST_NAME, max(map(len, names.values())))
    yield "run_tests = ["
    for name, run_tests in discovered.run_tests.items():
        created_at, last_run_at = _created_at(run_tests), _last_run_at(run_tests)
        comments = [
            f"key {default_key(name)}",
            f"created {created_at:%Y-%m-%d}" if created_at else "",
            f"last run {last_run_at:%Y-%m-%d}" if last_run_at else "",
            f"{len(run_tests)} run tests of this name, exported as one" if len(run_tests) > 1 else "",
        ]
        yield f"    {names[name]:<{width}} # {', '.join(filter(None, comments))}"
    yield "]"


def run_tests_as_json(discovered: Discovered) -> dict[str, Any]:
    """The run tests as a JSON object."""
    return {
        "problems": discovered.problems,
        "run_tests": [
            {
                "name": name,
                "key": default_key(name),
                "run_test_ids": [each.run_test_id for each in run_tests],
                "created_at": _iso(_created_at(run_tests)),
                "last_run_at": _iso(_last_run_at(run_tests)),
            }
            for name, run_tests in discovered.run_tests.items()
        ],
    }


def toml_string(text: str) -> str:
    """The text as a TOML basic string. Characters that do not print are escaped: they could move the cursor."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() or character == _JOINER:
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


def _created_at(run_tests: Sequence[RunTest]) -> datetime | None:
    return min(_times(run_tests, "created_at"), default=None)


def _last_run_at(run_tests: Sequence[RunTest]) -> datetime | None:
    return max(_times(run_tests, "last_run_at"), default=None)


def _times(run_tests: Sequence[RunTest], field: str) -> list[datetime]:
    times = (timestamp_or_none(each.payload.get(field)) for each in run_tests)
    return [time for time in times if time is not None]


def _iso(time: datetime | None) -> str | None:
    return time.isoformat(timespec="seconds") if time else None
