"""The JSON schema of the settings file, by which an editor completes keys, shows what they mean and marks mistakes.

It is stricter than the settings in one way: a number written as text, as an environment variable has it, is a mistake in a file.
It does not tell everything: wrong addresses, paths and URLs, keys of run tests that collide, what the environment overrides.
"""

from typing import Any, get_args

from pydantic import BaseModel

from etl.model.keys import KEY, KEY_MAX_BYTES, READ_AS_VALUES
from etl.model.locations import BUCKETS
from etl.model.metrics import EVAL, LIMIT, METRICS
from etl.settings.read import Settings
from etl.settings.sections import NAMESPACE, RunTest

_NAME: dict[str, Any] = {"type": "string", "pattern": r"^\S([\s\S]*\S)?$"}
_VALIDATED: dict[tuple[str, str], dict[str, Any]] = {
    ("RunTest", "name"): _NAME,
    ("RunTest", "key"): {
        "pattern": f"^({KEY.pattern})?$",
        "maxLength": KEY_MAX_BYTES,
        "not": {"enum": sorted(READ_AS_VALUES)},
    },
    ("Api", "requests_per_minute"): {
        "default": "auto",
        "type": ["string", "integer"],
        "anyOf": [{"const": "auto"}, {"type": "integer"}],
    },
    ("Warehouse", "schema"): {"pattern": f"^{NAMESPACE.pattern}$"},
    ("Compare", "max_regression"): {
        "propertyNames": {"anyOf": [{"enum": sorted(METRICS)}, {"pattern": f"^{EVAL.pattern}$"}]},
        "additionalProperties": {"type": "string", "pattern": rf"^\s*{LIMIT.pattern}\s*$"},
    },
    ("Destination", "options"): {
        "properties": {
            option: {"type": ["string", "boolean"]} for option in sorted(frozenset().union(*BUCKETS.values()))
        },
        "additionalProperties": False,
    },
}
"""Names, keys and limits, which editors complete or mark. The other validators are not said twice: ``check`` tells."""


def settings_schema() -> dict[str, Any]:
    """The schema, of draft 7, which every editor knows."""
    generated = Settings.model_json_schema()["$defs"]
    sections = {
        name: _section(model.__name__, generated)
        for name, field in Settings.model_fields.items()
        for model in (field.annotation, *get_args(field.annotation))
        if isinstance(model, type) and issubclass(model, BaseModel)
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of metrics-etl",
        "type": "object",
        "properties": sections | {"run_tests": _run_tests(generated)},
        "required": ["run_tests"],
        "additionalProperties": False,
    }


def _run_tests(generated: dict[str, Any]) -> dict[str, Any]:
    run_test = {"anyOf": [_NAME, _section(RunTest.__name__, generated)]}
    return {
        "description": 'names of the run tests to export, or "all" for every run test that the key can see',
        "anyOf": [{"const": "all"}, {"type": "array", "minItems": 1, "uniqueItems": True, "items": run_test}],
    }


def _section(model: str, generated: dict[str, Any]) -> dict[str, Any]:
    section = {name: value for name, value in generated[model].items() if name != "title"}
    section["description"] = section["description"].replace("``", "`")
    section["properties"] = {
        name: _key(value) | _VALIDATED.get((model, name), {}) for name, value in section["properties"].items()
    }
    return section


def _key(generated: dict[str, Any]) -> dict[str, Any]:
    """Without what TOML does not have, null, and without titles and formats, which say nothing."""
    kinds = [each for each in generated.get("anyOf", [{}]) if each != {"type": "null"}]
    merged = {name: value for name, value in generated.items() if name != "anyOf"}
    merged |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if merged.get("default", ...) is None:
        del merged["default"]
    return {
        name: value for name, value in merged.items() if name != "title" and (name, value) != ("format", "file-path")
    }
