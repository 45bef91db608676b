"""Turn each mistake in the settings into one line that names the place and the fix. Reads no file."""

import os
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from etl.model.wording import nearest, quoted

ENV_PREFIX = "METRICS_ETL_"
BASE_URL = "FI_BASE_URL"
_LONGEST_SHOWN = 200
_NUMBER, _WHOLE, _DAY = "must be a number", "must be a whole number", "must be a day such as 2026-01-31, without quotes"
_TEXTS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_type": "must be text in quotes",
    "path_type": "must be text in quotes",
    "path_not_file": "must be an existing file",
    "dict_type": 'must be a table such as {{ latency_p95 = "10%" }}',
    "tuple_type": 'must be "all" or a list, e.g. ["My Agent Test"]',
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"), _DAY),
}
"""By pydantic's types of errors; the tests try every key with every kind of value."""
_Place = tuple[str | int, ...]


def mistakes_of(
    model: type[BaseModel], exc: ValidationError, file: Path, from_environment: Mapping[str, Any]
) -> Iterator[str]:
    """A line for each mistake."""
    errors = exc.errors(include_url=False)
    unknown_keys = [each["loc"] for each in errors if each["type"] == "extra_forbidden"]
    is_variable = {error["loc"]: _is_variable(error["loc"], from_environment) for error in errors}
    hints = {place: _hint(model, place, is_variable=is_variable[place]) for place in unknown_keys}
    for error in errors:
        place = error["loc"]
        where = _where(place, file, from_environment)
        if place in hints:
            yield f"{where} {hints[place]}"
        elif error["type"] == "missing":
            # The key is there, but misspelled or in another section: that is told.
            if not any(str(place[-1]) in f"{key[-1]} {hint}" for key, hint in hints.items()):
                example = ': name what to export, e.g. run_tests = ["My Agent Test"]' if place == ("run_tests",) else ""
                yield f"{where} is missing{example}"
        elif error["type"] == "value_error":  # of our own validators, which repeat no secret
            yield f"{where} {error['ctx']['error']}"
        elif error["type"] == "model_type":
            yield f"{where} {is_section(*place, is_variable=is_variable[place])}"
        else:
            message = _TEXTS[error["type"]].format(**error.get("ctx", {})).replace("'", '"')
            yield f"{where} {message}, got {_shown(error['input'])}"


def unknown(name: str, own: set[str], everywhere: set[str]) -> str:
    """What is said of an unknown name: the nearest of its own section, or of all, else those of its section."""
    return f"is unknown: {nearest(name, own, otherwise=nearest(name, everywhere, otherwise=nearest(name, own)))}"


def is_section(*place: str | int, is_variable: bool) -> str:
    """What is said of a value that stands where a section should be, or the table of a run test."""
    if len(place) > 1:
        return 'must be a name in quotes, or a table such as { name = "My Agent Test" }'
    fix = (
        f"set its keys one by one, as {variable_of(*place, '<KEY>')}"
        if is_variable
        else f"write [{place[0]}] above its keys"
    )
    return f"is a section: {fix}"


def places_of(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The sections and keys of the settings, without the API's keys."""
    for name, field in model.model_fields.items():
        if SecretStr not in get_args(field.annotation):
            yield (name,)
            section = next(iter(get_args(field.annotation)), field.annotation)
            for key, each in getattr(section, "model_fields", {}).items():
                yield (name, each.alias or key)


def variable_of(*place: str | int) -> str:
    """The environment variable of the setting at this place."""
    return ENV_PREFIX + "__".join(str(part).upper() for part in place)


def _hint(model: type[BaseModel], place: _Place, *, is_variable: bool) -> str:
    """What is said of an unknown key: where it belongs, or which one may be meant."""
    *section, name = (part for part in place if isinstance(part, str))
    places = list(places_of(model))
    homes = [each for each in places if each[-1] == name]
    own = {each[-1] for each in places if list(each[:-1]) == section}
    if is_variable:
        variables = {variable_of(*each) for each in homes or places}
        return unknown(variable_of(*place), {variable_of(*section, each) for each in own}, variables)
    if homes:
        return f"belongs {' or '.join(map(_home, homes))}"
    return unknown(name, own, {each[-1] for each in places})


def _home(place: tuple[str, ...]) -> str:
    match place:
        case [_]:
            return "above the first section"
        case ["run_tests", key]:
            return f'to a run test: run_tests = [{{ name = "My Agent Test", {key} = … }}]'
        case _:
            return f"in [{place[0]}]"


def _shown(value: Any) -> str:
    """The value as the file has it, or its beginning if it is long; never what is in a list or a table: it may be secret."""
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float() | date():
            text = quoted(value) if isinstance(value, str) else str(value)
            return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
        case dict():
            return "a table"
        case _:
            return "a list"


def _is_variable(place: _Place, from_environment: Mapping[str, Any]) -> bool:
    value: Any = from_environment
    for part in place[:1] if place[:1] == ("run_tests",) else place:  # no variable names one of the run tests
        value = value.get(part) if isinstance(value, dict) else None
    return bool(place) and value is not None


def _where(place: _Place, file: Path, from_environment: Mapping[str, Any]) -> str:
    """``config/prod.toml: [api] concurrency`` or ``environment: METRICS_ETL_API__CONCURRENCY``."""
    is_variable = _is_variable(place, from_environment)
    if is_variable and place == ("api", "base_url") and os.environ.get(BASE_URL) == from_environment["api"]["base_url"]:
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
