"""Turn a mistake in the settings into one line that names the place and the fix. Reads no file."""

import os
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError

ENV_PREFIX = "METRICS_ETL_"
BASE_URL = "FI_BASE_URL"
_LONGEST_SHOWN = 200


def first_error(model: type[BaseModel], exc: ValidationError, file: Path, from_environment: Mapping[str, Any]) -> str:
    """The first error of the validation, as one line that names the file or variable, the key and the fix."""
    errors = exc.errors(include_url=False)
    # A key with a typing error is also missing under its right name: the typing error is the one to fix.
    error = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    place = list(error["loc"])
    where = _where(place, file, from_environment)
    if error["type"] == "extra_forbidden":
        name, known = str(place[-1]), _known_keys(model, place[:-1])
        if where == f"environment: {variable_of(*place)}":  # as they are written there
            name, known = variable_of(*place), {variable_of(*place[:-1], key) for key in known}
        return f"{where} is unknown{suggestion(name, known)}"
    if error["type"] == "missing":
        example = ': name what to export, e.g. run_tests = ["My Agent Test"]' if place == ["run_tests"] else ""
        return f"{where} is missing{example}"
    context = error.get("ctx", {})
    text = {
        "greater_than_equal": "must be at least {ge}",
        "greater_than": "must be more than {gt}",
        "less_than_equal": "must be at most {le}",
        "less_than": "must be less than {lt}",
        "literal_error": "must be {expected}",
        "value_error": "{error}",
        "string_too_short": "must not be empty",
        "tuple_type": 'must be "all" or a list, e.g. ["My Agent Test"]',
        "model_type": "must be a section",
        "path_not_file": "must be a file",
    }.get(error["type"])
    if text is None:
        text = "must be " + error["msg"].removeprefix("Input should be ").split(",")[0].replace("{", "").replace(
            "}", ""
        )
    message = text.format(**context)
    return (
        f"{where} {message}" if ", got " in message or not place else f"{where} {message}, got {_shown(error['input'])}"
    )


def _shown(value: Any) -> str:
    """The value as it would be written in Python, or its beginning if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _known_keys(model: type[BaseModel], place: Sequence[str | int]) -> set[str]:
    """The keys that the section at this place may have."""
    for part in place:
        if isinstance(part, str):
            annotation: Any = model.model_fields[part].annotation
            model = next(iter(get_args(annotation)), annotation)
    return {
        field.alias or name for name, field in model.model_fields.items() if SecretStr not in get_args(field.annotation)
    }


def _where(place: list[str | int], file: Path, from_environment: Mapping[str, Any]) -> str:
    """``config/prod.toml: [api] concurrency`` or ``environment: METRICS_ETL_API__CONCURRENCY``."""
    value: Any = from_environment
    for part in place[:1] if place[:1] == ["run_tests"] else place:  # no variable names one of the run tests
        value = value.get(part) if isinstance(value, dict) else None
    is_variable = bool(place) and value is not None
    if is_variable and place == ["api", "base_url"] and os.environ.get(BASE_URL) == value:
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


def suggestion(name: str, known: set[str], *, others: Collection[str] = ()) -> str:
    """The end of a message about an unknown name: the one of all that is most like it, else the known ones."""
    match = get_close_matches(name, {*known, *others}, n=1, cutoff=0.6)
    return f": did you mean {match[0]}?" if match else f": known are {', '.join(sorted(known))}"


def variable_of(*place: str | int) -> str:
    """The environment variable of the setting at this place."""
    return ENV_PREFIX + "__".join(str(part).upper() for part in place)
