"""The JSON schema of the settings file, by which an editor completes keys, shows what they mean and marks mistakes.

It is stricter than the settings in one way: a number written as text, as an environment variable has it, is a mistake in a file.
It tells types and bounds. What is in a text (addresses, paths, URLs, names, limits) is left to ``check``.
"""

import ast
import inspect
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel

from etl.settings.read import Settings
from etl.settings.sections import RunTest


def settings_schema() -> dict[str, Any]:
    """The schema, of draft 7, which every editor knows."""
    generated = Settings.model_json_schema()["$defs"]
    sections = {
        name: _section(model, generated)
        for name, field in Settings.model_fields.items()
        for model in (field.annotation, *get_args(field.annotation))
        if isinstance(model, type) and issubclass(model, BaseModel)
    }
    run_test = {"anyOf": [{"type": "string", "minLength": 1}, _section(RunTest, generated)]}
    run_tests = {
        "description": 'names of the run tests to export, or "all" for every run test that the key can see',
        "anyOf": [{"const": "all"}, {"type": "array", "minItems": 1, "uniqueItems": True, "items": run_test}],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of metrics-etl",
        "type": "object",
        "properties": sections | {"run_tests": run_tests},
        "required": ["run_tests"],
        "additionalProperties": False,
    }


def _section(model: type[BaseModel], generated: dict[str, Any]) -> dict[str, Any]:
    section = {name: value for name, value in generated[model.__name__].items() if name != "title"}
    section["description"] = section["description"].replace("``", "`")
    for name, meaning in _meanings(model).items():
        section["properties"][model.model_fields[name].alias or name]["description"] = meaning
    section["properties"] = {name: _key(value) for name, value in section["properties"].items()}
    return section


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each key, by its name: pydantic would read the source of all sections at every start."""
    section: Any = ast.parse(inspect.getsource(model)).body[0]
    pairs: Any = pairwise(section.body)
    kinds = (ast.AnnAssign, ast.Expr)
    return {key.target.id: text.value.value for key, text in pairs if (type(key), type(text)) == kinds}


def _key(generated: dict[str, Any]) -> dict[str, Any]:
    """Without what TOML does not have, null, and without titles and formats, which say nothing."""
    kinds = [each for each in generated.get("anyOf", [{}]) if each != {"type": "null"}]
    merged = {name: value for name, value in sorted(generated.items()) if name != "anyOf"}
    merged |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if merged.get("default", ...) is None:
        del merged["default"]
    return {name: each for name, each in merged.items() if name != "title" and (name, each) != ("format", "file-path")}
