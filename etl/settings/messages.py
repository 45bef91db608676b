"""Turn each mistake in the settings into one line that names the place and the fix.

Reads no file, and repeats no value that may be secret.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from etl.model.wording import nearest, quoted

ENV_PREFIX = "METRICS_ETL_"
"""Of each environment variable that holds a setting."""
BASE_URL = "FI_BASE_URL"
"""Another variable for ``[api] base_url``, which other tools of the platform read, too."""
IS_SECTION = "is a section. Set its keys instead, or give them as JSON"
_LONGEST_SHOWN = 200
_REPLACED = {"scrub_requests": "sweep_days"}
"""Settings of older versions, with those that took their places."""
_MEANT = {"rate_limit": "requests_per_minute", "retries": "max_tries"}
"""Settings by names that other tools give them, spelled unlike ours."""
_TEXTS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "must not be empty",
    "path_not_file": "must be an existing file",
    "literal": "must be {expected}",
    "string": "must be text in quotes",
    "list": "must be a list of texts in quotes",
    "path": "must be text in quotes",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a number",
    "bool": "must be true or false",
    "date": "must be a date such as 2026-01-31, without quotes",
    "dict": 'must be a table such as {{ latency_p95 = "10%" }}',
    "tuple": 'must be "all" or a list, e.g. ["My Agent Test"]',
}
"""What the message says, by pydantic's type of error or its first word. A test tries all kinds of values in each."""
_Place = tuple[str | int, ...]
"""Where a setting is: its section and its key; for a run test ``("run_tests", 0, "name")``."""


def mistakes_of(
    model: type[BaseModel], exc: ValidationError, file: Path, from_environment: Mapping[str, Any]
) -> Iterator[str]:
    """A line for each mistake that pydantic found; unknown keys come first.

    ``from_environment`` are the settings that environment variables gave: a mistake in one of them names the variable,
    any other one names the file.
    """
    hints: list[str] = []
    for error in sorted(exc.errors(include_url=False), key=lambda error: error["type"] != "extra_forbidden"):
        place, kind = error["loc"], error["type"]
        where = _where(place, file, from_environment)
        if kind == "extra_forbidden":
            hint = _hint(model, place, is_variable=where.startswith("environment: "))
            hints.append(f"{place[-1]} {hint}")
            yield f"{where} {hint}"
        elif kind == "missing":
            # If the key is there but misspelled, or in another section, its hint has said so.
            if not any(str(place[-1]) in hint for hint in hints):
                example = '. Name what to export, e.g. run_tests = ["My Agent Test"]' if len(place) == 1 else ""
                yield f"{where} is missing{example}"
        elif kind == "value_error":
            # From one of our own validators, which repeat no secret.
            yield f"{where} {error['ctx']['error']}"
        elif kind == "model_type":
            table = 'must be a name in quotes, or a table such as { name = "My Agent Test" }'
            yield f"{where} {table if len(place) > 1 else IS_SECTION}"
        else:
            text = _TEXTS.get(kind) or _TEXTS.get(kind.partition("_")[0], "is not a valid value")
            message = text.format(**error.get("ctx", {})).replace("'", '"')
            yield f"{where} {message}, got {_shown(error['input'])}"


def setting_places(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The place of each setting: each section, and each key in it. API keys and credentials are no settings."""
    for name, field in model.model_fields.items():
        if SecretStr not in get_args(field.annotation):
            yield (name,)
            section = next(iter(get_args(field.annotation)), field.annotation)
            for key, key_field in getattr(section, "model_fields", {}).items():
                yield (name, key_field.alias or key)


def variable_of(*place: str | int) -> str:
    """The environment variable of the setting at this place."""
    return ENV_PREFIX + "__".join(str(part).upper() for part in place)


def _hint(model: type[BaseModel], place: _Place, *, is_variable: bool) -> str:
    """What the message says about an unknown key: where it belongs, or which key may be meant."""
    *section, name = (part for part in place if isinstance(part, str))
    places = list(setting_places(model))
    homes = [known for known in places if known[-1] == name]
    if (new := _REPLACED.get(name)) is not None:
        return f"was replaced by {variable_of(*section, new) if is_variable else new}"
    name = _MEANT.get(name, name)
    if is_variable:
        return f"is unknown. {nearest(variable_of(*section, name), [variable_of(*known) for known in homes or places])}"
    if homes:
        return f"belongs {' or '.join(map(_home, homes))}"
    names_in_section = [known[-1] for known in places if list(known[:-1]) == section]
    names = [known[-1] for known in places]
    return f"is unknown. {nearest(name, names, otherwise=nearest(name, names_in_section))}"


def _home(place: tuple[str, ...]) -> str:
    """Where a known key belongs, in words that follow "belongs"."""
    if place[0] == "run_tests" and len(place) > 1:
        return f'to a run test, as in run_tests = [{{ name = "My Agent Test", {place[1]} = … }}]'
    return f"in [{place[0]}]" if len(place) > 1 else "above the first section"


def _shown(value: Any) -> str:
    """The value as the file has it, cut if long; of a list or a table only the kind: what it holds may be secret."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = quoted(value) if isinstance(value, str) else str(value).lower()
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _where(place: _Place, file: Path, from_environment: Mapping[str, Any]) -> str:
    """``config/prod.toml: [api] concurrency`` or ``environment: METRICS_ETL_API__CONCURRENCY``."""
    # One variable holds all run tests.
    path_in_environment = place[:1] if place[:1] == ("run_tests",) else place
    value: Any = from_environment
    for part in path_in_environment:
        value = value.get(part) if isinstance(value, dict) else None
    is_variable = bool(place) and value is not None
    if is_variable and place == ("api", "base_url") and os.environ.get(BASE_URL) == value:
        return f"environment: {BASE_URL}"
    match place:
        case ["run_tests", int(index), *rest]:
            source = f"environment: {variable_of('run_tests')}" if is_variable else f"{file}: run_tests"
            return " ".join([f"{source}[{index}]", *map(str, rest)])
        case _ if is_variable:
            return f"environment: {variable_of(*place)}"
        case []:
            return f"{file}:"
        case [str(name)]:
            return f"{file}: {name}"
        case _:
            section, *rest = place
            return f"{file}: [{section}] {'.'.join(map(str, rest))}"
