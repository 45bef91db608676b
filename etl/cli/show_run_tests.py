"""What the key sees, as settings to paste and as JSON. Asks the API; reads no dataset."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from etl.extract.connect import client_of
from etl.extract.run_tests import Discovered, discover
from etl.model.keys import default_key
from etl.model.records import RunTest
from etl.model.values import timestamp_or_none
from etl.settings import Settings

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_WIDEST_NAME = 40


async def discover_run_tests(settings: Settings, *, on_hold: Callable[[float], None]) -> Discovered:
    """All run tests of the key's workspace; ``on_hold`` is told for how many seconds the rate limit lets nothing through.

    Raises:
        ConfigurationError, KeyRefusedError, SourceUnavailableError: as an export of all of them would end.
    """
    async with client_of(settings, on_hold=on_hold) as client:
        return await discover(client, page_limit=settings.api.page_limit)


def as_toml(found: Discovered) -> Iterator[str]:
    """The lines of ``run_tests`` for a settings file, each name with what is known of it as a comment."""
    names = {name: f"{toml_string(name)}," for name in found.run_tests}
    width = min(_WIDEST_NAME, max(map(len, names.values())))
    yield "run_tests = ["
    for name, run_tests in found.run_tests.items():
        created_at, last_run_at = _created_at(run_tests), _last_run_at(run_tests)
        words = [
            f"key {default_key(name)}",
            f"created {created_at:%Y-%m-%d}" if created_at else "",
            f"last run {last_run_at:%Y-%m-%d}" if last_run_at else "",
            f"{len(run_tests)} run tests of this name, exported as one" if len(run_tests) > 1 else "",
        ]
        yield f"    {names[name]:<{width}} # {', '.join(filter(None, words))}"
    yield "]"


def as_json(found: Discovered) -> dict[str, Any]:
    """The same as a JSON object."""
    return {
        "problems": found.problems,
        "run_tests": [
            {
                "name": name,
                "key": default_key(name),
                "run_test_ids": [each.run_test_id for each in run_tests],
                "created_at": _iso(_created_at(run_tests)),
                "last_run_at": _iso(_last_run_at(run_tests)),
            }
            for name, run_tests in found.run_tests.items()
        ],
    }


def toml_string(text: str) -> str:
    """The text as a TOML basic string; what cannot be seen is escaped, so that it does nothing to a terminal."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
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
